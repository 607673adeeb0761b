"""argmax over x of log E[max(f(x) - best, 0)], the expectation under a Gaussian process fitted to the trials.

Beside points whose scores are still pending, it is log E[max(f(x) - best, f(pending) - best, 0)]: a batch is chosen
greedily, point by point. Log expected improvement is that of Ament et al., arXiv 2310.20708, as BoTorch has it.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from botorch.acquisition.acquisition import AcquisitionFunction
from botorch.acquisition.analytic import LogExpectedImprovement
from botorch.acquisition.logei import qLogExpectedImprovement
from botorch.exceptions.errors import BotorchError, ModelFittingError
from botorch.exceptions.warnings import BotorchWarning
from botorch.fit import fit_gpytorch_mll
from botorch.generation.gen import gen_candidates_scipy
from botorch.models import SingleTaskGP
from botorch.models.transforms import Standardize
from botorch.models.transforms.input import InputTransform
from botorch.optim.optimize import optimize_acqf
from gpytorch.kernels import Kernel
from gpytorch.likelihoods import Likelihood
from gpytorch.means import Mean
from gpytorch.mlls import ExactMarginalLogLikelihood
from jaxtyping import Float
from linear_operator.utils.warnings import NumericalWarning
from torch import Tensor

from tarot.search.points import local_rng, uniform
from tarot.search.protocol import Point, Proposal
from tarot.search.trials import Trial

Points = Float[Tensor, "n d"]
Scores = Float[Tensor, "n 1"]

# Posterior standard deviation, in those of the scores, below which the surrogate takes all points for the same.
MIN_SPREAD = 1e-6


class SurrogateFailed(Exception):
    """The trials support no Gaussian process that tells one point from another."""


def observed(history: Sequence[Trial]) -> tuple[Points, Scores]:
    """All points and their scores; a failed trial counts as the worst of the others, lest it be proposed again."""
    worst = min((trial.score for trial in history if math.isfinite(trial.score)), default=0.0)
    X = torch.tensor([trial.x for trial in history], dtype=torch.float64)
    Y = torch.tensor([[trial.score] for trial in history], dtype=torch.float64).nan_to_num(nan=worst)
    return X, Y


def cube(d: int) -> Float[Tensor, "2 d"]:
    """The bounds of [0, 1]^d, as BoTorch wants them."""
    return torch.tensor([[0.0], [1.0]], dtype=torch.float64).expand(2, d)


def gaussian_process(
    X: Points,
    Y: Scores,
    kernel: Kernel,
    mean: Mean | None = None,
    likelihood: Likelihood | None = None,
    input_transform: InputTransform | None = None,
) -> SingleTaskGP:
    """Y ~ N(mean, kernel + noise), of points in the unit cube and standardised scores.

    Modules that are not given are BoTorch's own: a constant mean, and noise with a log-normal prior.
    """
    return SingleTaskGP(
        X,
        Y,
        likelihood=likelihood,
        covar_module=kernel,
        mean_module=mean,
        outcome_transform=Standardize(m=1),
        input_transform=input_transform,
    )


def fitted(
    X: Points, Y: Scores, kernel: Kernel, max_steps: int, input_transform: InputTransform | None = None
) -> SingleTaskGP:
    """The process with the hyperparameters of maximum posterior, after at most `max_steps` steps of L-BFGS-B."""
    model = gaussian_process(X, Y, kernel, input_transform=input_transform)
    fit_gpytorch_mll(
        ExactMarginalLogLikelihood(model.likelihood, model), optimizer_kwargs={"options": {"maxiter": max_steps}}
    )
    return model


def improve(
    history: Sequence[Trial],
    seed: int,
    surrogate: Callable[[Points, Scores], SingleTaskGP],
    *,
    pending: Sequence[Point] = (),
    restarts: int,
    raw_samples: int,
    options: dict[str, Any],
    incumbent: Callable[[Scores], Tensor] = torch.max,
) -> Proposal:
    """argmax LogEI under `surrogate(X, Y)`; a uniform draw where the numbers do not allow it.

    Args:
        pending: points of the same batch, to improve beside.
        restarts: local searches of the acquisition function, from the best of `raw_samples` points.
        options: BoTorch's, for `optimize_acqf`.
        incumbent: what is to be improved on.
    """
    X, Y = observed(history)
    index, d = len(X) + len(pending), X.shape[1]
    try:
        with numerical_care(seed, index):
            if not 0 < Y.std() < math.inf:
                raise SurrogateFailed
            model = surrogate(X, Y)
            best = incumbent(Y)
            x, _ = optimize_acqf(
                qLogExpectedImprovement(model, best_f=best, X_pending=torch.stack(list(pending)))
                if pending
                else LogExpectedImprovement(model, best_f=best),
                bounds=cube(d),
                q=1,
                num_restarts=restarts,
                raw_samples=raw_samples,
                gen_candidates=_climb,
                options=options,
                retry_on_optimization_warning=False,
            )
            spread = model.posterior(x).variance.sqrt() / Y.std()
            if not (x.isfinite().all() and spread > MIN_SPREAD):
                raise SurrogateFailed
    except SurrogateFailed:
        return Proposal(uniform(d, seed, index), "random")
    return Proposal(x[0].detach().clamp(0, 1), "acquisition")


def _climb(
    starts: Float[Tensor, "restart 1 d"], acquisition: AcquisitionFunction, fixed_features: Any, **rest: Any
) -> tuple[Tensor, Tensor]:
    """BoTorch's local searches, spared a loop over all coordinates for the ones that are fixed: none is."""
    return gen_candidates_scipy(starts, acquisition, **rest)


@contextmanager
def numerical_care(seed: int, index: int) -> Iterator[None]:
    """The random numbers of this trial, BoTorch's known warnings unheard, its known failures as `SurrogateFailed`."""
    with local_rng(seed, index), warnings.catch_warnings():
        for category in (BotorchWarning, NumericalWarning):
            warnings.simplefilter("ignore", category)
        try:
            yield
        except (BotorchError, ModelFittingError, RuntimeError) as error:  # torch has no narrower one for numbers
            raise SurrogateFailed from error
