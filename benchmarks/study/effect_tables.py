"""Tables of side effects: what the study's edits change on other tasks and on neutral text."""

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.study import grid
from benchmarks.study.grid import NEUTRAL_TEXT, WEAKER, Cell
from benchmarks.study.markdown import signed, table
from benchmarks.study.recorded import RecordedCells, paired_gain
from benchmarks.study.records import read_records
from tarot.evaluation.statistics.gains import Gain
from tarot.evaluation.statistics.means import Mean
from tarot.evaluation.statistics.seeds import mean_over_settings

Curve = list[tuple[float, Gain, Mean]]  # strength, gain on the edit's own task, KL divergence


@dataclass
class RecordedEffects:
    """Records of the edits tuned without shots on seed 0.

    Args:
        records: by model, task tuned on, and task answered (or `neutral-text`).
        strengths: the curve of each SmolLM2 edit, by the task tuned on.
    """

    records: dict[tuple[str, str, str], dict[str, Any]]
    strengths: dict[str, Curve]

    @classmethod
    def load(cls, folder: Path) -> "RecordedEffects":
        """Read every record of a folder."""
        records = {(each["model"], each["tuned"], each["task"]): each for each in read_records(folder).values()}
        strengths = {}
        for task in grid.TASKS:
            if record := records.pop(("smollm2", task, WEAKER), None):
                strengths[task] = [
                    (point["strength"], Gain(**point["change"]["gain"]), Mean(**point["drift"]["kl"]))
                    for point in record["strengths"]
                ]
        return cls(records, strengths)

    def gain(self, cells: RecordedCells, model: str, tuned: str, task: str) -> Gain:
        """Return what the edit for one task gains on another."""
        base = cells.records[Cell(model, task, 0, grid.SEEDS[0])]["base"]
        return paired_gain(self.records[model, tuned, task], base)

    def perplexity_ratio(self, model: str, tuned: str) -> float:
        """Divide the edited model's perplexity on neutral text by the unedited model's."""
        text = self.records[model, tuned, NEUTRAL_TEXT]
        return text["perplexity"] / text["base_perplexity"]

    def kept(self, strength: float) -> tuple[float, float]:
        """Return the shares of the mean gain and of the mean KL divergence that a strength keeps."""
        means = {}
        for factor in (strength, 1.0):
            points = [point for curve in self.strengths.values() for point in curve if point[0] == factor]
            means[factor] = [
                statistics.mean(gain.value for _, gain, _ in points),
                statistics.mean(kl.value for *_, kl in points),
            ]
        gain, kl = (some / full for some, full in zip(means[strength], means[1.0], strict=True))
        return gain, kl


def side_effects(cells: RecordedCells, effects: RecordedEffects) -> str:
    """Show every edit on every task, and what it changes on neutral text."""
    rows = []
    for model in grid.MODELS:
        for tuned in grid.TASKS:
            gains = {task: effects.gain(cells, model, tuned, task) for task in grid.TASKS}
            others = [[gain] for task, gain in gains.items() if task != tuned]
            columns = [f"**{signed(gain)}**" if task == tuned else signed(gain) for task, gain in gains.items()]
            kl = effects.records[model, tuned, NEUTRAL_TEXT]["kl"]
            neutral = [
                f"{effects.perplexity_ratio(model, tuned):.2f}",
                f"{kl['value']:.3f} [{kl['low']:.3f}, {kl['high']:.3f}]",
            ]
            rows.append([model, tuned, *columns, signed(mean_over_settings(others)), *neutral])
    header = ["mean of the others", "perplexity, edited over base", "KL(base, edited), nats a token"]
    return table(["model", "tuned on", *grid.TASKS, *header], rows)


def strengths(effects: RecordedEffects) -> str:
    """Show what weaker edits gain on their own task, with their KL divergence in brackets."""
    rows = [
        [task, *(f"{signed(gain)} ({kl.value:.3f})" for _, gain, kl in curve)]
        for task, curve in effects.strengths.items()
    ]
    header = [f"strength {strength:g}" for strength, *_ in next(iter(effects.strengths.values()))]
    return table(["tuned on", *header], rows)
