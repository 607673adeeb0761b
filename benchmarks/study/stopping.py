"""`python -m benchmarks.study.stopping`: where a search should end, and which layers it should turn.

The development runs that chose both. A task's training split gives the labelled samples and as many unseen documents as
it has left, up to eighty; documents that the study evaluates are not touched. The default search goes on until the
samples' mean log-probability is near zero, and whenever it passes one of the levels, the unseen documents are answered.
Like the study it can be stopped and started at any time.
"""

import argparse
import json
import sys
from pathlib import Path

import torch

from benchmarks.study import grid
from benchmarks.study.run import quick
from benchmarks.study.unseen import SEED, Setting, whole
from tarot.files import write_atomically
from tarot.models import LoadedModel, load_model
from tarot.search import maximise

LEVELS = (-0.5, -0.2, -0.1, -0.05, -0.02)
LAYERS = ("1.0", "0.5", "-0.5")
CELLS = tuple((model, task, 6) for task in ("ag_news", "entailed_polarity") for model in grid.MODELS)
RESULTS = Path(__file__).parent / "stopping.jsonl"


def run(loaded: LoadedModel, model: str, task_name: str, shots: int, layers: str) -> dict[str, object]:
    """Steps, F1 and log-probability of unseen documents at each level that the search reaches."""
    setting = Setting.of(loaded, task_name, shots=shots, layers=layers)
    result = whole(
        maximise(
            lambda _: 0.0,
            setting.space.d,
            search="adam",
            budget=grid.BUDGET,
            seed=SEED,
            slope=setting.slope,
            enough=LEVELS[-1],
        )
    )
    levels = {}
    for level in LEVELS:
        if reached := next((trial for trial in result.trials if trial.score >= level), None):
            angles = setting.angles(torch.tensor(reached.x, dtype=torch.float64))
            levels[str(level)] = {"steps": reached.index, **setting.unseen.answered(angles, setting.sites)}
    cell = {"model": model, "task": task_name, "shots": shots, "seed": SEED, "layers": layers}
    return {**cell, "documents": len(setting.unseen), "base": setting.unseen.answered(), "levels": levels}


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    named = ("model", "task", "shots", "seed", "layers")
    done = {tuple(json.loads(line)[name] for name in named) for line in lines}
    models: dict[str, LoadedModel] = {}
    for model, task, shots in CELLS:
        for layers in LAYERS:
            if (model, task, shots, SEED, layers) in done:
                continue
            if model not in models:
                models[model] = load_model(grid.MODELS[model])
            with quick(models[model]):
                lines.append(json.dumps(run(models[model], model, task, shots, layers)))
            write_atomically(RESULTS, ("\n".join(lines) + "\n").encode())
            print(lines[-1], file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
