"""The paper's search with its sign corrected: a control.

A Gaussian process with the kernel of an infinitely wide network (12 layers, weight variance 10, bias variance 5,
scaled), log expected improvement, one point at a time, 4 uniform starts, 20 local searches from 1,024 points. These are
the settings of the published code, which maximises the improvement over the minimum of the negated score and so
proposes points that are likely to score worse.

Three things differ from that code. Trial 0 is the identity. Inputs are scaled by the cube, not by the points.
Optimisers stop after 50 steps, which saves a third to half of their time and made no measurable difference.

Source: Singh, Dutta and Chakraborty, Mechanistic Behavior Editing of Language Models, arXiv 2410.04277.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from botorch.models import SingleTaskGP
from botorch.models.kernels import InfiniteWidthBNNKernel
from botorch.models.transforms.input import InputTransform
from gpytorch.kernels import ScaleKernel
from jaxtyping import Float
from torch import Tensor

from tarot.search.algorithms.acquisition import Points, Scores, fit_gaussian_process, maximise_acquisition
from tarot.search.algorithms.base import Point, Proposal, Search
from tarot.search.algorithms.points import identity, uniform
from tarot.search.trials import Trial

STARTS = 4
SETTINGS: dict[str, Any] = {"restarts": 20, "raw_samples": 1024, "options": {"maxiter": 50}}


class Paper(Search):
    """Propose the identity, 4 uniform draws, then argmax LogEI under the infinite-width BNN kernel."""

    def propose(self, history: Sequence[Trial], pending: Sequence[Point] = ()) -> Proposal:
        """Return the next point; a uniform draw if the surrogate cannot be fitted."""
        if not history:
            return Proposal(identity(self.d), "identity")
        if len(history) <= STARTS:
            return Proposal(uniform(self.d, self.seed, len(history)), "random")
        return self._improve(history)

    def _improve(self, history: Sequence[Trial]) -> Proposal:
        return maximise_acquisition(history, self.seed, fit_surrogate, **SETTINGS)


def fit_surrogate(X: Points, Y: Scores) -> SingleTaskGP:
    """Fit the paper's Gaussian process to scores `Y` at points `X`."""
    return fit_gaussian_process(X, Y, infinite_width_kernel(), max_steps=50, input_transform=TrialSpan(X))


def infinite_width_kernel() -> ScaleKernel:
    """Return the paper's kernel."""
    kernel = InfiniteWidthBNNKernel(depth=12)
    kernel.weight_var = 10.0
    kernel.bias_var = 5.0
    return ScaleKernel(kernel)


class TrialSpan(InputTransform):
    """Write points in an orthonormal basis of the trials' span: n + 1 coordinates instead of d.

        x -> sqrt((n + 1) / d) (x Q, |x - x Q Q'|),    Q: an orthonormal basis of the span of n trials

    A kernel of inner products gives the same Gaussian process in these coordinates: inner products with the trials and
    lengths are preserved, and the factor undoes the kernel's division by the number of coordinates. A proposal in 4,320
    dimensions takes a third to a fifth of the time (20 to 110 trials).
    """

    is_one_to_many = False
    transform_on_train = transform_on_eval = transform_on_fantasize = True

    def __init__(self, X: Points) -> None:
        super().__init__()
        self.basis = torch.linalg.qr(X.mT).Q
        self.factor = math.sqrt((self.basis.shape[1] + 1) / len(self.basis))

    def transform(self, X: Float[Tensor, "*batch point d"]) -> Float[Tensor, "*batch point span"]:
        """Return the coordinates of points in the basis, and their distance from the span."""
        within = X @ self.basis
        squares = (X * X).sum(-1, keepdim=True) - (within * within).sum(-1, keepdim=True)
        # The square root has no gradient at 0.
        return self.factor * torch.cat([within, squares.clamp_min(1e-12).sqrt()], dim=-1)
