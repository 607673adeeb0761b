"""Searches that the study compares with the product's, all with the product's protocol."""

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from botorch.fit import fit_gpytorch_mll
from botorch.generation.sampling import MaxPosteriorSampling
from botorch.models import SingleTaskGP
from botorch.models.map_saas import get_map_saas_model
from botorch.models.transforms import Standardize
from botorch.models.utils.gpytorch_modules import get_covar_module_with_dim_scaled_prior
from cmaes import CMA
from gpytorch.constraints import GreaterThan
from gpytorch.kernels import Kernel
from gpytorch.mlls import ExactMarginalLogLikelihood
from gpytorch.priors import LogNormalPrior
from torch import Tensor
from torch.quasirandom import SobolEngine

from tarot.search.algorithms.acquisition import (
    Points,
    Scores,
    SurrogateFailed,
    cube_bounds,
    fit_gaussian_process,
    handle_numerical_errors,
    make_gaussian_process,
    maximise_acquisition,
    noise_variances,
    to_tensors,
)
from tarot.search.algorithms.base import Point, Proposal, Search
from tarot.search.algorithms.bayesian import BayesianOptimisation, last_refit
from tarot.search.algorithms.paper import infinite_width_kernel
from tarot.search.algorithms.points import identity, local_rng, sobol, stable_seed, uniform
from tarot.search.algorithms.random import Random
from tarot.search.trials import Trial


class Matern(BayesianOptimisation):
    """`bo` with a Matern kernel of smoothness 5/2 instead of a Gaussian one; the priors are the same."""

    _last: tuple[Scores, SingleTaskGP] | None = None

    def _kernel(self) -> Kernel:
        return get_covar_module_with_dim_scaled_prior(self.d, use_rbf_kernel=False)

    def _fitted(self, X: Points, Y: Scores, variances: Scores | None) -> SingleTaskGP:
        if self._last is None or len(self._last[0]) != len(Y):
            with local_rng(self.seed, -len(Y)):
                model = fit_gaussian_process(X, Y, self._kernel(), max_steps=50, variances=variances)
            self._last = (Y, model.requires_grad_(False))
        return self._last[1]


class OnSphere(Kernel):
    """k(x, y) = a + b <p(x), p(y)>, where p projects the scaled cube onto a sphere (stereographically).

    The spherical linear kernel of arXiv 2512.00170. The projection keeps a linear model from always proposing corners.
    """

    has_lengthscale = True

    def __init__(self, d: int) -> None:
        prior = LogNormalPrior(math.sqrt(2), math.sqrt(3))
        super().__init__(ard_num_dims=d, lengthscale_prior=prior, lengthscale_constraint=GreaterThan(0.025))
        self.lengthscale = prior.mode
        self.register_parameter("raw_share", torch.nn.Parameter(torch.zeros(1)))
        self.register_parameter("raw_scale", torch.nn.Parameter(torch.zeros(1)))

    def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **_: object) -> Tensor:
        """Return the covariances of two sets of points."""
        first, second = (self._projected(x) for x in (x1, x2))
        share = self.raw_share.sigmoid()
        products = (first * second).sum(-1) if diag else first @ second.transpose(-1, -2)
        return share + (1 - share) * products

    def _projected(self, x: Tensor) -> Tensor:
        corner = self.lengthscale.pow(-2).sum(-1, keepdim=True)  # the greatest squared norm
        z = (2 * x - 1) / self.lengthscale / (self.raw_scale.sigmoid() * corner).sqrt()
        square = (z * z).sum(-1, keepdim=True)
        return torch.cat([2 * z, square - 1], -1) / (1 + square)


class SphericalLinear(Matern):
    """`bo` with the kernel of `OnSphere`."""

    def _kernel(self) -> Kernel:
        return OnSphere(self.d)


class InfiniteWidth(Matern):
    """`bo` with the paper's kernel, that of an infinitely wide network."""

    def _kernel(self) -> Kernel:
        return infinite_width_kernel()


class Saas(BayesianOptimisation):
    """`bo` with a sparse prior on inverse length-scales, at its maximum (Eriksson and Jankowiak, arXiv 2103.00349)."""

    def _model(self, X: Points, Y: Scores, variances: Scores | None) -> SingleTaskGP:
        m = last_refit(len(Y))
        with local_rng(self.seed, -m):
            noise = None if variances is None else variances[:m]
            past = get_map_saas_model(X[:m], Y[:m], noise, outcome_transform=Standardize(m=1))
            mll = ExactMarginalLogLikelihood(past.likelihood, past)
            fit_gpytorch_mll(mll, optimizer_kwargs={"options": {"maxiter": 50}})
        past.requires_grad_(False)
        likelihood = past.likelihood if variances is None else None
        return make_gaussian_process(X, Y, past.covar_module, past.mean_module, likelihood, variances=variances).eval()


