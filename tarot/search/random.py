"""Random search: the control that every other search has to beat."""

from collections.abc import Sequence
from typing import ClassVar

from tarot.search.points import identity, uniform
from tarot.search.protocol import Point, Proposal
from tarot.search.trials import Trial


class Random:
    """Propose the identity, then x ~ U[0, 1]^d."""

    follows_gradient: ClassVar[bool] = False
    in_batches: ClassVar[bool] = True

    def __init__(self, d: int, seed: int) -> None:
        self.d = d
        self.seed = seed

    def propose(self, history: Sequence[Trial], pending: Sequence[Point] = ()) -> Proposal:
        """Return a uniform draw for the index of the next trial."""
        index = len(history) + len(pending)
        if not index:
            return Proposal(identity(self.d), "identity")
        return Proposal(uniform(self.d, self.seed, index), "random")
