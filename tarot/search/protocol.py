"""What a search has to say after each trial: where next."""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from tarot.search.trials import Origin, Trial

Point = Float[Tensor, "d"]


class Proposal(NamedTuple):
    """The next point, in [0, 1]^d, and where it comes from."""

    x: Point
    origin: Origin


@runtime_checkable
class Search(Protocol):
    """history -> proposal.

    The proposal depends on the dimension, the seed, the history and what is pending alone, never on the budget or on
    what this object was asked before: that is what makes a resumed run equal to one never interrupted. An object may
    remember what is dear to compute, no more.

    Attributes:
        follows_gradient: whether it asks for the gradient at every point, beside the score.
        in_batches: whether it can propose a point before the last one's score is known.
    """

    follows_gradient: ClassVar[bool]
    in_batches: ClassVar[bool]

    def __init__(self, d: int, seed: int) -> None: ...

    def propose(self, history: Sequence[Trial], pending: Sequence[Point] = ()) -> Proposal:
        """The point to try after these trials, beside those of the same batch; the identity where there is none."""
        ...
