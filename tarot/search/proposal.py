"""What a search has to say after each trial: where next."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from tarot.search.trial import Origin, Trial


class Proposal(NamedTuple):
    """The next point, in [0, 1]^d, and where it comes from."""

    x: Float[Tensor, "d"]
    origin: Origin


@runtime_checkable
class Search(Protocol):
    """history -> proposal.

    The proposal depends on the seed, the history and the dimension alone, never on the budget or on what this object
    was asked before: that is what makes a resumed run equal to one never interrupted. An object may remember what is
    dear to compute, no more.
    """

    def __init__(self, seed: int) -> None: ...

    def propose(self, history: Sequence[Trial], d: int) -> Proposal:
        """The point in [0, 1]^d to try after these trials; the identity where there is none.

        The dimension may have grown since a trial was made: its point has 0.5 in every coordinate that came later.
        """
        ...
