"""A Gaussian process with dimension-scaled priors and log expected improvement, for objectives without a gradient."""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from botorch.models import SingleTaskGP
from botorch.models.utils.gpytorch_modules import get_covar_module_with_dim_scaled_prior

from tarot.search.acquisition import Points, Scores, fitted, gaussian_process, improve
from tarot.search.points import identity, local_rng, sobol, uniform
from tarot.search.protocol import Point, Proposal
from tarot.search.trials import Trial

DESIGN = 5  # Sobol points; at a budget of 60 in 135 dimensions 20 were too many, 3 to 10 could not be told apart
# Of the acquisition function. Twice to four times as many found no better points (135 dimensions, 120 trials), and took
# two and a half times as long.
RESTARTS, RAW_SAMPLES, MAX_STEPS = 2, 32, 8
REFIT_GROWTH = 1.25  # hyperparameters are fitted anew when there are this many times as many trials


class BayesianOptimisation:
    """The identity, a design of five points, then argmax LogEI under a Gaussian process.

    The design is a scrambled Sobol sequence; where the space has points of its own to start from, they take its place.
    Between refits the process is only conditioned on the new trials. Its hyperparameters are fitted to the first m
    trials, and m depends on the number of trials alone, so that a resumed run finds the same.

    Priors: Hvarfner et al., Vanilla Bayesian Optimization Performs Great in High Dimensions, arXiv 2402.02229.
    """

    follows_gradient: ClassVar[bool] = False
    in_batches: ClassVar[bool] = True

    def __init__(self, d: int, seed: int) -> None:
        self.d = d
        self.seed = seed
        self._memory: _Memory | None = None

    def propose(self, history: Sequence[Trial], pending: Sequence[Point] = ()) -> Proposal:
        """The next point; a uniform draw where the surrogate cannot be fitted, or wants a point again."""
        index = len(history) + len(pending)
        if not index:
            return Proposal(identity(self.d), "identity")
        if len(history) <= DESIGN:
            return Proposal(sobol(self.d, self.seed, index - 1), "sobol")
        proposal = improve(
            history,
            self.seed,
            self._model,
            pending=pending,
            restarts=RESTARTS,
            raw_samples=RAW_SAMPLES,
            options={"sample_around_best": True, "maxiter": MAX_STEPS},
        )
        # Scores have no noise, whatever the surrogate takes for noise: a point that was tried tells nothing.
        tried = [*(trial.x for trial in history), *(tuple(x.tolist()) for x in pending)]
        again = tuple(proposal.x.tolist()) in tried
        return Proposal(uniform(self.d, self.seed, index), "random") if again else proposal

    def _model(self, X: Points, Y: Scores) -> SingleTaskGP:
        m = last_refit(len(Y))
        past = self._fitted(X[:m], Y[:m])
        return gaussian_process(X, Y, past.covar_module, past.mean_module, past.likelihood).eval()

    def _fitted(self, X: Points, Y: Scores) -> SingleTaskGP:
        memory = self._memory
        if memory is None or not (torch.equal(memory.X, X) and torch.equal(memory.Y, Y)):
            with local_rng(self.seed, -len(Y)):
                model = fitted(X, Y, get_covar_module_with_dim_scaled_prior(self.d), max_steps=50)
            self._memory = memory = _Memory(X, Y, model.requires_grad_(False))
        return memory.model


class _Memory(NamedTuple):
    """What was fitted last, and to what."""

    X: Points
    Y: Scores
    model: SingleTaskGP


def last_refit(n: int) -> int:
    """The greatest of 1, 2, 3, ... , each `REFIT_GROWTH` times the one before (or one more), that is at most `n`."""
    m = 1
    while (following := max(m + 1, int(REFIT_GROWTH * m))) <= n:
        m = following
    return m
