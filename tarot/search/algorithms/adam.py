"""Adam, the default search: follow the gradient in every coordinate at once.

    x <- clip(x + rate(n) m / (sqrt(v) + epsilon), 0, 1)
    rate(n) = RATE / (1 + n / HALVING)

m and v are the bias-corrected moving means of the gradient and of its square, n is the number of steps before this one.
The rate falls because Adam's steps do not shrink with the gradient: at a constant rate the angles would not settle.
Nothing is random.

Source: Kingma and Ba, Adam: A Method for Stochastic Optimization, arXiv 1412.6980.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from tarot.search.algorithms.base import GRADIENT_COST, Point, Proposal, Search
from tarot.search.algorithms.points import identity
from tarot.search.trials import Trial

RATE = 1 / 32  # of the cube's side: with a bound of pi/4 the first step turns each angle by about 0.05 radians
HALVING = 16  # steps until the rate has halved; independent of the budget, so that a search can go on with a larger one
MOMENTUM, SQUARES, EPSILON = 0.9, 0.999, 1e-12


class Adam(Search):
    """Propose the identity, then one step of Adam from each point to the next.

    After a trial that failed, propose the midpoint between it and the last trial that did not. A failed identity ends
    the search.
    """

    follows_gradient: ClassVar[bool] = True
    holds_limit: ClassVar[bool] = True
    trial_cost: ClassVar[int] = GRADIENT_COST
    rate: ClassVar[float] = RATE
    halving: ClassVar[int] = HALVING
    one_scale: ClassVar[bool] = False  # divide by one root mean square for all coordinates, in place of one for each

    def propose(self, history: Sequence[Trial], pending: Sequence[Point] = ()) -> Proposal:
        """Return the next point, computed from all gradients so far."""
        if not history:
            return Proposal(identity(self.d), "identity")
        succeeded = [trial for trial in history if trial.gradient]
        last = history[-1].point
        if not history[-1].gradient:
            return Proposal((last + succeeded[-1].point) / 2, "gradient")
        rate = self.step_scale * self.rate / (1 + (len(succeeded) - 1) / self.halving)
        step = _step([trial.gradient for trial in succeeded], self.one_scale)
        return Proposal((last + rate * step).clamp(0, 1), "gradient")


def _step(gradients: Sequence[Sequence[float]], one_scale: bool) -> Float[Tensor, "d"]:
    """Return m / (sqrt(v) + epsilon) after these gradients; with one scale, v is the mean over all coordinates."""
    g = torch.tensor(gradients, dtype=torch.float64)
    ages = torch.arange(len(g) - 1, -1, -1, dtype=torch.float64)
    weights = {decay: (1 - decay) * decay**ages / (1 - decay ** len(g)) for decay in (MOMENTUM, SQUARES)}
    m, v = weights[MOMENTUM] @ g, weights[SQUARES] @ (g * g)
    return m / ((v.mean() if one_scale else v).sqrt() + EPSILON)
