"""The default's gain against the size of the model: a table and a picture of the tasks that all models have so far."""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from benchmarks.study import grid
from benchmarks.study.markdown import signed, table
from benchmarks.study.recorded import RecordedCells
from tarot.evaluation.statistics.gains import Gain
from tarot.evaluation.statistics.seeds import MeanGain, mean_over_settings
from tarot.models.wheels import WHEELS

HERE = Path(__file__).parent
PROMPTING = ("few-shot", *grid.PROMPTING)
"""Prompting arms of the cells without shots; the best of them by the mean over tasks is shown."""


@dataclass(frozen=True)
class Size:
    """One model under prompts with a number of shots: means over the tasks that all models have.

    Attributes:
        model: name in the grid.
        parameters: number of weights.
        shots: labelled examples in every prompt.
        tasks: number of these tasks.
        base: weighted F1 of the unedited model.
        prompting: that of the best prompting arm on the same tasks; None where it was not measured.
        edited: that of the edited model.
        gain: edited minus base.
    """

    model: str
    parameters: int
    shots: int
    tasks: int
    base: float
    prompting: float | None
    edited: float
    gain: MeanGain


def measured_sizes(cells: RecordedCells, shots: int) -> Iterator[Size]:
    """Yield each model with base and default on some task, from the smallest; on the tasks that all of these have."""
    parameters = {name: WHEELS[ref.removeprefix("wheel:")].parameters for name, ref in grid.REFERENCES.items()}
    gains = {
        model: {task: seeds for task in grid.TASKS if (seeds := _gains(cells, model, task, shots))}
        for model in sorted(grid.REFERENCES, key=parameters.__getitem__)
    }
    gains = {model: by_task for model, by_task in gains.items() if by_task}
    tasks = [task for task in grid.TASKS if gains and all(task in by_task for by_task in gains.values())]
    for model, by_task in gains.items() if tasks else ():
        base, edited = (_mean_f1(cells, model, tasks, shots, method) for method in ("base", "default"))
        prompted = [_mean_f1(cells, model, tasks, shots, method) for method in PROMPTING]
        best = max((score for score in prompted if score is not None), default=None)
        assert base is not None and edited is not None  # each of these tasks has a gain
        gain = mean_over_settings([by_task[task] for task in tasks])
        yield Size(model, parameters[model], shots, len(tasks), base, best, edited, gain)


def _gains(cells: RecordedCells, model: str, task: str, shots: int) -> list[Gain]:
    return [gain for seed in grid.SEEDS if (gain := _gain(cells, model, task, shots, seed))]


def _gain(cells: RecordedCells, model: str, task: str, shots: int, seed: int) -> Gain | None:
    return cells.gain(grid.Cell(model, task, shots, seed), "default", "base")


def _mean_f1(cells: RecordedCells, model: str, tasks: list[str], shots: int, method: str) -> float | None:
    """Return the mean over tasks of the mean over seeds; None unless every task was measured."""
    scores = [cells.scores(model, task, shots, method) for task in tasks]
    return statistics.mean(map(statistics.mean, scores)) if all(scores) else None


def load_all() -> RecordedCells:
    """Read the cells of the small models and of the larger ones."""
    small, larger = RecordedCells.load(HERE / "cells"), RecordedCells.load(HERE / "sizes")
    return RecordedCells(small.records | larger.records, small.repeated)


def sizes() -> str:
    """Show base, best prompting, edited and gain of each model that has been measured."""
    rows = [
        [
            size.model,
            f"{size.parameters / 1e6:,.0f}M",
            str(size.shots),
            str(size.tasks),
            f"{size.base:.3f}",
            "" if size.prompting is None else f"{size.prompting:.3f}",
            f"{size.edited:.3f}",
            signed(size.gain),
        ]
        for shots in grid.SHOTS
        for size in measured_sizes(load_all(), shots)
    ]
    return table(["model", "weights", "shots", "tasks", "base", "best prompting", "edited", "gain over base"], rows)


def plot_sizes(path: Path) -> None:
    """Plot gain against size, with its 95% CI, beside the scores of base and best prompting, without shots."""
    measured = list(measured_sizes(load_all(), 0))
    x = [size.parameters for size in measured]
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "tarot"})
    figure = Figure(figsize=(7.2, 3.6), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    values = [size.gain.value for size in measured]
    below = [size.gain.value - size.gain.low for size in measured]
    above = [size.gain.high - size.gain.value for size in measured]
    axes.errorbar(x, values, yerr=[below, above], fmt="o-", capsize=3, label="gain of the edit, 95% CI")
    axes.plot(x, [size.base for size in measured], "s--", label="base")
    axes.plot(x, [size.prompting for size in measured], "^--", label="best prompting")
    axes.axhline(0, color="0.8", linewidth=1, zorder=0)
    axes.set_xscale("log")
    axes.set_xticks(x, [f"{size.model}\n{size.parameters / 1e6:,.0f}M" for size in measured])
    axes.minorticks_off()
    axes.set_xlabel("weights")
    axes.set_ylabel("weighted F1, mean over tasks")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Date": None})
