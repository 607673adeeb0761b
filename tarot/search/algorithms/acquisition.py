"""Maximise log expected improvement under a Gaussian process fitted to the trials.

    argmax over x of log E[max(f(x) - best, 0)]

With pending points it is log E[max(f(x) - best, f(pending) - best, 0)]: a batch is chosen greedily, point by point.

Source: Ament et al., Unexpected Improvements to Expected Improvement, arXiv 2310.20708, as implemented in BoTorch.
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

from tarot.search.algorithms.base import Point, Proposal
from tarot.search.algorithms.points import local_rng, uniform
from tarot.search.trials import Trial

Points = Float[Tensor, "n d"]
Scores = Float[Tensor, "n 1"]

# Posterior standard deviation, relative to that of the scores, below which the surrogate cannot tell points apart.
MIN_SPREAD = 1e-6
MIN_NOISE = 1e-4  # smallest variance of a score, relative to the largest: with none, decompositions fail


class SurrogateFailed(Exception):
    """No Gaussian process fitted to the trials tells one point from another."""


def to_tensors(history: Sequence[Trial]) -> tuple[Points, Scores]:
    """Return points `n x d` and scores `n x 1`; a failed trial gets the worst finite score, so the search avoids it."""
    worst = min((trial.score for trial in history if math.isfinite(trial.score)), default=0.0)
    X = torch.tensor([trial.x for trial in history], dtype=torch.float64)
    Y = torch.tensor([[trial.score] for trial in history], dtype=torch.float64).nan_to_num(nan=worst)
    return X, Y


def noise_variances(history: Sequence[Trial]) -> Scores | None:
    """Return the variance of each score, `n x 1`; None if no trial has a standard error.

    A score without one among scores that have one counts as nearly exact.
    """
    if not any(trial.error for trial in history):
        return None
    errors = torch.tensor([[trial.error] for trial in history], dtype=torch.float64)
    return errors.square().clamp(min=MIN_NOISE * float(errors.square().max()))


def cube_bounds(d: int) -> Float[Tensor, "2 d"]:
    """Return the bounds of [0, 1]^d in BoTorch's form: lower and upper ones, `2 x d`."""
    return torch.tensor([[0.0], [1.0]], dtype=torch.float64).expand(2, d)


def make_gaussian_process(
    X: Points,
    Y: Scores,
    kernel: Kernel,
    mean: Mean | None = None,
    likelihood: Likelihood | None = None,
    input_transform: InputTransform | None = None,
    variances: Scores | None = None,
) -> SingleTaskGP:
    """Return the process Y ~ N(mean, kernel + noise), conditioned on standardised scores.

    Args:
        X: points in the unit cube, `n x d`.
        Y: their scores, `n x 1`.
        kernel: covariance module.
        mean: None takes BoTorch's constant mean.
        likelihood: None takes BoTorch's noise with a log-normal prior.
        input_transform: applied to points before the kernel.
        variances: of the scores' noise, `n x 1`; None fits one variance for all.
    """
    return SingleTaskGP(
        X,
        Y,
        train_Yvar=variances,
        likelihood=likelihood,
        covar_module=kernel,
        mean_module=mean,
        outcome_transform=Standardize(m=1),
        input_transform=input_transform,
    )


def fit_gaussian_process(
    X: Points,
    Y: Scores,
    kernel: Kernel,
    max_steps: int,
    input_transform: InputTransform | None = None,
    variances: Scores | None = None,
) -> SingleTaskGP:
    """Return the process with maximum a posteriori hyperparameters, after at most `max_steps` steps of L-BFGS-B."""
    model = make_gaussian_process(X, Y, kernel, input_transform=input_transform, variances=variances)
    fit_gpytorch_mll(
        ExactMarginalLogLikelihood(model.likelihood, model), optimizer_kwargs={"options": {"maxiter": max_steps}}
    )
    return model


def maximise_acquisition(
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
    """Return the point with the highest LogEI; a uniform draw if the surrogate cannot be fitted.

    Args:
        history: the trials so far.
        seed: the search's seed.
        surrogate: fits a process to points and scores.
        pending: points of the same step, whose scores are not known yet.
        restarts: local searches of the acquisition function, from the best of `raw_samples` points.
        raw_samples: points at which the acquisition function is evaluated first.
        options: for BoTorch's `optimize_acqf`.
        incumbent: maps the scores to the value to improve on. If scores have a standard error, it is the highest
            posterior mean at a trial instead: the highest score owes much to its noise.
    """
    X, Y = to_tensors(history)
    index, d = len(X) + len(pending), X.shape[1]
    try:
        with handle_numerical_errors(seed, index):
            if not 0 < Y.std() < math.inf:
                raise SurrogateFailed
            model = surrogate(X, Y)
            noisy = any(trial.error for trial in history)
            best = model.posterior(X).mean.detach().max() if noisy else incumbent(Y)
            x, _ = optimize_acqf(
                qLogExpectedImprovement(model, best_f=best, X_pending=torch.stack(list(pending)))
                if pending
                else LogExpectedImprovement(model, best_f=best),
                bounds=cube_bounds(d),
                q=1,
                num_restarts=restarts,
                raw_samples=raw_samples,
                gen_candidates=_local_searches,
                options=options,
                retry_on_optimization_warning=False,
            )
            spread = model.posterior(x).variance.sqrt() / Y.std()
            if not (x.isfinite().all() and spread > MIN_SPREAD):
                raise SurrogateFailed
    except SurrogateFailed:
        return Proposal(uniform(d, seed, index), "random")
    return Proposal(x[0].detach().clamp(0, 1), "acquisition")


def _local_searches(
    starts: Float[Tensor, "restart 1 d"], acquisition: AcquisitionFunction, fixed_features: Any, **rest: Any
) -> tuple[Tensor, Tensor]:
    """Run BoTorch's local searches without its slow loop over coordinates for fixed features; there are none."""
    return gen_candidates_scipy(starts, acquisition, **rest)


@contextmanager
def handle_numerical_errors(seed: int, index: int) -> Iterator[None]:
    """Seed this trial's random numbers, silence BoTorch's known warnings, raise its failures as `SurrogateFailed`."""
    with local_rng(seed, index), warnings.catch_warnings():
        for category in (BotorchWarning, NumericalWarning):
            warnings.simplefilter("ignore", category)
        try:
            yield
        except (
            BotorchError,
            ModelFittingError,
            RuntimeError,
        ) as error:  # torch raises nothing narrower for failed decompositions
            raise SurrogateFailed from error
