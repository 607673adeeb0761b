"""The published search, with its sign mended and as it was: controls.

GP with the kernel of an infinitely wide network (12 layers, weight variance 10, bias variance 5, scaled), log expected
improvement, one point at a time, 4 uniform starts; 20 local searches from 1,024 points, as in the published code. That
code minimises a negated score but maximises the improvement over its minimum; here both point upwards. Three more
things differ: trial 0 is the identity, inputs are scaled by the cube and not by the points, and optimisers stop after
50 steps, which saves a third to a half of their time and was not seen to matter.
Source: Singh, Dutta and Chakraborty, Mechanistic Behavior Editing of Language Models, arXiv 2410.04277.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from botorch.models import SingleTaskGP
from botorch.models.kernels import InfiniteWidthBNNKernel
from botorch.models.transforms.input import InputTransform
from gpytorch.kernels import ScaleKernel
from jaxtyping import Float
from torch import Tensor

from tarot.search.acquisition import Points, Scores, fitted, improve
from tarot.search.points import identity, uniform
from tarot.search.protocol import Point, Proposal
from tarot.search.trials import Trial

STARTS = 4
SETTINGS: dict[str, Any] = {"restarts": 20, "raw_samples": 1024, "options": {"maxiter": 50}}


class Paper:
    """The identity, 4 uniform draws, then argmax LogEI under the infinite-width BNN kernel, refitted at every trial."""

    follows_gradient: ClassVar[bool] = False
    in_batches: ClassVar[bool] = False  # as published: one point at a time

    def __init__(self, d: int, seed: int) -> None:
        self.d = d
        self.seed = seed

    def propose(self, history: Sequence[Trial], pending: Sequence[Point] = ()) -> Proposal:
        """The next point; a uniform draw where the surrogate cannot be fitted."""
        if not history:
            return Proposal(identity(self.d), "identity")
        if len(history) <= STARTS:
            return Proposal(uniform(self.d, self.seed, len(history)), "random")
        return self._improve(history)

    def _improve(self, history: Sequence[Trial]) -> Proposal:
        return improve(history, self.seed, _model, **SETTINGS)


class Published(Paper):
    """`Paper` as published: it minimises the negated score, but maximises the improvement over that minimum.

    So it proposes where the score is likely to be *worse*. For study only.
    """

    def _improve(self, history: Sequence[Trial]) -> Proposal:
        negated = [replace(trial, score=-trial.score) for trial in history]
        return improve(negated, self.seed, _model, **SETTINGS, incumbent=torch.min)


def _model(X: Points, Y: Scores) -> SingleTaskGP:
    kernel = InfiniteWidthBNNKernel(depth=12)
    kernel.weight_var = 10.0
    kernel.bias_var = 5.0
    return fitted(X, Y, ScaleKernel(kernel), max_steps=50, input_transform=Span(X))


class Span(InputTransform):
    """What a kernel of inner products sees of a point beside n trials: n + 1 coordinates, where d are more.

        x -> sqrt((n + 1) / d) (x Q, |x - x Q Q'|),    Q: an orthonormal basis of the trials' span

    Inner products with the trials stay, and so does x's length; the factor is there as the kernel divides them by the
    number of coordinates. The process is the same, and a proposal in 4,320 dimensions takes a third to a fifth of the
    time (20 to 110 trials).
    """

    is_one_to_many = False
    transform_on_train = transform_on_eval = transform_on_fantasize = True

    def __init__(self, X: Points) -> None:
        super().__init__()
        self.basis = torch.linalg.qr(X.mT).Q
        self.factor = math.sqrt((self.basis.shape[1] + 1) / len(self.basis))

    def transform(self, X: Float[Tensor, "*batch point d"]) -> Float[Tensor, "*batch point seen"]:
        """These points in the basis of the trials, and how far each is from it."""
        within = X @ self.basis
        squares = (X * X).sum(-1, keepdim=True) - (within * within).sum(-1, keepdim=True)
        # Above 0, where a root has a gradient.
        return self.factor * torch.cat([within, squares.clamp_min(1e-12).sqrt()], dim=-1)
