"""`python -m benchmarks.study.effects`: what the study's edits change on the tasks that they were not tuned on.

The default edit of every model and task, no shots, seed 0, answers every task, and reads neutral text. SmolLM2's edits
do so at smaller strengths too, on their own task and on the beginning of that text. An edit that the study's folder of
work does not hold is searched again, as the study did. As in the study, it can be stopped and started at any time, and
several processes may share the work.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from benchmarks.study import grid
from benchmarks.study.grid import Cell
from benchmarks.study.run import edited, quick
from tarot._files.atomic import write_atomically
from tarot.analysis.divergence import measure_divergence
from tarot.analysis.neutral_text import neutral_text
from tarot.analysis.side_effects import measure_trade_off
from tarot.edit.adapter import Adapter
from tarot.evaluation.evaluate import evaluate
from tarot.evaluation.lm_eval_results import answers
from tarot.models.load import load_model
from tarot.models.loaded_model import LoadedModel
from tarot.objectives.task_loading import load_task

HERE = Path(__file__).parent
DOCUMENTS, TOKENS = 100, 20_000
DRIFT, WEAKER = "neutral-text", "strengths"  # in the place of a task
STRENGTHS, TEXTS = (0.25, 0.5, 0.75, 1.0), 10  # of the first texts, 255 tokens each after a given one


def answered(model: LoadedModel, edit: Adapter, task: str) -> dict[str, Any]:
    """The documents' right answers and the edit's."""
    name = f"tarot_{task}"
    logged = evaluate(model.model, model.tokenizer, [name], adapter=edit, num_fewshot=0, limit=DOCUMENTS)["samples"][
        name
    ]
    gold, arm = answers(load_task(name), logged)
    return {"gold": gold, "greedy": arm.greedy}


def drifted(model: LoadedModel, edit: Adapter) -> dict[str, Any]:
    """Perplexity and KL divergence on neutral text."""
    (found,) = measure_divergence(model.model, [edit], neutral_text(model, TOKENS))
    return asdict(found)


def weakened(model: LoadedModel, edit: Adapter) -> dict[str, Any]:
    """What the edit gains on its own task, and its drift on a part of the text, at each strength."""
    text = neutral_text(model, TOKENS)[:TEXTS]
    return {"strengths": [asdict(each) for each in measure_trade_off(model, edit, text, STRENGTHS, limit=DOCUMENTS)]}


def parts() -> Iterator[tuple[str, str, str]]:
    """The model, the task tuned on, and the one answered."""
    for model in grid.MODELS:
        for tuned in grid.TASKS:
            yield from ((model, tuned, task) for task in (*grid.TASKS, DRIFT))
    yield from (("smollm2", tuned, WEAKER) for tuned in grid.TASKS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/study"), help="folder of the study's adapters")
    parser.add_argument("--output", type=Path, default=HERE / "effects", help="folder of the results")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    loaded = cache(load_model)
    whole = {DRIFT: drifted, WEAKER: weakened}

    @cache
    def edit_of(cell: Cell) -> Adapter:
        model = loaded(grid.MODELS[cell.model])
        with quick(model):
            return edited(model, cell, "default", options.work / f"{cell.name}-default")[0]

    for model, tuned, task in parts():
        name = f"{model}-{tuned}-{task}"
        path = options.output / f"{name}.json"
        with suppress(Timeout), FileLock(options.work / f"effects-{name}.lock", timeout=0):
            if path.exists():
                continue
            edit = edit_of(Cell(model, tuned, 0, 0))
            on = loaded(grid.MODELS[model])
            found = whole[task](on, edit) if task in whole else answered(on, edit, task)
            result = {"model": model, "tuned": tuned, "task": task, "adapter": edit.fingerprint, **found}
            write_atomically(path, (json.dumps(result) + "\n").encode())
            print(name, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
