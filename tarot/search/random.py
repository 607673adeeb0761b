"""Uniform draws of the cube: the control that every other search has to beat."""

from collections.abc import Sequence
from typing import ClassVar

from tarot.search.points import identity, uniform
from tarot.search.protocol import Point, Proposal
from tarot.search.trials import Trial


class Random:
    """x ~ U[0, 1]^d, after the identity and, as for every search, the points that its space starts with."""

    follows_gradient: ClassVar[bool] = False
    in_batches: ClassVar[bool] = True

    def __init__(self, d: int, seed: int) -> None:
        self.d = d
        self.seed = seed

    def propose(self, history: Sequence[Trial], pending: Sequence[Point] = ()) -> Proposal:
        """The identity, then a uniform draw for each index."""
        index = len(history) + len(pending)
        if not index:
            return Proposal(identity(self.d), "identity")
        return Proposal(uniform(self.d, self.seed, index), "random")
