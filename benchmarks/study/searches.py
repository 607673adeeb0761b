"""`python -m benchmarks.study.searches`: which search to use where the objective has no gradient.

Every rival has the product's protocol, the same start of the space, the same objective and the same budget. The samples
are those of a seed that the study does not use, and what the best trial brings is asked of unseen documents of the
training split. One line a run; like the study it can be stopped and started at any time.

The rule of who runs where was written after two of the six cells: successive halving. After every second cell the half
of the searches goes on whose best scores have the higher mean over the cells so far; the controls run in all. After
four, `bo` itself was out by a hair, and mostly for one cell. So that one seed would not change the product, `bo` and
the best of the other searches run on two more seeds in the first cell of each space.

Racing is read off the same runs: had each candidate been scored on 5, then 10, then all samples, how many of those
scorings could have been left out, and would the best have been another?
"""

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

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

from benchmarks.study import grid
from benchmarks.study.held_out import SEED, Setting, better_half, measure, recorded, whole
from tarot.edit.merge import merge_temporarily
from tarot.models.loaded_model import LoadedModel
from tarot.objectives.answers import AnswerObjective
from tarot.search import SEARCHES, run_search
from tarot.search.acquisition import (
    Points,
    Scores,
    SurrogateFailed,
    cube,
    fitted,
    gaussian_process,
    improve,
    numerical_care,
    observed,
)
from tarot.search.bayesian import BayesianOptimisation, last_refit
from tarot.search.points import identity, local_rng, sobol, stable_seed, uniform
from tarot.search.protocol import Point, Proposal
from tarot.search.trials import Trial

MODEL = "smollm2"
CELLS = [(space, task) for space in ("head-gradient", "head") for task in ("entailed_polarity", "navigate", "ag_news")]
AGAIN, MORE_SEEDS = CELLS[::3], (101, 102)
AT = (30, 60, 120)  # evaluations
RESULTS = Path(__file__).parent / "searches.jsonl"


class Matern(BayesianOptimisation):
    """`bo` with a Matern kernel of smoothness 5/2 instead of a Gaussian one; the priors are the same."""

    _last: tuple[Scores, SingleTaskGP] | None = None

    def _kernel(self) -> Kernel:
        return get_covar_module_with_dim_scaled_prior(self.d, use_rbf_kernel=False)

    def _fitted(self, X: Points, Y: Scores) -> SingleTaskGP:
        if self._last is None or len(self._last[0]) != len(Y):
            with local_rng(self.seed, -len(Y)):
                self._last = (Y, fitted(X, Y, self._kernel(), max_steps=50).requires_grad_(False))
        return self._last[1]


class OnSphere(Kernel):
    """k(x, y) = a + b <p(x), p(y)>, where p projects the scaled cube onto a sphere (stereographically).

    From the description of the spherical linear kernel in arXiv 2512.00170: a linear model, kept from its habit of
    proposing corners by the projection, which takes them beyond the sphere's equator at any length-scales.
    """

    has_lengthscale = True

    def __init__(self, d: int) -> None:
        prior = LogNormalPrior(math.sqrt(2), math.sqrt(3))
        super().__init__(ard_num_dims=d, lengthscale_prior=prior, lengthscale_constraint=GreaterThan(0.025))
        self.lengthscale = prior.mode
        self.register_parameter("raw_share", torch.nn.Parameter(torch.zeros(1)))
        self.register_parameter("raw_scale", torch.nn.Parameter(torch.zeros(1)))

    def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **_: object) -> Tensor:
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
    """`bo` with the kernel above."""

    def _kernel(self) -> Kernel:
        return OnSphere(self.d)


class Saas(BayesianOptimisation):
    """`bo` with a sparse prior on inverse length-scales, at its maximum (Eriksson and Jankowiak, arXiv 2103.00349)."""

    def _model(self, X: Points, Y: Scores) -> SingleTaskGP:
        m = last_refit(len(Y))
        with local_rng(self.seed, -m):
            past = get_map_saas_model(X[:m], Y[:m], outcome_transform=Standardize(m=1))
            mll = ExactMarginalLogLikelihood(past.likelihood, past)
            fit_gpytorch_mll(mll, optimizer_kwargs={"options": {"maxiter": 50}})
        past.requires_grad_(False)
        return gaussian_process(X, Y, past.covar_module, past.mean_module, past.likelihood).eval()


