"""Whether the labels tell when an edit will not help: `python -m benchmarks.study.cross_validation`.

Cross-validation, as `tarot tune --cross-validate` does it, in cells whose edit is known: beside it stand the study's
gains of the edit that was found on all samples. Declared before it was measured: prompts with six shots and seed 0 in
four cells of SmolLM2, and the cells of Gemma 3 in which the study's edit gains least. It can be stopped and started at
any time.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from benchmarks.study import grid
from benchmarks.study.grid import Cell
from benchmarks.study.held_out import measure_missing
from benchmarks.study.markdown import signed, table
from benchmarks.study.recorded import RecordedCells, read_lines
from benchmarks.study.run import make_config
from tarot.models.loaded_model import LoadedModel
from tarot.search.cross_validation import cross_validate
from tarot.search.problem import Problem

RECORDS = Path(__file__).parent / "cross_validation.jsonl"
# Model, task, shots and seed.
CELLS = (
    ("smollm2", "ag_news", 6, 0),
    ("smollm2", "entailed_polarity", 6, 0),
    ("smollm2", "winowhy", 6, 0),
    ("smollm2", "navigate", 6, 0),
    ("gemma3", "winowhy", 6, 0),
    ("gemma3", "winowhy", 6, 2),
    ("gemma3", "color", 6, 0),
    ("gemma3", "color", 6, 2),
    ("gemma3", "winowhy", 0, 2),
)


def run(loaded: LoadedModel, task: str, shots: int, seed: int) -> dict[str, float]:
    """Return the mean log-probability of the halves, by the unedited model and by the edit of the other half."""
    problem = Problem.from_config(loaded, make_config(Cell(loaded.reference, task, shots, seed), "default"))
    return {name: round(value, 4) for name, value in cross_validate(problem, budget=grid.BUDGET).items()}


def settings() -> Iterator[dict[str, object]]:
    """Yield the cells to measure."""
    for model, task, shots, seed in CELLS:
        yield {"model": model, "task": task, "shots": shots, "seed": seed}


def cross_validation(cells: RecordedCells) -> str:
    """Show what the halves say of each other, and what the study's edit gains on held-out documents."""
    rows = []
    for line in read_lines(RECORDS):
        cell = Cell(line["model"], line["task"], line["shots"], line["seed"])
        gains = [signed(cells.gain(cell, "default", "base", metric)) for metric in ("greedy_f1", "greedy_acc")]
        row = [cell.model, f"`{cell.task}`", str(cell.shots), str(cell.seed)]
        rows.append([*row, f"{line['base']:.2f}", f"{line['edited']:.2f}", *gains])
    halves = ["halves, base", "halves, edited"]
    return table(["model", "task", "shots", "seed", *halves, "gain in F1", "gain in accuracy"], rows)


def main() -> None:
    """Measure what is missing."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    measure_missing(RECORDS, settings(), run)


if __name__ == "__main__":
    main()
