"""The protocol that every search follows: from the trials so far to the next point."""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from tarot.search.trials import Origin, Trial

Point = Float[Tensor, "d"]


class Proposal(NamedTuple):
    """The next point to evaluate, in [0, 1]^d, and how it was chosen."""

    x: Point
    origin: Origin


@runtime_checkable
class Search(Protocol):
    """A search: proposes a point after each trial.

    A proposal depends only on the dimension, the seed, the history and the pending points. It never depends on the
    budget or on earlier calls, so a resumed run makes the same trials as an uninterrupted one. Implementations may
    cache expensive results but hold no other state.

    Attributes:
        follows_gradient: whether the search needs the gradient at every point, beside the score.
        in_batches: whether the search can propose a point before the previous score is known.

    Example:
        >>> import torch
        >>> class Centre:
        ...     follows_gradient = False
        ...     in_batches = True
        ...
        ...     def __init__(self, d, seed):
        ...         self.d = d
        ...
        ...     def propose(self, history, pending=()):
        ...         return Proposal(torch.full((self.d,), 0.5, dtype=torch.float64), "identity")
        >>> isinstance(Centre(2, seed=0), Search)
        True
    """

    follows_gradient: ClassVar[bool]
    in_batches: ClassVar[bool]

    def __init__(self, d: int, seed: int) -> None: ...

    def propose(self, history: Sequence[Trial], pending: Sequence[Point] = ()) -> Proposal:
        """Return the next point to evaluate.

        Args:
            history: the trials so far, in order.
            pending: points proposed in this step whose scores are not known yet.

        Returns:
            The point; the identity, x = 0.5, if there are neither trials nor pending points.
        """
        ...
