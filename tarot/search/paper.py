"""The published search, with its sign mended and as it was: controls.

GP with the kernel of an infinitely wide network (12 layers, weight variance 10, bias variance 5, scaled), log expected
improvement, one point at a time, 4 uniform starts; 20 local searches from 1,024 points, as in the published code. That
code minimises a negated score but maximises the improvement over its minimum; here both point upwards. Three more
things differ: trial 0 is the identity, inputs are scaled by the cube and not by the points, and optimisers stop after
50 steps, which saves a third to a half of their time and was not seen to matter.
Source: Singh, Dutta and Chakraborty, Mechanistic Behavior Editing of Language Models, arXiv 2410.04277.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from botorch.models import SingleTaskGP
from botorch.models.kernels import InfiniteWidthBNNKernel
from gpytorch.kernels import ScaleKernel

from tarot.search.improvement import Points, Scores, fitted, improve
from tarot.search.points import identity, uniform
from tarot.search.proposal import Point, Proposal
from tarot.search.trial import Trial

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
    return fitted(X, Y, ScaleKernel(kernel), max_steps=50)
