"""The summary as rows of strings: one a cell, then of each search the mean of the edited arm and of every control."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from tarot.errors import printable
from tarot.evaluation.results import EDITED, FEW_SHOT, HEADLINE, Comparison
from tarot.evaluation.scored_comparison import (
    ScoredComparison,
    compared_arms,
    comparison_labels,
    group_by_search,
    group_by_setting,
    mean_gain,
    score_comparisons,
)
from tarot.evaluation.statistics.gains import Gain
from tarot.evaluation.statistics.means import Difference, Mean
from tarot.evaluation.statistics.seeds import MeanGain
from tarot.evaluation.statistics.significance import holm

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
    comparison: int | None


def summary_rows(
    comparisons: Sequence[Comparison], metric: str = HEADLINE
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows of the summary, for a terminal; without searches where all are alike.

    Raises:
        UnknownName: a metric that there is not.
        TarotError: a cell without a base or an edited arm.
    """
    rows, at = [row.texts for row in summary(score_comparisons(comparisons, metric))], HEADER.index("search")
    if any(texts[at] for texts in rows):
        return HEADER, rows
    return HEADER[:at] + HEADER[at + 1 :], [texts[:at] + texts[at + 1 :] for texts in rows]


def summary(scored_comparisons: Sequence[ScoredComparison]) -> list[Row]:
    """One row a comparison, then the means; p is corrected for the number of comparisons (Holm)."""
    p_values = holm([scored.gain.p for scored in scored_comparisons])
    each = zip(scored_comparisons, comparison_labels(scored_comparisons), p_values, strict=True)
    rows = [_cell_row(i, *values) for i, values in enumerate(each, start=1)]
    return rows + [
        _mean_row(alike, words, name)
        for words, alike in group_by_search(scored_comparisons).items()
        for name in compared_arms(alike)
    ]


def arm_rows(scored: ScoredComparison) -> list[tuple[str, ...]]:
    """One row an arm of a cell, in the order of ARM_HEADER: narrow enough for a terminal of 80 columns."""
    return [
        (
            f"{name} (base)" if name == scored.base else name,
            str(scored.arms[name][0].labels),
            fraction(score),
            with_interval(scored.gains[name]) if name in scored.gains else NONE,
            p_of(scored.gains.get(name)),
        )
        for name, score in scored.scores.items()
    ]


def _cell_row(number: int, scored: ScoredComparison, search: str, p: float) -> Row:
    comparison, gain = scored.comparison, scored.gain
    scores = (scored.scores.get(name) for name in (scored.base, FEW_SHOT, EDITED))
    texts = (
        comparison.model,
        comparison.task,
        comparison.shots,
        str(comparison.seed),
        search,
        *(NONE if score is None else fraction(score) for score in scores),
        with_interval(gain),
        with_interval(scored.over_few_shot) if scored.over_few_shot else NONE,
        p_value(p),
        f"{gain.n:,}",
        _labels([scored], EDITED),
        duration(comparison.seconds),
    )
    return Row(texts, gain.value, number)


def _mean_row(scored_comparisons: Sequence[ScoredComparison], search: str, name: str) -> Row:
    those = [scored for scored in scored_comparisons if name in scored.gains]

    def mean(score: Callable[[ScoredComparison], float | None]) -> str:
        groups = [[s for scored in group if (s := score(scored)) is not None] for group in group_by_setting(those)]
        return fraction(fmean(fmean(scores) for scores in groups if scores)) if any(groups) else NONE

    gain = mean_gain(those, lambda scored: scored.gains[name])
    over_few_shot = name == EDITED and any(scored.over_few_shot for scored in those)
    documents = {key: None for scored in those for key in scored.comparison.keys}
    texts = (
        "mean",
        name,
        "",
        f"{len(those)} cell{'s'[: len(those) > 1]}",
        search,
        mean(lambda scored: scored.scores[scored.base]),
        mean(lambda scored: scored.scores.get(FEW_SHOT)),
        mean(lambda scored: scored.scores[name]),
        with_interval(gain),
        with_interval(mean_gain(those, lambda scored: scored.over_few_shot)) if over_few_shot else NONE,
        "",
        f"{len(documents):,}",
        _labels(those, name),
        duration(fmean(scored.comparison.seconds for scored in those)) if name == EDITED else NONE,
    )
    return Row(texts, gain.value, None)


def _labels(scored_comparisons: Sequence[ScoredComparison], name: str) -> str:
    """Labels of base, few-shot and the arm, as a range where the cells differ."""
    columns = []
    for column in range(3):
        counts = {
            arm.labels
            for scored in scored_comparisons
            for arm in scored.arms.get((scored.base, FEW_SHOT, name)[column], ())
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
