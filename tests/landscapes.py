"""Plain functions to maximise, and what two searches of one have to agree on."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tarot.search.trials import Trial

Score = Callable[[Tensor], float]


def comparable(trials: Sequence[Trial]) -> list[tuple]:
    """Return everything of the trials but the seconds; NaN as None, so that equal runs compare equal."""
    return [(t.index, t.x, None if math.isnan(t.score) else t.score, t.origin) for t in trials]


def hill(top: float) -> Score:
    """Return -|x - top|^2."""
    return lambda x: -float((x - top).square().sum())


def saturating(d: int, seed: int) -> Score:
    """Return log sigmoid(a.u - 12 |u|^2 / d - 2): few strong coordinates, most points worse than the centre."""
    generator = torch.Generator().manual_seed(seed)
    strength = torch.randn(2, d, generator=generator, dtype=torch.float64)
    a = strength[0] * strength[1].exp()
    a = 2.5 * a / a.norm()

    def f(x: Tensor) -> float:
        u = 2 * x - 1
        return float(torch.nn.functional.logsigmoid(a @ u - 12 / d * u.square().sum() - 2))

    return f


def with_gradient(f: Callable[[Tensor], Tensor]) -> Callable[[Tensor], tuple[float, Tensor]]:
    """Return a function to a score and its gradient, from a differentiable one."""

    def value_and_grad(x: Tensor) -> tuple[float, Tensor]:
        value = f(point := x.clone().requires_grad_())
        return float(value.detach()), torch.autograd.grad(value, point)[0]

    return value_and_grad


def never_called(x: Tensor) -> float:
    """Fail: a search that follows the gradient must not evaluate anything else."""
    raise AssertionError("a search that follows the gradient evaluates nothing else")
