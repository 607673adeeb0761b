"""Fewer samples a trial, for a surrogate that knows the noise: `python -m benchmarks.study.noise`.

Declared before it was measured. The search `bo` in the space `head` on development samples, with the same number of
scored samples in every arm: 120 trials of all 20, or 240 of 10, or 480 of 5. Each trial of few samples draws its own,
and returns their weighted mean with its standard error, as a function of the edited model does.

Two trials are judged, by their score on all 20 samples and by held-out documents: the one with the highest score, and
the one with the highest posterior mean. It can be stopped and started at any time.
"""

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.study import grid
from benchmarks.study.held_out import DevelopmentProblem, completed, measure_missing
from benchmarks.study.recorded import HELD_OUT
from tarot.edit.merge import merge_temporarily
from tarot.models.loaded_model import LoadedModel
from tarot.models.scoring.scorer import Scorer
from tarot.search.algorithms.bayesian import BayesianOptimisation
from tarot.search.loop import run_search
from tarot.search.trials import Trial, best_of

MODEL = "smollm2"
CELLS = (("entailed_polarity", 100), ("navigate", 100), ("ag_news", 100), ("entailed_polarity", 101))
SAMPLES = (20, 5, 10)  # of a trial
RECORDS = Path(__file__).parent / "noise.jsonl"


def weighted_mean(values: Tensor, weights: Tensor, n_all: int) -> tuple[float, float]:
    """Return the weighted mean of some of `n_all` values, and its standard error; 0 if they are all of them.

    The error is that of a ratio of means, of draws without replacement.
    """
    shares = weights / weights.sum()
    mean, n = float(shares @ values), len(values)
    if n == n_all:
        return mean, 0.0
    square = float((shares.square() @ (values - mean).square()) * n / (n - 1))
    return mean, math.sqrt(square * (1 - n / n_all))


class SampledObjective:
    """The score of an edit on a few samples, drawn anew at each call, with its standard error.

    Args:
        problem: the samples and the space.
        n: samples of a call.
        seed: seeds the draws.
    """

    def __init__(self, problem: DevelopmentProblem, n: int, seed: int) -> None:
        self.problem = problem
        self.weights = problem.class_weights()
        self.n = n
        self.generator = np.random.default_rng(seed)

    def __call__(self, x: Tensor) -> tuple[float, float]:
        """Return score and standard error at a point, in nats."""
        objective, requests = self.problem.objective, self.problem.objective.scorer.requests
        drawn = torch.from_numpy(np.sort(self.generator.permutation(len(requests))[: self.n]))
        scorer = Scorer(objective.model, [requests[i] for i in drawn.tolist()])
        with torch.no_grad(), merge_temporarily(objective.model, self.problem.angles(x), objective.sites):
            values, _ = scorer.log_probabilities()
        return weighted_mean(values, self.weights[drawn].to(values), len(requests))


def run(loaded: LoadedModel, task: str, seed: int, samples: int) -> dict[str, object]:
    """Return what a search reaches that scores so many samples a trial."""
    problem = DevelopmentProblem.draw(loaded, task, seed=seed, space="head")
    objective = SampledObjective(problem, samples, seed)
    trials = completed(
        run_search(objective, problem.space.d, search="bo", budget=grid.BUDGET * grid.SAMPLES // samples, seed=seed)
    ).trials

    def judge(trial: Trial) -> dict[str, object]:
        angles = problem.angles(trial.point)
        score = round(problem.objective(angles), 4)
        return {"trial": trial.index, "score": score, HELD_OUT: problem.held_out.evaluate(angles, problem.sites)}

    return {
        "trials": len(trials),
        "documents": len(problem.held_out),
        "identity": judge(trials[0]),
        "highest score": judge(best_of(trials)),
        "highest mean": judge(BayesianOptimisation(problem.space.d, seed).recommend(trials)),
        "proposing": round(sum(trial.propose_seconds for trial in trials), 1),
        "evaluating": round(sum(trial.evaluate_seconds for trial in trials), 1),
    }


def settings() -> Iterator[dict[str, Any]]:
    """Yield what to run, the arms of one cell after another."""
    for task, seed in CELLS:
        yield from ({"model": MODEL, "task": task, "seed": seed, "samples": samples} for samples in SAMPLES)


def main() -> None:
    """Measure what is missing."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    measure_missing(RECORDS, settings(), run)


if __name__ == "__main__":
    main()