class Turbo(BayesianOptimisation):
    """One trust region around the best point (Eriksson et al., TuRBO, arXiv 1910.01739), Thompson sampling inside.

    It doubles after three successes and halves after ten failures: as many failures as coordinates, as published, do
    not happen within the budget. The region is a cube, of one length in all coordinates.
    """

    in_batches: ClassVar[bool] = False

    def propose(self, history: Sequence[Trial], pending: Sequence[Point] = ()) -> Proposal:
        if len(history) <= 6:
            return super().propose(history)
        X, Y = observed(history)
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
            with numerical_care(self.seed, len(history)):
                model = self._model(X, Y)
                engine = SobolEngine(self.d, scramble=True, seed=stable_seed(self.seed, len(history)))
                inside = centre + length * (engine.draw(1000, dtype=torch.float64) - 0.5)
                moved = torch.rand(1000, self.d, dtype=torch.float64) < min(1, 20 / self.d)
                candidates = torch.where(moved, inside.clamp(0, 1), centre)
                with torch.no_grad():
                    x = MaxPosteriorSampling(model, replacement=False)(candidates, num_samples=1)[0]
        except SurrogateFailed:
            return Proposal(uniform(self.d, self.seed, len(history)), "random")
        return Proposal(x, "acquisition")


class CmaEs:
    """CMA-ES of the package cmaes, told all trials so far in the order in which it asked for them."""

    follows_gradient: ClassVar[bool] = False
    in_batches: ClassVar[bool] = False

    def __init__(self, d: int, seed: int) -> None:
        self.d = d
        self.seed = seed

    def propose(self, history: Sequence[Trial], pending: Sequence[Point] = ()) -> Proposal:
        if not history:
            return Proposal(identity(self.d), "identity")
        given = [trial for trial in history if trial.origin in ("identity", "start")]
        # Off the cube's faces, where hardly a draw would lie inside.
        mean = torch.tensor(max(given, key=lambda trial: trial.score).x).clamp(0.1, 0.9)
        evolution = CMA(mean=mean.double().numpy(), sigma=0.1, bounds=cube(self.d).T.numpy(), seed=self.seed)
        told: list[tuple[np.ndarray, float]] = []
        for trial in history[len(given) :]:
            told.append((evolution.ask(), -trial.score))
            if len(told) == evolution.population_size:
                evolution.tell(told)
                told = []
        return Proposal(torch.from_numpy(evolution.ask()).double().clamp(0, 1), "acquisition")


class Nested(BayesianOptimisation):
    """`bo` on bins of coordinates that move together, 8, then 32, then each alone (after Papenmeier et al., BAxUS)."""

    in_batches: ClassVar[bool] = False

    def propose(self, history: Sequence[Trial], pending: Sequence[Point] = ()) -> Proposal:
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
        z, origin = improve(
            coarse,
            self.seed,
            lambda X, Y: fitted(X, Y, kernel, max_steps=50),
            restarts=2,
            raw_samples=32,
            options={"sample_around_best": True, "maxiter": 8},
        )
        return Proposal(z[coordinate], origin)


