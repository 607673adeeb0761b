"""What a limit of divergence keeps: a table of whatever `retention.py` has measured."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.study import grid
from benchmarks.study.grid import Cell
from benchmarks.study.markdown import table
from benchmarks.study.retention import ARMS, BASE, summarize

HERE = Path(__file__).parent
HEADER = (
    "model", "task", "arm", "gain", "KL", "perplexity", "change elsewhere", "worst", "same answers", "evaluations",
)  # fmt: skip


def summaries(folder: Path, shots: int = 0) -> Iterator[tuple[Cell, str, dict[str, Any]]]:
    """Yield each measured cell and arm with its summary, arms of one cell together.

    Args:
        folder: the records.
        shots: labelled examples in the prompts of the own task.
    """
    for model in grid.MODELS:
        for task in grid.TASKS:
            for seed in grid.SEEDS:
                cell = Cell(model, task, shots, seed)
                base = folder / f"{model}-{task}-{shots}-{BASE}.json"
                for arm in ARMS:
                    path = folder / f"{cell.name}-{arm.replace(' ', '_')}.json"
                    if base.exists() and path.exists():
                        record = json.loads(path.read_text())
                        yield cell, arm, summarize(record, json.loads(base.read_text())) | {"spent": record["spent"]}


def retention(folder: Path = HERE / "retention") -> str:
    """Show gain, divergence and what became of the other tasks, and the mean of every arm over the cells that all have.

    Args:
        folder: the records.
    """
    measured = list(summaries(folder))
    rows = [[cell.model, cell.task, arm, *_columns([summary])] for cell, arm, summary in measured]
    both = {cell for cell, arm, _ in measured if arm == "no limit"} & {c for c, arm, _ in measured if arm == "default"}
    for arm in ("no limit", "default"):
        of_arm = [summary for cell, each, summary in measured if each == arm and cell in both]
        if len(of_arm) > 1:
            rows.append(["mean", f"{len(both)} cells", arm, *_columns(of_arm)])
    return table(HEADER, rows)


def _columns(summaries: Sequence[dict[str, Any]]) -> list[str]:
    """Return the cells of a row: means over the summaries, but the worst change of all."""
    changes = [list(summary["changes"].values()) for summary in summaries]
    return [
        f"{fmean(summary['gain'] for summary in summaries):+.3f}",
        f"{fmean(summary['kl'] for summary in summaries):.3f}",
        f"x{fmean(summary['perplexity_ratio'] for summary in summaries):.3f}",
        f"{fmean(map(fmean, changes)):+.3f}",
        f"{min(map(min, changes)):+.3f}",
        f"{fmean(fmean(summary['agreement'].values()) for summary in summaries):.0%}",
        f"{fmean(summary['spent'] for summary in summaries):.0f}",
    ]
