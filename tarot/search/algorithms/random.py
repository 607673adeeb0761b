"""Random search: the control that every other search has to beat."""

from collections.abc import Sequence
from typing import ClassVar

from tarot.search.algorithms.base import Point, Proposal, Search
from tarot.search.algorithms.points import identity, uniform
from tarot.search.trials import Trial


class Random(Search):
    """Propose the identity, then x ~ U[0, 1]^d."""

    in_batches: ClassVar[bool] = True

    def propose(self, history: Sequence[Trial], pending: Sequence[Point] = ()) -> Proposal:
        """Return a uniform draw for the index of the next trial."""
        index = len(history) + len(pending)
        if not index:
            return Proposal(identity(self.d), "identity")
        return Proposal(uniform(self.d, self.seed, index), "random")