class Turbo(BayesianOptimisation):
    """One trust region around the best point (Eriksson et al., TuRBO, arXiv 1910.01739), Thompson sampling inside.

    The region is a cube. It doubles after three successes and halves after ten failures; the published number of
    failures, that of the coordinates, does not occur within the budget.
    """

    in_batches: ClassVar[bool] = False

    def propose(self, history: Sequence[Trial], pending: Sequence[Point] = ()) -> Proposal:
        """Return the next point."""
        if len(history) <= 6:
            return super().propose(history)
        X, Y = to_tensors(history)
        length, failures, successes, best = 0.8, 0, 0, float(Y[:6].max())
        for score in Y[6:, 0].tolist():
            better = score > best + 1e-3 * abs(best)
            successes, failures = (successes + 1, 0) if better else (0, failures + 1)
            best = max(best, score)
            if successes == 3:
                length, successes = min(1.6, 2 * length), 0
            if failures == 10:
                length, failures = max(2**-7, length / 2), 0
        centre = X[Y[:, 0].argmax()]
        try:
            with handle_numerical_errors(self.seed, len(history)):
                model = self._model(X, Y, noise_variances(history))
                engine = SobolEngine(self.d, scramble=True, seed=stable_seed(self.seed, len(history)))
                inside = centre + length * (engine.draw(1000, dtype=torch.float64) - 0.5)
                moved = torch.rand(1000, self.d, dtype=torch.float64) < min(1, 20 / self.d)
                candidates = torch.where(moved, inside.clamp(0, 1), centre)
                with torch.no_grad():
                    x = MaxPosteriorSampling(model, replacement=False)(candidates, num_samples=1)[0]
        except SurrogateFailed:
            return Proposal(uniform(self.d, self.seed, len(history)), "random")
        return Proposal(x, "acquisition")


class CmaEs(Search):
    """CMA-ES of the package cmaes, replayed over all trials so far in their order."""

    def propose(self, history: Sequence[Trial], pending: Sequence[Point] = ()) -> Proposal:
        """Return the next point."""
        if not history:
            return Proposal(identity(self.d), "identity")
        evolution = CMA(mean=identity(self.d).numpy(), sigma=0.1, bounds=cube_bounds(self.d).T.numpy(), seed=self.seed)
        batch: list[tuple[np.ndarray, float]] = []
        for trial in history[1:]:
            batch.append((evolution.ask(), -trial.score))
            if len(batch) == evolution.population_size:
                evolution.tell(batch)
                batch = []
        return Proposal(torch.from_numpy(evolution.ask()).double().clamp(0, 1), "acquisition")


class Nested(BayesianOptimisation):
    """`bo` on bins of coordinates that move together, 8, then 32, then each alone (after Papenmeier et al., BAxUS)."""

    in_batches: ClassVar[bool] = False

    def propose(self, history: Sequence[Trial], pending: Sequence[Point] = ()) -> Proposal:
        """Return the next point."""
        if not history:
            return super().propose(history)
        bins = next((b for least, b in ((60, self.d), (30, 32)) if len(history) >= least), 8)
        bins = min(bins, self.d)
        generator = torch.Generator().manual_seed(stable_seed(self.seed, 0))
        # Bins of the later stages split those of the earlier ones.
        coordinate = torch.randperm(self.d, generator=generator) * bins // self.d
        if len(history) <= 5:
            return Proposal(sobol(bins, self.seed, len(history) - 1)[coordinate], "sobol")
        sizes = torch.bincount(coordinate, minlength=bins).double()
        points = [
            torch.zeros(bins, dtype=torch.float64).index_add(0, coordinate, torch.tensor(trial.x).double()) / sizes
            for trial in history
        ]
        coarse = [
            Trial(i, tuple(z.tolist()), trial.score, trial.origin, 0.0, 0.0)
            for i, (z, trial) in enumerate(zip(points, history, strict=True))
        ]
        kernel = get_covar_module_with_dim_scaled_prior(bins)
        z, origin = maximise_acquisition(
            coarse,
            self.seed,
            lambda X, Y: fit_gaussian_process(X, Y, kernel, max_steps=50),
            restarts=2,
            raw_samples=32,
            options={"sample_around_best": True, "maxiter": 8},
        )
        return Proposal(z[coordinate], origin)


BASELINES = {
    "identity": Random,  # its first trial alone
    "random": Random,
    "bo": BayesianOptimisation,
    "matern": Matern,
    "spherical linear": SphericalLinear,
    "map-saas": Saas,
    "bo, batches of 4": BayesianOptimisation,
    "turbo": Turbo,
    "cma-es": CmaEs,
    "nested": Nested,
}
CONTROLS = ("identity", "random")
KERNELS = {"spherical linear": SphericalLinear, "infinite width": InfiniteWidth}  # compared in `head`
