"""Where cells are measured and candidates scored: in this process, or on the machines of a Ray cluster."""

from tarot.machines.candidates import Candidates
from tarot.machines.cells import RayEngine, local
from tarot.machines.cluster import Needs

__all__ = ["Candidates", "Needs", "RayEngine", "local"]
