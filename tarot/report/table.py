"""The summary as rows of strings: one a cell, then of each search the mean of the edited arm and of every control."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from tarot.errors import printable
from tarot.evaluation.comparison import (
    HEADLINE,
    Comparison,
    arms_compared,
    by_search,
    by_setting,
    compare,
    mean_gain,
    told_apart,
)
from tarot.evaluation.results import EDITED, FEW_SHOT, Cell
from tarot.evaluation.statistics import Difference, Gain, Mean, MeanGain, holm

HEADER = (
    "model",
    "task",
    "shots",
    "seed",
    "search",
    "base",
    "few-shot",
    "edited",
    "gain",
    "over few-shot",
    "p",
    "documents",
    "labels",
    "seconds",
)
ARM_HEADER = ("arm", "labels", "score", "gain over base", "p")
NONE = "-"


@dataclass(frozen=True)
class Row:
    """Texts in the order of HEADER, the gain that they show, and the place of their cell; None for a mean.

    What stands under "search" tells searches apart, and edits of one search; nothing does where there is one. In a
    control's mean the control stands in the place of the edited arm. `labels` counts the labelled documents that base,
    few-shot and edited arm might see.
    """

    texts: tuple[str, ...]
    gain: float
    cell: int | None


def summary_rows(cells: Sequence[Cell], metric: str = HEADLINE) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows of the summary, for a terminal; without searches where all are alike.

    Raises:
        UnknownName: a metric that there is not.
        TarotError: a cell without a base or an edited arm.
    """
    rows, at = [row.texts for row in summary(compare(cells, metric))], HEADER.index("search")
    if any(texts[at] for texts in rows):
        return HEADER, rows
    return HEADER[:at] + HEADER[at + 1 :], [texts[:at] + texts[at + 1 :] for texts in rows]


def summary(comparisons: Sequence[Comparison]) -> list[Row]:
    """One row a comparison, then the means; p is corrected for the number of comparisons (Holm)."""
    p_values = holm([comparison.gain.p for comparison in comparisons])
    each = zip(comparisons, told_apart(comparisons), p_values, strict=True)
    rows = [_cell_row(i, *values) for i, values in enumerate(each, start=1)]
    return rows + [
        _mean_row(alike, words, name)
        for words, alike in by_search(comparisons).items()
        for name in arms_compared(alike)
    ]


def arm_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """One row an arm of a cell, in the order of ARM_HEADER: narrow enough for a terminal of 80 columns."""
    return [
        (
            f"{name} (base)" if name == comparison.base else name,
            str(comparison.arms[name][0].labels),
            fraction(score),
            with_interval(comparison.gains[name]) if name in comparison.gains else NONE,
            p_of(comparison.gains.get(name)),
        )
        for name, score in comparison.scores.items()
    ]


def _cell_row(number: int, comparison: Comparison, search: str, p: float) -> Row:
    cell, gain = comparison.cell, comparison.gain
    scores = (comparison.scores.get(name) for name in (comparison.base, FEW_SHOT, EDITED))
    texts = (
        cell.model,
        cell.task,
        cell.shots,
        str(cell.seed),
        search,
        *(NONE if score is None else fraction(score) for score in scores),
        with_interval(gain),
        with_interval(comparison.over_few_shot) if comparison.over_few_shot else NONE,
        p_value(p),
        f"{gain.n:,}",
        _labels([comparison], EDITED),
        duration(cell.seconds),
    )
    return Row(texts, gain.value, number)


def _mean_row(comparisons: Sequence[Comparison], search: str, name: str) -> Row:
    those = [comparison for comparison in comparisons if name in comparison.gains]

    def mean(score: Callable[[Comparison], float | None]) -> str:
        groups = [[s for comparison in group if (s := score(comparison)) is not None] for group in by_setting(those)]
        return fraction(fmean(fmean(scores) for scores in groups if scores)) if any(groups) else NONE

    gain = mean_gain(those, lambda comparison: comparison.gains[name])
    over_few_shot = name == EDITED and any(comparison.over_few_shot for comparison in those)
    documents = {key: None for comparison in those for key in comparison.cell.keys}
    texts = (
        "mean",
        name,
        "",
        f"{len(those)} cell{'s'[: len(those) > 1]}",
        search,
        mean(lambda comparison: comparison.scores[comparison.base]),
        mean(lambda comparison: comparison.scores.get(FEW_SHOT)),
        mean(lambda comparison: comparison.scores[name]),
        with_interval(gain),
        with_interval(mean_gain(those, lambda comparison: comparison.over_few_shot)) if over_few_shot else NONE,
        "",
        f"{len(documents):,}",
        _labels(those, name),
        duration(fmean(comparison.cell.seconds for comparison in those)) if name == EDITED else NONE,
    )
    return Row(texts, gain.value, None)


def _labels(comparisons: Sequence[Comparison], name: str) -> str:
    """Labels of base, few-shot and the arm, as a range where the cells differ."""
    columns = []
    for column in range(3):
        counts = {
            arm.labels
            for comparison in comparisons
            for arm in comparison.arms.get((comparison.base, FEW_SHOT, name)[column], ())
        }
        columns.append(f"{min(counts)}-{max(counts)}" if len(counts) > 1 else str(*counts) or NONE)
    return "/".join(columns)


def fraction(value: float) -> str:
    return f"{value:.3f}"


def signed(value: float) -> str:
    text = f"{value:+.3f}"
    return "0.000" if float(text) == 0 else text


def with_interval(gain: Gain | MeanGain | Difference | Mean) -> str:
    return f"{signed(gain.value)} [{signed(gain.low)}, {signed(gain.high)}]"


def p_of(gain: Gain | MeanGain | None) -> str:
    """A mean has an interval and no test."""
    return p_value(gain.p) if isinstance(gain, Gain) else NONE


def p_value(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def duration(seconds: float) -> str:
    return f"{seconds:,.0f}" if seconds >= 10 else f"{seconds:.1f}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Format rows for a terminal: in columns as wide as their widest text, without control characters."""
    rows = [[printable(text) for text in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
