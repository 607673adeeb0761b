"""Bayesian optimisation: a Gaussian process with dimension-scaled priors and log expected improvement.

It serves objectives without a gradient. Where these return a standard error, it is the noise of the process, and the
trial with the highest posterior mean is kept: the highest score owes much to its noise.

Source of the priors: Hvarfner et al., Vanilla Bayesian Optimization Performs Great in High Dimensions,
arXiv 2402.02229.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import ClassVar, NamedTuple

import torch
from botorch.models import SingleTaskGP
from botorch.models.utils.gpytorch_modules import get_covar_module_with_dim_scaled_prior

from tarot.search.algorithms.acquisition import (
    Points,
    Scores,
    SurrogateFailed,
    fit_gaussian_process,
    handle_numerical_errors,
    make_gaussian_process,
    maximise_acquisition,
    noise_variances,
    to_tensors,
)
from tarot.search.algorithms.base import Point, Proposal, Search
from tarot.search.algorithms.points import identity, local_rng, sobol, uniform
from tarot.search.trials import Trial, best_of

# Sobol points. At budget 60 in 135 dimensions 20 were too many; results with 3 to 10 did not differ measurably.
DESIGN = 5
# Of the acquisition function. Two to four times as many found no better points in 135 dimensions and 120 trials, and
# took two and a half times as long.
RESTARTS, RAW_SAMPLES, MAX_STEPS = 2, 32, 8
REFIT_GROWTH = 1.25  # refit the hyperparameters when the number of trials has grown by this factor


class BayesianOptimisation(Search):
    """Propose the identity, a design of five points, then argmax LogEI under a Gaussian process.

    The design is a scrambled Sobol sequence. Between refits the process is conditioned on the new trials with unchanged
    hyperparameters. These are fitted to the first `last_refit(n)` of n trials, so a resumed search computes the same
    ones.
    """

    in_batches: ClassVar[bool] = True

    def __init__(self, d: int, seed: int) -> None:
        super().__init__(d, seed)
        self._last_fit: _FittedModel | None = None

    def propose(self, history: Sequence[Trial], pending: Sequence[Point] = ()) -> Proposal:
        """Return the next point; a uniform draw if the surrogate cannot be fitted or proposes a point again."""
        index = len(history) + len(pending)
        if not index:
            return Proposal(identity(self.d), "identity")
        if len(history) <= DESIGN:
            return Proposal(sobol(self.d, self.seed, index - 1), "sobol")
        proposal = maximise_acquisition(
            history,
            self.seed,
            partial(self._model, variances=noise_variances(history)),
            pending=pending,
            restarts=RESTARTS,
            raw_samples=RAW_SAMPLES,
            options={"sample_around_best": True, "maxiter": MAX_STEPS},
        )
        # The surrogate assumes noise, but scores have none: evaluating a point again would teach it nothing.
        tried = [*(trial.x for trial in history), *(tuple(x.tolist()) for x in pending)]
        if tuple(proposal.x.tolist()) in tried:
            return Proposal(uniform(self.d, self.seed, index), "random")
        return proposal

    def recommend(self, history: Sequence[Trial]) -> Trial:
        """Return the trial to keep: with the highest posterior mean if scores have a standard error, else the best.

        A trial whose score is not finite is never kept, unless none is.
        """
        finite = [trial for trial in history if math.isfinite(trial.score)]
        variances = noise_variances(finite)
        if variances is None:
            return best_of(history)
        X, Y = to_tensors(finite)
        try:
            with handle_numerical_errors(self.seed, len(history)):
                means = self._model(X, Y, variances).posterior(X).mean
        except SurrogateFailed:
            return best_of(history)
        return finite[int(means.argmax())]

    def _model(self, X: Points, Y: Scores, variances: Scores | None) -> SingleTaskGP:
        """Return the process given all trials, with the hyperparameters of the last refit."""
        m = last_refit(len(Y))
        fit = self._fitted(X[:m], Y[:m], None if variances is None else variances[:m])
        likelihood = fit.likelihood if variances is None else None  # known noise belongs to the trials, not to the fit
        return make_gaussian_process(X, Y, fit.covar_module, fit.mean_module, likelihood, variances=variances).eval()

    def _fitted(self, X: Points, Y: Scores, variances: Scores | None) -> SingleTaskGP:
        fit = self._last_fit
        if fit is None or not (torch.equal(fit.X, X) and torch.equal(fit.Y, Y)):
            with local_rng(self.seed, -len(Y)):
                kernel = get_covar_module_with_dim_scaled_prior(self.d)
                model = fit_gaussian_process(X, Y, kernel, max_steps=50, variances=variances)
            self._last_fit = fit = _FittedModel(X, Y, model.requires_grad_(False))
        return fit.model


class _FittedModel(NamedTuple):
    """The cached surrogate, and the trials it was fitted to."""

    X: Points
    Y: Scores
    model: SingleTaskGP


def last_refit(n: int) -> int:
    """Return the number of trials at the last refit: the largest term up to n of 1, 2, 3, ..., 8, 10, 12, 15, ...

    Each term is `REFIT_GROWTH` times the one before, rounded down, or one more than it.

    Example:
        >>> [last_refit(n) for n in (7, 9, 14)]
        [7, 8, 12]
    """
    m = 1
    while (following := max(m + 1, int(REFIT_GROWTH * m))) <= n:
        m = following
    return m
