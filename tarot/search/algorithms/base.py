"""Base class of searches: from the trials so far to the next point."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from jaxtyping import Float
from torch import Tensor

from tarot.search.trials import Origin, Trial, best_of

Point = Float[Tensor, "d"]
GRADIENT_COST = 3  # evaluations that a score with its gradient counts for: the backward pass does twice the work


class Proposal(NamedTuple):
    """The next point to evaluate, in [0, 1]^d, and how it was chosen."""

    x: Point
    origin: Origin


class Search(ABC):
    """A search: proposes a point after each trial.

    A proposal depends only on the dimension, the seed, the history and the pending points. It never depends on the
    budget or on earlier calls, so a resumed run makes the same trials as an uninterrupted one. A search may cache
    expensive results but holds no other state.

    Args:
        d: number of coordinates.
        seed: random seed of the proposals.

    Attributes:
        follows_gradient: whether it needs the gradient at every point, beside the score.
        in_batches: whether it can propose a point before the previous score is known.
        holds_limit: whether it can hold a limit of divergence; it then shortens its steps by `step_scale`.
        trial_cost: evaluations that a trial counts for, `GRADIENT_COST` if it follows the gradient of a score.
        default_budget: evaluations that it gets where nobody says how many.
        patience: number of trials without a better score that end it.
        step_scale: length of a step under a limit of divergence, as a share of a full step.

    Example:
        >>> import torch
        >>> class Centre(Search):
        ...     def propose(self, history, pending=()):
        ...         return Proposal(torch.full((self.d,), 0.5, dtype=torch.float64), "identity")
        >>> Centre(2, seed=0).propose([]).x
        tensor([0.5000, 0.5000], dtype=torch.float64)
    """

    follows_gradient: ClassVar[bool] = False
    in_batches: ClassVar[bool] = False
    holds_limit: ClassVar[bool] = False
    trial_cost: ClassVar[int] = 1
    default_budget: ClassVar[int] = 120
    patience: ClassVar[float] = math.inf
    step_scale: float = 1.0

    def __init__(self, d: int, seed: int) -> None:
        self.d = d
        self.seed = seed

    @abstractmethod
    def propose(self, history: Sequence[Trial], pending: Sequence[Point] = ()) -> Proposal:
        """Return the next point to evaluate.

        Args:
            history: the trials so far, in order.
            pending: points proposed in this step whose scores are not known yet.

        Returns:
            The point; the identity, x = 0.5, if there are neither trials nor pending points.
        """

    def recommend(self, history: Sequence[Trial]) -> Trial:
        """Return the trial to keep; by default the first with the highest finite score."""
        return best_of(history)
