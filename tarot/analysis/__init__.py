"""Pictures of the mechanism: what an edit changes inside the model, layer by layer and head by head."""

from tarot.analysis.folder import analyse
from tarot.analysis.heads import HeadMaps, Pruned, head_maps, prune
from tarot.analysis.protocol import documents, objective_of, pruned

__all__ = ["HeadMaps", "Pruned", "analyse", "documents", "head_maps", "objective_of", "prune", "pruned"]
