"""`python -m benchmarks.study.stopping`: where a search should end, and which layers it should turn.

The development runs that chose both. A task's training split gives the labelled samples and as many unseen documents as
it has left, up to eighty; documents that the study evaluates are not touched. The default search goes on until the
samples' mean log-probability is near zero, and whenever it passes one of the levels, the unseen documents are answered.
Like the study it can be stopped and started at any time.
"""

import argparse
from pathlib import Path

import torch

from benchmarks.study import grid
from benchmarks.study.unseen import SEED, Setting, measure, whole
from tarot.models.loaded_model import LoadedModel
from tarot.search import run_search

LEVELS = (-0.5, -0.2, -0.1, -0.05, -0.02)
LAYERS = ("1.0", "0.5", "-0.5")
CELLS = tuple((model, task, 6) for task in ("ag_news", "entailed_polarity") for model in grid.MODELS)
RESULTS = Path(__file__).parent / "stopping.jsonl"


def run(loaded: LoadedModel, task: str, shots: int, seed: int, layers: str) -> dict[str, object]:
    """Steps, F1 and log-probability of unseen documents at each level that the search reaches."""
    setting = Setting.of(loaded, task, seed=seed, shots=shots, layers=layers)
    result = whole(
        run_search(
            lambda _: 0.0,
            setting.space.d,
            search="adam",
            budget=grid.BUDGET,
            seed=seed,
            value_and_grad=setting.value_and_grad,
            target_score=LEVELS[-1],
        )
    )
    levels = {}
    for level in LEVELS:
        if reached := next((trial for trial in result.trials if trial.score >= level), None):
            angles = setting.angles(torch.tensor(reached.x, dtype=torch.float64))
            levels[str(level)] = {"steps": reached.index, **setting.unseen.answered(angles, setting.sites)}
    return {"documents": len(setting.unseen), "base": setting.unseen.answered(), "levels": levels}


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    measure(
        RESULTS,
        (
            {"model": model, "task": task, "shots": shots, "seed": SEED, "layers": layers}
            for model, task, shots in CELLS
            for layers in LAYERS
        ),
        run,
    )


if __name__ == "__main__":
    main()