BATCHES = {"bo, batches of 4": 4}  # of the product's own, as machines beside each other would want them
RIVALS = {
    "identity": SEARCHES["random"],  # its first trial alone
    "random": SEARCHES["random"],
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


class Watched:
    """An objective that keeps what each sample scored: a row for each call."""

    def __init__(self, objective: AnswerObjective) -> None:
        self.objective = objective
        self.rows: list[Tensor] = []

    def __call__(self, angles: Tensor) -> float:
        with torch.no_grad(), merge_temporarily(self.objective.model, angles, self.objective.sites):
            answers = self.objective.scorer.log_probabilities()
        self.rows.append(answers[0])
        return float(self.objective._weighted_sum(self.objective.answer_score, answers))


def raced(rows: Sequence[Tensor], weights: Tensor) -> dict[str, object]:
    """Share of the samples' scorings that racing leaves out, and whether it would have dropped a new best.

    After 5 and after 10 samples a candidate is dropped that cannot become the best even if all other samples had
    probability one (`certain`), or whose samples so far are worse than the best's by twice the standard error of the
    difference (`likely`).
    """
    said: dict[str, object] = {}
    for rule in ("certain", "likely"):
        best, left_out, lost = rows[0], 0, False
        for row in rows[1:]:
            dropped = 0
            for k in (5, 10):
                apart = (row - best)[:k]
                hopeless = (
                    float(weights[:k] @ row[:k]) < float(weights @ best)
                    if rule == "certain"
                    else float(apart.mean() + 2 * apart.std() / math.sqrt(k)) < 0
                )
                if hopeless:
                    dropped = len(row) - k
                    break
            left_out += dropped
            if float(weights @ row) > float(weights @ best):
                lost |= bool(dropped)
                best = best if dropped else row
        said[rule] = {"left_out": round(left_out / (len(rows) * len(rows[0])), 3), "lost_a_best": lost}
    return said


def run(loaded: LoadedModel, task: str, space: str, seed: int, search: str) -> dict[str, object]:
    """One search from beginning to end."""
    setting = Setting.of(loaded, task, seed=seed, space=space)
    watched = Watched(setting.objective)

    def f(x: Tensor) -> float:
        return watched(setting.angles(x))

    SEARCHES["rival"] = RIVALS[search]
    budget, batch = 1 if search == "identity" else grid.BUDGET, BATCHES.get(search, 1)
    d, starts = setting.space.d, setting.space.starts
    result = whole(run_search(f, d, search="rival", budget=budget, batch=batch, seed=seed, starts=starts))
    answered = setting.unseen.answered(setting.angles(torch.tensor(result.best.x, dtype=torch.float64)), setting.sites)
    best = {at: round(max(trial.score for trial in result.trials[:at]), 4) for at in AT}
    proposing, evaluating = (
        round(sum(getattr(trial, f"{spent}_seconds") for trial in result.trials), 1)
        for spent in ("propose", "evaluate")
    )
    return {
        "coordinates": d,
        "documents": len(setting.unseen),
        "best": best,
        "unseen": answered,
        "proposing": proposing,
        "evaluating": evaluating,
        "surrogate_failed": sum(trial.origin == "random" for trial in result.trials) if search != "random" else 0,
        "raced": raced(watched.rows, setting.objective._weights),
    }


def settings(path: Path) -> Iterator[dict[str, Any]]:
    """What is to run; from the third cell on, and from the fifth, by what the file says of the ones before."""
    going = [name for name in RIVALS if name not in CONTROLS]

    def setting(cell: tuple[str, str], seed: int, search: str) -> dict[str, Any]:
        return {"model": MODEL, "task": cell[1], "space": cell[0], "seed": seed, "search": search}

    def scores(cells: Sequence[tuple[str, str]]) -> dict[str, list[float]]:
        lines = [line for line in recorded(path) if line["seed"] == SEED and (line["space"], line["task"]) in cells]
        return {name: [line["best"][str(AT[-1])] for line in lines if line["search"] == name] for name in going}

    for measured, cell in enumerate(CELLS):
        if measured in (2, 4):
            going = better_half(scores(CELLS[:measured]))
        yield from (setting(cell, SEED, search) for search in (*CONTROLS, *going))
    ranked = sorted((mean, name) for name, each in scores(CELLS).items() for mean in [fmean(each)])
    others = [name for _, name in reversed(ranked) if RIVALS[name] is not BayesianOptimisation]
    for seed in MORE_SEEDS:
        yield from (setting(cell, seed, search) for cell in AGAIN for search in ("bo", *others[:1]))


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    measure(RESULTS, settings(RESULTS), run)


if __name__ == "__main__":
    main()
