"""`python -m benchmarks.study.effects`: what the study's edits change on the tasks that they were not tuned on.

The default edit of every task, model SmolLM2, no shots, seed 0, answers every other task, and reads neutral text. What
the unedited model and each edit answer on its own task, the study has already. It can be stopped and started at any
time: each answered task is a small JSON file.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.study import grid
from benchmarks.study.grid import Cell
from tarot.adapter import Adapter
from tarot.effects import drift, neutral_text
from tarot.files import write_atomically
from tarot.harness import evaluate
from tarot.measuring import answers
from tarot.models import load_model
from tarot.samples import load_task

HERE = Path(__file__).parent
MODEL, DOCUMENTS, TOKENS = "smollm2", 100, 20_000
CELLS = tuple(Cell(MODEL, task, 0, 0) for task in grid.TASKS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/study"), help="folder of the study's adapters")
    parser.add_argument("--output", type=Path, default=HERE / "effects", help="folder of the results")
    options = parser.parse_args()
    loaded = load_model(grid.MODELS[MODEL])
    edits = {cell.task: Adapter.load(options.work / f"{cell.name}-default") for cell in CELLS}

    def write(name: str, result: dict[str, Any]) -> None:
        write_atomically(options.output / f"{name}.json", (json.dumps(result) + "\n").encode())
        print(name, file=sys.stderr, flush=True)

    for tuned, edit in edits.items():
        for task in grid.TASKS:
            if task == tuned or (options.output / f"{tuned}-{task}.json").exists():
                continue
            name = f"tarot_{task}"
            logged = evaluate(loaded, [name], adapter=edit, num_fewshot=0, limit=DOCUMENTS)["samples"][name]
            gold, arm = answers(load_task(name), logged)
            write(f"{tuned}-{task}", {"tuned": tuned, "task": task, "gold": gold, "greedy": arm.greedy})
    if not (options.output / "drift.json").exists():
        found = drift(loaded.model, list(edits.values()), neutral_text(loaded, TOKENS))
        write("drift", {tuned: asdict(each) for tuned, each in zip(edits, found, strict=True)})


if __name__ == "__main__":
    main()
