"""The default's gain against the size of the model: a table and a picture.

The largest models were not measured on all tasks. So models are compared in groups: one for each set of tasks that some
model has, with all models that have these tasks.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from benchmarks.study import grid
from benchmarks.study.markdown import signed, table
from benchmarks.study.recorded import RecordedCells
from tarot.evaluation.statistics.gains import Gain
from tarot.evaluation.statistics.seeds import MeanGain, mean_over_settings
from tarot.models.formats.wheels import WHEELS

HERE = Path(__file__).parent
PROMPTING = tuple(name for name in grid.SIZE_METHODS[0] if name not in ("base", "default"))
"""Prompting arms of the cells without shots; the best of them by the mean over tasks is shown."""


@dataclass(frozen=True)
class Size:
    """One model under prompts with a number of shots: means over the tasks of a group.

    Attributes:
        model: name in the grid.
        parameters: number of weights.
        shots: labelled examples in every prompt.
        tasks: names of these tasks.
        base: weighted F1 of the unedited model.
        prompting: that of the best prompting arm on the same tasks; None where it was not measured.
        edited: that of the edited model.
        gain: edited minus base.
    """

    model: str
    parameters: int
    shots: int
    tasks: tuple[str, ...]
    base: float
    prompting: float | None
    edited: float
    gain: MeanGain


def measured_groups(cells: RecordedCells, shots: int) -> list[list[Size]]:
    """Return the groups of at least two models with base and default on the same tasks, those with most tasks first.

    Within a group the smallest model comes first.
    """
    parameters = {name: WHEELS[ref.removeprefix("wheel:")].parameters for name, ref in grid.REFERENCES.items()}
    gains = {
        model: {task: seeds for task in grid.TASKS if (seeds := _gains(cells, model, task, shots))}
        for model in sorted(grid.REFERENCES, key=parameters.__getitem__)
    }
    groups = []
    for tasks in sorted({tuple(by_task) for by_task in gains.values() if by_task}, key=len, reverse=True):
        members = [model for model, by_task in gains.items() if set(tasks) <= by_task.keys()]
        if len(members) > 1:
            groups.append([_size(cells, model, parameters[model], shots, tasks, gains[model]) for model in members])
    return groups


def _size(
    cells: RecordedCells,
    model: str,
    parameters: int,
    shots: int,
    tasks: tuple[str, ...],
    gains: Mapping[str, list[Gain]],
) -> Size:
    base, edited = (_mean_f1(cells, model, tasks, shots, method) for method in ("base", "default"))
    prompted = [_mean_f1(cells, model, tasks, shots, method) for method in PROMPTING]
    best = max((score for score in prompted if score is not None), default=None)
    assert base is not None and edited is not None  # each of these tasks has a gain
    return Size(
        model, parameters, shots, tasks, base, best, edited, mean_over_settings([gains[task] for task in tasks])
    )


def _gains(cells: RecordedCells, model: str, task: str, shots: int) -> list[Gain]:
    return [gain for seed in grid.SEEDS if (gain := _gain(cells, model, task, shots, seed))]


def _gain(cells: RecordedCells, model: str, task: str, shots: int, seed: int) -> Gain | None:
    return cells.gain(grid.Cell(model, task, shots, seed), "default", "base")


def _mean_f1(cells: RecordedCells, model: str, tasks: Sequence[str], shots: int, method: str) -> float | None:
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
            _named(size.tasks),
            str(size.shots),
            size.model,
            f"{size.parameters / 1e6:,.0f}M",
            f"{size.base:.3f}",
            "" if size.prompting is None else f"{size.prompting:.3f}",
            f"{size.edited:.3f}",
            signed(size.gain),
        ]
        for shots in grid.SHOTS
        for group in measured_groups(load_all(), shots)
        for size in group
    ]
    return table(["tasks", "shots", "model", "weights", "base", "best prompting", "edited", "gain over base"], rows)


def by_task() -> str:
    """Show the edited model's score on each task without shots, and the best prompting's in brackets."""
    cells = load_all()
    models = [size.model for size in measured_groups(cells, 0)[0]]

    def scores(model: str, task: str) -> str:
        edited, *prompted = (_mean_f1(cells, model, (task,), 0, method) for method in ("default", *PROMPTING))
        best = max((score for score in prompted if score is not None), default=None)
        return f"{edited:.3f}" + (f" ({best:.3f})" if best is not None else "")

    return table(["task", *models], [[f"`{task}`", *(scores(model, task) for model in models)] for task in grid.TASKS])


def _named(tasks: Sequence[str]) -> str:
    return "all five" if len(tasks) == len(grid.TASKS) else ", ".join(f"`{task}`" for task in tasks)


def plot_sizes(path: Path) -> None:
    """Plot scores of base, best prompting and edit against size, with the 95% CI of the edit's gain, without shots."""
    groups = measured_groups(load_all(), 0)
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "tarot"})
    figure = Figure(figsize=(5.6 * len(groups), 4.2), layout="constrained", facecolor="white")
    panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    for axes, group in zip(panels, groups, strict=True):
        x = [size.parameters for size in group]
        gains = [size.gain for size in group]
        around = [[gain.value - gain.low for gain in gains], [gain.high - gain.value for gain in gains]]
        edited = [size.edited for size in group]
        axes.errorbar(x, edited, yerr=around, fmt="o-", capsize=3, label="edited, 95% CI of its gain over base")
        axes.plot(x, [size.base for size in group], "s--", label="base")
        axes.plot(x, [size.prompting for size in group], "^--", label="best prompting")
        axes.axhline(0, color="0.8", linewidth=1, zorder=0)
        axes.set_xscale("log")
        axes.set_xticks(x, [f"{size.model}\n{size.parameters / 1e6:,.0f}M" for size in group])
        axes.minorticks_off()
        axes.set_title(
            _named(group[0].tasks).replace("`", "") + (" tasks" if len(group[0].tasks) > 2 else ""), fontsize=10
        )
        axes.set_xlabel("weights")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("weighted F1, mean over tasks")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=8
    )
    figure.savefig(path, metadata={"Date": None})
