"""`python -m benchmarks.study.effects`: what the study's edits change on the tasks that they were not tuned on.

The default edit of every task, model SmolLM2, no shots, seed 0, answers every other task, and reads neutral text. What
the unedited model and each edit answer on its own task, the study has already. As in the study, it can be stopped and
started at any time, and several processes may share the work.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from benchmarks.study import grid
from benchmarks.study.grid import Cell
from tarot.adapter import Adapter
from tarot.effects import drift, neutral_text
from tarot.files import write_atomically
from tarot.harness import evaluate
from tarot.measuring import answers
from tarot.models import LoadedModel, load_model
from tarot.samples import load_task

HERE = Path(__file__).parent
MODEL, DOCUMENTS, TOKENS = "smollm2", 100, 20_000
DRIFT = "neutral-text"  # in the place of a task

loaded = cache(lambda: load_model(grid.MODELS[MODEL]))


def answered(model: LoadedModel, edit: Adapter, task: str) -> dict[str, Any]:
    """The documents' right answers and the edit's."""
    name = f"tarot_{task}"
    logged = evaluate(model, [name], adapter=edit, num_fewshot=0, limit=DOCUMENTS)["samples"][name]
    gold, arm = answers(load_task(name), logged)
    return {"gold": gold, "greedy": arm.greedy}


def drifted(model: LoadedModel, edit: Adapter) -> dict[str, Any]:
    """Perplexity and KL divergence on neutral text."""
    (found,) = drift(model.model, [edit], neutral_text(model, TOKENS))
    return asdict(found)


def parts() -> Iterator[tuple[str, str, Callable[[LoadedModel, Adapter], dict[str, Any]]]]:
    """The task tuned on, the one answered, and what is measured."""
    for tuned in grid.TASKS:
        for task in grid.TASKS:
            if task != tuned:
                yield tuned, task, partial(answered, task=task)
    yield from ((tuned, DRIFT, drifted) for tuned in grid.TASKS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/study"), help="folder of the study's adapters")
    parser.add_argument("--output", type=Path, default=HERE / "effects", help="folder of the results")
    options = parser.parse_args()
    for tuned, task, measure in parts():
        name = f"{tuned}-{task}"
        path = options.output / f"{name}.json"
        with suppress(Timeout), FileLock(options.work / f"effects-{name}.lock", timeout=0):
            if path.exists():
                continue
            edit = Adapter.load(options.work / f"{Cell(MODEL, tuned, 0, 0).name}-default")
            result = {"tuned": tuned, "task": task, "adapter": edit.fingerprint, **measure(loaded(), edit)}
            write_atomically(path, (json.dumps(result) + "\n").encode())
            print(name, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
