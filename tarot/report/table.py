"""Comparisons as rows of text: the summary, one row a comparison and a mean for each search, and the table of arms."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from tarot.evaluation.cost.speed import is_busy
from tarot.evaluation.results.comparison import EDITED, FEW_SHOT, HEADLINE, Comparison
from tarot.evaluation.results.scored_comparison import (
    ScoredComparison,
    compared_arms,
    comparison_labels,
    group_by_search,
    group_by_setting,
    mean_gain,
    score_comparisons,
)
from tarot.evaluation.statistics.formatting import fraction, p_value, with_interval
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
ARM_HEADER = ("arm", "labels", "score", "gain over base")
OTHER_ARMS_HEADER = ("arm", "edited minus it, 95% CI")
ARM_MEANS_HEADER = ("arm", "score", "gain over base", "comparisons")
NONE = "-"
BUSY = "(busy)"
"""Marks timings from a busy machine, which are unreliable."""
BASE = "base"
"""Name of each comparison's base arm in `arm_means`."""


@dataclass(frozen=True)
class TableRow:
    """One row of the summary.

    Attributes:
        texts: columns in the order of HEADER. "search" is empty if all comparisons have the same search and one edit
            each. "labels" counts the labelled documents that base, few-shot and edited arm see.
        comparison: number of the comparison, from 1; None for a mean.
    """

    texts: tuple[str, ...]
    comparison: int | None


class ArmMean(NamedTuple):
    """An arm's mean score and gain over the base, in `n` of `n_total` comparisons."""

    name: str
    score: float | None
    gain: MeanGain | None
    n: int
    n_total: int


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


def summary(scored_comparisons: Sequence[ScoredComparison]) -> list[TableRow]:
    """Return one row a comparison, then the means; p is corrected for the number of comparisons (Holm).

    A search of one comparison has no mean, which would repeat its row.
    """
    p_values = holm([scored.gain.p for scored in scored_comparisons])
    columns = zip(scored_comparisons, comparison_labels(scored_comparisons), p_values, strict=True)
    rows = [_comparison_row(number, *values) for number, values in enumerate(columns, start=1)]
    return rows + [
        _mean_row(group, label) for label, group in group_by_search(scored_comparisons).items() if len(group) > 1
    ]


def arm_means(scored_comparisons: Sequence[ScoredComparison]) -> list[ArmMean]:
    """Return the mean of each arm of each search, the base first.

    Score and gain are means over the comparisons that have the arm; each setting counts once. Several draws of shots
    give three rows: mean, best and worst.
    """
    return [
        _arm_mean(group, f"{name}, {label}" if label else name, name)
        for label, group in group_by_search(scored_comparisons).items()
        for name in (BASE, *compared_arms(group))
    ]


def arm_mean_rows(means: Sequence[ArmMean]) -> list[tuple[str, ...]]:
    """Return one row for each arm, in the order of ARM_MEANS_HEADER."""
    return [
        (
            mean.name,
            NONE if mean.score is None else fraction(mean.score),
            with_interval(mean.gain) if mean.gain else NONE,
            f"{mean.n} of {mean.n_total}",
        )
        for mean in means
    ]


def _arm_mean(scored_comparisons: Sequence[ScoredComparison], title: str, name: str) -> ArmMean:
    def score(scored: ScoredComparison) -> float | None:
        return scored.scores.get(scored.base if name == BASE else name)

    others = [scored for scored in scored_comparisons if name in scored.gains]
    return ArmMean(
        title,
        mean_score(scored_comparisons, score),
        mean_gain(others, lambda scored: scored.gains.get(name)) if others else None,
        sum(score(scored) is not None for scored in scored_comparisons),
        len(scored_comparisons),
    )


def arm_rows(scored: ScoredComparison) -> list[tuple[str, ...]]:
    """Return one row for each arm of a comparison, in the order of ARM_HEADER; it fits a terminal of 80 columns."""
    return [
        (
            f"{name} (base)" if name == scored.base else name,
            str(scored.arms[name][0].labels),
            fraction(score),
            with_interval(scored.gains[name]) if name in scored.gains else NONE,
        )
        for name, score in scored.scores.items()
    ]


def other_arm_rows(scored: ScoredComparison) -> list[tuple[str, ...]]:
    """Return one row for each arm but base and edited, in the order of OTHER_ARMS_HEADER."""
    return [(name, with_interval(gain)) for name, gain in scored.edited_over.items() if name != scored.base]


def _comparison_row(number: int, scored: ScoredComparison, search: str, p: float) -> TableRow:
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
        _labels([scored]),
        _seconds([scored]),
    )
    return TableRow(texts, number)


def _mean_row(scored_comparisons: Sequence[ScoredComparison], search: str) -> TableRow:
    def mean(score: Callable[[ScoredComparison], float | None]) -> str:
        value = mean_score(scored_comparisons, score)
        return NONE if value is None else fraction(value)

    over_few_shot = any(scored.over_few_shot for scored in scored_comparisons)
    documents = {key: None for scored in scored_comparisons for key in scored.comparison.keys}
    texts = (
        "mean",
        "",
        "",
        f"of {len(scored_comparisons)}",
        search,
        mean(lambda scored: scored.scores[scored.base]),
        mean(lambda scored: scored.scores.get(FEW_SHOT)),
        mean(lambda scored: scored.scores[EDITED]),
        with_interval(mean_gain(scored_comparisons, lambda scored: scored.gain)),
        with_interval(mean_gain(scored_comparisons, lambda scored: scored.over_few_shot)) if over_few_shot else NONE,
        "",
        f"{len(documents):,}",
        _labels(scored_comparisons),
        _seconds(scored_comparisons),
    )
    return TableRow(texts, None)


def _seconds(scored_comparisons: Sequence[ScoredComparison]) -> str:
    """Return the mean duration, marked if a machine was busy."""
    busy = any(is_busy(scored.comparison) for scored in scored_comparisons)
    return duration(fmean(scored.comparison.seconds for scored in scored_comparisons)) + f" {BUSY}" * busy


def mean_score(
    scored_comparisons: Sequence[ScoredComparison], score: Callable[[ScoredComparison], float | None]
) -> float | None:
    """Return the mean of a score over seeds, then over settings; None if no comparison has it."""
    groups = group_by_setting(scored_comparisons)
    scores = [[value for scored in group if (value := score(scored)) is not None] for group in groups]
    return fmean(fmean(values) for values in scores if values) if any(scores) else None


def _labels(scored_comparisons: Sequence[ScoredComparison]) -> str:
    """Return the labels of base, few-shot and edited arm, as a range where comparisons differ."""
    columns = []
    for column in range(3):
        counts = {
            arm.labels
            for scored in scored_comparisons
            for arm in scored.arms.get((scored.base, FEW_SHOT, EDITED)[column], ())
        }
        columns.append(f"{min(counts)}-{max(counts)}" if len(counts) > 1 else str(*counts) or NONE)
    return "/".join(columns)


def duration(seconds: float) -> str:
    """Format seconds, with one digit below ten."""
    return f"{seconds:,.0f}" if seconds >= 10 else f"{seconds:.1f}"
