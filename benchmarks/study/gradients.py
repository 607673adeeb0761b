"""How near a Gaussian process with gradients comes to the default: `python -m benchmarks.study.gradients`.

The default and `bo-gradient` on the development cells, three seeds each, in pairs: the same samples, held-out documents
and budget, of which a gradient takes three evaluations. It can be stopped and started at any time. The study's own
cells have the paper's search too.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.study import grid
from benchmarks.study.held_out import DevelopmentProblem, completed, measure_missing
from benchmarks.study.recorded import HELD_OUT
from tarot.models.loaded_model import LoadedModel
from tarot.objectives.answers import ANSWER_SCORES
from tarot.search.loop import run_search

MODEL = "smollm2"
TASKS = ("entailed_polarity", "navigate", "ag_news")
SEEDS = (100, 101, 102)
ARMS = {"default": "adam", "bo-gradient": "bo-gradient"}
RECORDS = Path(__file__).parent / "gradients.jsonl"


def run(loaded: LoadedModel, task: str, seed: int, arm: str) -> dict[str, object]:
    """Return what a search reaches on the samples and on held-out documents, and the unedited model's results."""
    problem = DevelopmentProblem.draw(loaded, task, seed=seed)
    result = completed(
        run_search(
            lambda x: problem.objective(problem.angles(x)),
            problem.space.d,
            search=ARMS[arm],
            budget=grid.BUDGET,
            seed=seed,
            value_and_grad=problem.value_and_grad,
            target_score=ANSWER_SCORES["log_probability"].target_score,
        )
    )
    angles = problem.angles(result.best.point)
    return {
        "documents": len(problem.held_out),
        "identity": round(result.identity.score, 4),
        "best": round(result.best.score, 4),
        "spent": result.spent,
        "base": problem.held_out.evaluate(),
        HELD_OUT: problem.held_out.evaluate(angles, problem.sites),
        "root_mean_square": round(float(angles.square().mean().sqrt()), 4),
    }


def settings() -> Iterator[dict[str, Any]]:
    """Yield what to run, the arms of one cell after another."""
    for seed in SEEDS:
        for task in TASKS:
            yield from ({"model": MODEL, "task": task, "seed": seed, "arm": arm} for arm in ARMS)


def main() -> None:
    """Measure what is missing."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    measure_missing(RECORDS, settings(), run)


if __name__ == "__main__":
    main()
