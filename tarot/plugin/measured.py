"""What the fixture `tarot_gain` hands to a test, and how it explains itself when an assertion fails."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from textwrap import shorten

from tarot.cells import EDITED, FEW_SHOT, OUTSIDE, ZERO_SHOT, Arm, Cell
from tarot.gains import Gain
from tarot.report import METRICS

SHOWN = 3  # documents that flipped each way
WIDTH = 100


@dataclass(frozen=True, repr=False)
class Gains:
    """edited - before, on the same documents, in four measures.

    `greedy_f1` is the project's headline: weighted F1 of what greedy decoding over the whole vocabulary writes, where
    anything but a choice is wrong. `f1` is that of the likeliest choice. `greedy_accuracy` and `accuracy` are the
    fractions right.
    """

    cell: Cell
    before: Arm

    def __repr__(self) -> str:
        """Short, since pytest prints it in every assertion."""
        return f"<{type(self).__name__} over {self.before.name} of {self.cell.id}>"

    @cached_property
    def f1(self) -> Gain:
        return self._gain("f1")

    @cached_property
    def accuracy(self) -> Gain:
        return self._gain("acc")

    @cached_property
    def greedy_f1(self) -> Gain:
        return self._gain("greedy_f1")

    @cached_property
    def greedy_accuracy(self) -> Gain:
        return self._gain("greedy_acc")

    def _gain(self, name: str) -> Gain:
        metric = METRICS[name]
        return metric.gain(self.cell.gold, metric.answers(self.before), metric.answers(self.cell.arm(EDITED)))


class TarotGain(Gains):
    """Gains of the edited model over the unedited one under the same prompts.

    `over_few_shot` holds those over prompting with labelled examples; `cell` everything that was measured.
    """

    def __init__(self, cell: Cell) -> None:
        super().__init__(cell, base_of(cell))

    @cached_property
    def over_few_shot(self) -> Gains:
        return Gains(self.cell, self.cell.arm(FEW_SHOT))


def base_of(cell: Cell) -> Arm:
    """The unedited arm under the edited one's prompts."""
    return cell.arm(FEW_SHOT if cell.num_fewshot else ZERO_SHOT)


def explain(cell: Cell) -> str:
    """The arms, the gains with their intervals, documents that flipped each way, the command that repeats the cell."""
    gains = TarotGain(cell)
    parts = [cell.id, "", *_arms(cell), "", *_intervals(gains)]
    flips = _flips(cell, gains.before, cell.arm(EDITED))
    return "\n".join([*parts, "", *flips, "", "repeat it with:", cell.command])


def _arms(cell: Cell) -> list[str]:
    header = ("arm", "labels", *METRICS)
    rows = [
        (
            arm.name,
            str(arm.labels),
            *(f"{metric.score(cell.gold, metric.answers(arm)):.3f}" for metric in METRICS.values()),
        )
        for arm in cell.arms
    ]
    return aligned([header, *rows])


def _intervals(gains: TarotGain) -> list[str]:
    rows = [("edited minus", "measure", "gain", f"{gains.f1.level:.0%} interval", "p", "gained", "lost", "documents")]
    pairs: list[tuple[str, Gains]] = [(gains.before.name, gains)]
    if gains.before.name != FEW_SHOT and any(arm.name == FEW_SHOT for arm in gains.cell.arms):
        pairs.append((FEW_SHOT, gains.over_few_shot))
    for name, these in pairs:
        for measure in ("f1", "accuracy", "greedy_f1", "greedy_accuracy"):
            gain: Gain = getattr(these, measure)
            interval = f"[{gain.low:+.3f}, {gain.high:+.3f}]"
            rows.append(
                (
                    name,
                    measure,
                    f"{gain.value:+.3f}",
                    interval,
                    f"{gain.p:.3f}",
                    str(gain.gained),
                    str(gain.lost),
                    str(gain.n),
                )
            )
    return aligned(rows)


def _flips(cell: Cell, before: Arm, after: Arm) -> list[str]:
    """Documents whose likeliest choice or greedy answer became right or wrong."""
    lines = []
    for title, wanted in (("gained", True), ("lost", False)):
        for kind in ("predicted", "greedy"):
            old, new = getattr(before, kind), getattr(after, kind)
            rows = [
                (i, gold)
                for i, gold in enumerate(cell.gold)
                if (new[i] == gold) == wanted and (old[i] == gold) != wanted
            ]
            lines.append(f"{title}, {'likeliest choice' if kind == 'predicted' else 'greedy answer'}: {len(rows)}")
            for i, gold in rows[:SHOWN]:
                said = f"right {gold}, {before.name} {_answer(old[i])}, edited {_answer(new[i])}"
                lines.append(f"  {i}: {shorten(cell.texts[i], WIDTH, placeholder=' ...')} ({said})")
    return lines


def _answer(index: int) -> str:
    return "none" if index == OUTSIDE else str(index)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows in columns as wide as their widest text."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
