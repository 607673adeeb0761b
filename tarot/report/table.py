"""The summary of comparisons as rows of text: one a comparison, then the means of each search.

Each search has a mean for the edited arm, and one for every arm that it is compared with.
"""

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
    """One row of the summary.

    Attributes:
        texts: columns in the order of HEADER. "search" is empty if all comparisons have the same search and one edit
            each. In another arm's mean, that arm is in the column "edited". "labels" counts the labelled documents
            that base, few-shot and edited arm may use.
        comparison: number of the comparison, from 1; None for a mean.
    """

    texts: tuple[str, ...]
    comparison: int | None


def summary_rows(
    comparisons: Sequence[Comparison], metric: str = HEADLINE
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return header and rows of the summary for a terminal, without the column "search" if it is empty.

    Args:
        comparisons: what was measured.
        metric: one of METRICS.

    Raises:
        UnknownName: no such metric.
        TarotError: a comparison has no base or no edited arm.

    Example:
        >>> header, rows = summary_rows([comparison])
        >>> dict(zip(header, rows[0]))["task"] == comparison.task
        True
    """
    rows = [row.texts for row in summary(score_comparisons(comparisons, metric))]
    search = HEADER.index("search")
    if any(texts[search] for texts in rows):
        return HEADER, rows
    return HEADER[:search] + HEADER[search + 1 :], [texts[:search] + texts[search + 1 :] for texts in rows]


def summary(scored_comparisons: Sequence[ScoredComparison]) -> list[Row]:
    """Return one row a comparison, then the means; p is corrected for the number of comparisons (Holm).

    A single comparison has no mean of its edited arm, which would repeat its row.
    """
    p_values = holm([scored.gain.p for scored in scored_comparisons])
    columns = zip(scored_comparisons, comparison_labels(scored_comparisons), p_values, strict=True)
    rows = [_comparison_row(number, *values) for number, values in enumerate(columns, start=1)]
    return rows + [
        _mean_row(group, label, name)
        for label, group in group_by_search(scored_comparisons).items()
        for name in compared_arms(group)
        if name != EDITED or len(group) > 1
    ]


def arm_rows(scored: ScoredComparison) -> list[tuple[str, ...]]:
    """Return one row for each arm of a comparison, in the order of ARM_HEADER; it fits a terminal of 80 columns."""
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


def _comparison_row(number: int, scored: ScoredComparison, search: str, p: float) -> Row:
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
    return Row(texts, number)


def _mean_row(scored_comparisons: Sequence[ScoredComparison], search: str, name: str) -> Row:
    with_arm = [scored for scored in scored_comparisons if name in scored.gains]

    def mean(score: Callable[[ScoredComparison], float | None]) -> str:
        groups = [[s for scored in group if (s := score(scored)) is not None] for group in group_by_setting(with_arm)]
        return fraction(fmean(fmean(scores) for scores in groups if scores)) if any(groups) else NONE

    gain = mean_gain(with_arm, lambda scored: scored.gains[name])
    over_few_shot = name == EDITED and any(scored.over_few_shot for scored in with_arm)
    documents = {key: None for scored in with_arm for key in scored.comparison.keys}
    texts = (
        "mean",
        name,
        "",
        f"of {len(with_arm)}",
        search,
        mean(lambda scored: scored.scores[scored.base]),
        mean(lambda scored: scored.scores.get(FEW_SHOT)),
        mean(lambda scored: scored.scores[name]),
        with_interval(gain),
        with_interval(mean_gain(with_arm, lambda scored: scored.over_few_shot)) if over_few_shot else NONE,
        "",
        f"{len(documents):,}",
        _labels(with_arm, name),
        duration(fmean(scored.comparison.seconds for scored in with_arm)) if name == EDITED else NONE,
    )
    return Row(texts, None)


def _labels(scored_comparisons: Sequence[ScoredComparison], name: str) -> str:
    """Return the labels of base, few-shot and the arm, as a range where comparisons differ."""
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
    """Format a fraction with three digits."""
    return f"{value:.3f}"


def signed(value: float) -> str:
    """Format a difference with its sign and three digits; a rounded zero has no sign."""
    text = f"{value:+.3f}"
    return "0.000" if float(text) == 0 else text


def with_interval(gain: Gain | MeanGain | Difference | Mean) -> str:
    """Format a difference with its interval."""
    return f"{signed(gain.value)} [{signed(gain.low)}, {signed(gain.high)}]"


def p_of(gain: Gain | MeanGain | None) -> str:
    """Format the p-value of a gain; a mean has an interval and no test."""
    return p_value(gain.p) if isinstance(gain, Gain) else NONE


def p_value(p: float) -> str:
    """Format a p-value with three digits."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def duration(seconds: float) -> str:
    """Format seconds, with one digit below ten."""
    return f"{seconds:,.0f}" if seconds >= 10 else f"{seconds:.1f}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a line for each row, in columns as wide as their widest text, without control characters."""
    rows = [[printable(text) for text in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
