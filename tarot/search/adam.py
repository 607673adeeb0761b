"""The default search: uphill on every coordinate at once.

    x <- clip(x + rate(n) m / (sqrt(v) + epsilon), 0, 1),    m, v: corrected moving means of the gradient and its square
    rate(n) = RATE / (1 + n / SLOWING),                      n: steps before this one

Source: Kingma and Ba, Adam: A Method for Stochastic Optimization, arXiv 1412.6980. Nothing is random here. The rate
falls because steps of Adam do not shrink with the gradient: at a constant one the angles wander where they should
settle.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from tarot.search.points import identity
from tarot.search.protocol import Point, Proposal
from tarot.search.trials import Trial

RATE = 1 / 32  # of the cube's side: at a bound of pi/4 the first step turns by some 0.05 radians
SLOWING = 16  # steps after which half the rate is left; no horizon, so that a larger budget continues a smaller one
MOMENTUM, SQUARES, EPSILON = 0.9, 0.999, 1e-12


class Adam:
    """The identity, then a step of Adam from each point to the next; half a step back from a point that failed.

    There is none after an identity that failed: a search ends there.
    """

    follows_gradient: ClassVar[bool] = True
    in_batches: ClassVar[bool] = False

    def __init__(self, d: int, seed: int) -> None:
        self.d = d

    def propose(self, history: Sequence[Trial], pending: Sequence[Point] = ()) -> Proposal:
        """The next point, from all gradients so far."""
        if not history:
            return Proposal(identity(self.d), "identity")
        sound = [trial for trial in history if trial.gradient]
        last = _point(history[-1])
        if not history[-1].gradient:
            return Proposal((last + _point(sound[-1])) / 2, "gradient")
        rate = RATE / (1 + (len(sound) - 1) / SLOWING)
        return Proposal((last + rate * _step([trial.gradient for trial in sound])).clamp(0, 1), "gradient")


def _point(trial: Trial) -> Float[Tensor, "d"]:
    return torch.tensor(trial.x, dtype=torch.float64)


def _step(gradients: Sequence[Sequence[float]]) -> Float[Tensor, "d"]:
    """m / (sqrt(v) + epsilon) after these gradients."""
    g = torch.tensor(gradients, dtype=torch.float64)
    ages = torch.arange(len(g) - 1, -1, -1, dtype=torch.float64)
    weights = {decay: (1 - decay) * decay**ages / (1 - decay ** len(g)) for decay in (MOMENTUM, SQUARES)}
    m, v = weights[MOMENTUM] @ g, weights[SQUARES] @ (g * g)
    return m / (v.sqrt() + EPSILON)
