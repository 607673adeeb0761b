"""Which search to use where the objective has no gradient: `python -m benchmarks.study.searches`.

Every search has the product's protocol, the same start of the space, the same objective and the same budget, on
development samples; held-out documents judge its best trial. One line a run. It can be stopped and started at any time.

Successive halving decides what runs; the rule was written after two of the six cells. After every second cell, the half
of the searches with the higher mean score goes on, and the controls run in all cells. After four cells `bo` itself was
out by a hair, and mostly because of one cell. So that one seed would not change the product, `bo` and the best other
search run on two more seeds in the first cell of each space. Declared last, before they were measured: the spherical
linear kernel and the paper's, each in `bo` in the space `head`, on all three tasks.

Runs in `head-gradient`, a space that tarot had until `bo-gradient` took its place, are kept and not repeated. There a
search started with five steps along the gradient at the identity.

Racing is read off the same runs: had each candidate been scored on 5, then 10, then all samples, how many of those
scorings could have been left out, and would the best have been another?
"""

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from benchmarks.study import grid
from benchmarks.study.held_out import DevelopmentProblem, better_half, completed, measure_missing
from benchmarks.study.recorded import HELD_OUT, read_lines
from benchmarks.study.search_baselines import BASELINES, CONTROLS, KERNELS
from tarot.edit.merge import merge_temporarily
from tarot.models.loaded_model import LoadedModel
from tarot.search.algorithms.bayesian import BayesianOptimisation
from tarot.search.algorithms.registry import SEARCHES
from tarot.search.loop import run_search

MODEL = "smollm2"
CELLS = [(space, task) for space in ("head-gradient", "head") for task in ("entailed_polarity", "navigate", "ag_news")]
REPEATED, MORE_SEEDS = CELLS[::3], (101, 102)
MILESTONES = (30, 60, 120)  # evaluations
TRIALS_PER_STEP = {"bo, batches of 4": 4}
RECORDS = Path(__file__).parent / "searches.jsonl"


class RecordingObjective:
    """An objective that keeps what each sample scores: a row for each call."""

    def __init__(self, problem: DevelopmentProblem) -> None:
        self.objective = problem.objective
        self.weights = problem.class_weights()
        self.rows: list[Tensor] = []

    def __call__(self, angles: Tensor) -> float:
        """Return the score of these angles, in nats."""
        with torch.no_grad(), merge_temporarily(self.objective.model, angles, self.objective.sites):
            log_probabilities, _ = self.objective.scorer.log_probabilities()
        self.rows.append(log_probabilities)
        return float(log_probabilities @ self.weights.to(log_probabilities))


def race(rows: Sequence[Tensor], weights: Tensor) -> dict[str, object]:
    """Return the share of scorings that racing leaves out, and whether it would have dropped a new best.

    After 5 and after 10 samples a candidate is dropped that cannot become the best even if all other samples had
    probability one (`certain`), or whose samples so far are worse than the best's by twice the standard error of the
    difference (`likely`).
    """
    outcome: dict[str, object] = {}
    for rule in ("certain", "likely"):
        best, left_out, lost = rows[0], 0, False
        for row in rows[1:]:
            dropped = 0
            for k in (5, 10):
                difference = (row - best)[:k]
                is_hopeless = (
                    float(weights[:k] @ row[:k]) < float(weights @ best)
                    if rule == "certain"
                    else float(difference.mean() + 2 * difference.std() / math.sqrt(k)) < 0
                )
                if is_hopeless:
                    dropped = len(row) - k
                    break
            left_out += dropped
            if float(weights @ row) > float(weights @ best):
                lost |= bool(dropped)
                best = best if dropped else row
        outcome[rule] = {"left_out": round(left_out / (len(rows) * len(rows[0])), 3), "lost_a_best": lost}
    return outcome


def run(loaded: LoadedModel, task: str, space: str, seed: int, search: str) -> dict[str, object]:
    """Return what a search reaches, and what racing would have saved it."""
    problem = DevelopmentProblem.draw(loaded, task, seed=seed, space=space)
    objective = RecordingObjective(problem)
    SEARCHES["baseline"] = (BASELINES | KERNELS)[search]
    result = completed(
        run_search(
            lambda x: objective(problem.angles(x)),
            problem.space.d,
            search="baseline",
            budget=1 if search == "identity" else grid.BUDGET,
            trials_per_step=TRIALS_PER_STEP.get(search, 1),
            seed=seed,
        )
    )
    trials = result.trials
    angles = problem.angles(result.best.point)
    return {
        "coordinates": problem.space.d,
        "documents": len(problem.held_out),
        "best": {n: round(max(trial.score for trial in trials[:n]), 4) for n in MILESTONES},
        HELD_OUT: problem.held_out.evaluate(angles, problem.sites),
        "proposing": round(sum(trial.propose_seconds for trial in trials), 1),
        "evaluating": round(sum(trial.evaluate_seconds for trial in trials), 1),
        "surrogate_failed": sum(trial.origin == "random" for trial in trials) if search != "random" else 0,
        "raced": race(objective.rows, objective.weights),
    }


def settings(path: Path) -> Iterator[dict[str, Any]]:
    """Yield what to run; from the third cell on it depends on the recorded scores of the cells before."""
    remaining = [name for name in BASELINES if name not in CONTROLS]
    first_seed = grid.DEVELOPMENT_SEED

    def setting(cell: tuple[str, str], seed: int, search: str) -> dict[str, Any]:
        return {"model": MODEL, "task": cell[1], "space": cell[0], "seed": seed, "search": search}

    def scores(cells: Sequence[tuple[str, str]]) -> dict[str, list[float]]:
        lines = [line for line in read_lines(path) if line["seed"] == first_seed]
        lines = [line for line in lines if (line["space"], line["task"]) in cells]
        last = str(MILESTONES[-1])
        return {name: [line["best"][last] for line in lines if line["search"] == name] for name in remaining}

    for n_measured, cell in enumerate(CELLS):
        if n_measured in (2, 4):
            remaining = better_half(scores(CELLS[:n_measured]))
        yield from (setting(cell, first_seed, search) for search in (*CONTROLS, *remaining))
    ranked = sorted((fmean(values), name) for name, values in scores(CELLS).items())
    others = [name for _, name in reversed(ranked) if BASELINES[name] is not BayesianOptimisation]
    for seed in MORE_SEEDS:
        yield from (setting(cell, seed, search) for cell in REPEATED for search in ("bo", *others[:1]))
    yield from (setting(cell, first_seed, search) for cell in CELLS[3:] for search in KERNELS)


def main() -> None:
    """Measure what is missing."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    measure_missing(RECORDS, settings(RECORDS), run)


if __name__ == "__main__":
    main()
