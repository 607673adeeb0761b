"""Where a search should stop, and which layers it should edit: `python -m benchmarks.study.stopping`.

The development runs that chose both. The default search goes on until the samples' mean log-probability is near zero.
Whenever it passes one of the levels, the held-out documents are answered. It can be stopped and started at any time.
"""

import argparse
from pathlib import Path

from benchmarks.study import grid
from benchmarks.study.held_out import DevelopmentProblem, completed, measure_missing
from tarot.models.loaded_model import LoadedModel
from tarot.search.loop import run_search

LAYERS = ("1.0", "0.5", "-0.5")
CELLS = tuple((model, task, 6) for task in ("ag_news", "entailed_polarity") for model in grid.MODELS)
RECORDS = Path(__file__).parent / "stopping.jsonl"


def run(loaded: LoadedModel, task: str, shots: int, seed: int, layers: str) -> dict[str, object]:
    """Return steps, F1 and log-probability of held-out documents at each level that the search reaches."""
    problem = DevelopmentProblem.draw(loaded, task, seed=seed, shots=shots, layers=float(layers))
    result = completed(
        run_search(
            lambda _: 0.0,
            problem.space.d,
            search="adam",
            budget=grid.BUDGET,
            seed=seed,
            value_and_grad=problem.value_and_grad,
            target_score=grid.STOP_LEVELS[-1],
        )
    )
    levels = {}
    for level in grid.STOP_LEVELS:
        if reached := next((trial for trial in result.trials if trial.score >= level), None):
            angles = problem.angles(reached.point)
            levels[str(level)] = {"steps": reached.index, **problem.held_out.evaluate(angles, problem.sites)}
    return {"documents": len(problem.held_out), "base": problem.held_out.evaluate(), "levels": levels}


def main() -> None:
    """Measure what is missing."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    settings = (
        {"model": model, "task": task, "shots": shots, "seed": grid.DEVELOPMENT_SEED, "layers": layers}
        for model, task, shots in CELLS
        for layers in LAYERS
    )
    measure_missing(RECORDS, settings, run)


if __name__ == "__main__":
    main()
