"""Uniform draws of the cube: the control that every other search has to beat."""

from collections.abc import Sequence

from tarot.search.points import identity, uniform
from tarot.search.proposal import Proposal
from tarot.search.trial import Trial


class Random:
    """x ~ U[0, 1]^d, after the identity."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def propose(self, history: Sequence[Trial], d: int) -> Proposal:
        """The identity, then a uniform draw for each index."""
        if not history:
            return Proposal(identity(d), "identity")
        return Proposal(uniform(d, self.seed, len(history)), "random")
