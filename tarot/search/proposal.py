"""What a search has to say after each trial: where next."""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

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

    The proposal depends on the dimension, the seed and the history alone, never on the budget or on what this object
    was asked before: that is what makes a resumed run equal to one never interrupted. An object may remember what is
    dear to compute, no more.

    Attributes:
        follows_gradient: whether it asks for the gradient at every point, beside the score.
    """

    follows_gradient: ClassVar[bool]

    def __init__(self, d: int, seed: int) -> None: ...

    def propose(self, history: Sequence[Trial]) -> Proposal:
        """The point to try after these trials; the identity where there is none."""
        ...
