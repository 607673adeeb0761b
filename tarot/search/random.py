"""Uniform draws of the cube: the control that every other search has to beat."""

from collections.abc import Sequence
from typing import ClassVar

from tarot.search.points import identity, uniform
from tarot.search.proposal import Proposal
from tarot.search.trial import Trial


class Random:
    """x ~ U[0, 1]^d, after the identity."""

    follows_gradient: ClassVar[bool] = False

    def __init__(self, d: int, seed: int) -> None:
        self.d = d
        self.seed = seed

    def propose(self, history: Sequence[Trial]) -> Proposal:
        """The identity, then a uniform draw for each index."""
        if not history:
            return Proposal(identity(self.d), "identity")
        return Proposal(uniform(self.d, self.seed, len(history)), "random")
