"""The arms of a cell against its base: the unedited model under the same prompts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from tarot.cells import EDITED, FEW_SHOT, ZERO_SHOT, Arm, Cell
from tarot.errors import UnknownName
from tarot.gains import Gain, MeanGain, accuracy, accuracy_gain, f1_gain, mean_over_settings, weighted_f1


@dataclass(frozen=True)
class Metric:
    """What is measured: `score(gold, answers)` of the answers that `answers(arm)` picks, and the gain in it."""

    title: str
    answers: Callable[[Arm], tuple[int, ...]]
    score: Callable[[Sequence[int], Sequence[int]], float]
    gain: Callable[[Sequence[int], Sequence[int], Sequence[int]], Gain]


HEADLINE = "greedy_f1"
METRICS: Mapping[str, Metric] = {
    "f1": Metric("weighted F1 among the choices", lambda arm: arm.predicted, weighted_f1, f1_gain),
    "acc": Metric("accuracy among the choices", lambda arm: arm.predicted, accuracy, accuracy_gain),
    "greedy_f1": Metric("weighted F1 of the greedy answer", lambda arm: arm.greedy, weighted_f1, f1_gain),
    "greedy_acc": Metric("accuracy of the greedy answer", lambda arm: arm.greedy, accuracy, accuracy_gain),
}


@dataclass(frozen=True)
class Comparison:
    """Scores of a cell's arms and their gains over `base`, by the arm's name; fractions.

    `over_few_shot` is the gain of the edited arm over few-shot prompting, None where the cell has no such arm.
    """

    cell: Cell
    base: str
    scores: Mapping[str, float]
    gains: Mapping[str, Gain]
    over_few_shot: Gain | None

    @property
    def setting(self) -> tuple[str | int, ...]:
        """All that the seeds of one measurement share."""
        cell = self.cell
        return (
            cell.model,
            cell.task,
            cell.shots,
            cell.samples,
            cell.budget,
            cell.search,
            cell.space,
            cell.objective,
        )


def metric_named(name: str) -> Metric:
    """Raises UnknownName for another than those of METRICS."""
    if name not in METRICS:
        raise UnknownName("metric", name, METRICS)
    return METRICS[name]


def compare(cells: Sequence[Cell], metric: str = HEADLINE) -> list[Comparison]:
    """Each cell's arms against its base, sorted by setting and seed.

    The base is `zero-shot` for cells without shots and `few-shot` for those with.

    Raises:
        UnknownName: a metric that is not one of METRICS.
        TarotError: a cell without a base or an edited arm.
    """
    of = metric_named(metric)
    compared = [_compare(cell, of) for cell in cells]
    return sorted(compared, key=lambda comparison: (comparison.setting, comparison.cell.seed))


def _compare(cell: Cell, metric: Metric) -> Comparison:
    base = cell.arm(FEW_SHOT if cell.num_fewshot else ZERO_SHOT)
    edited = cell.arm(EDITED)

    def gain(before: Arm, after: Arm) -> Gain:
        return metric.gain(cell.gold, metric.answers(before), metric.answers(after))

    gains = {arm.name: gain(base, arm) for arm in cell.arms if arm is not base}
    over_few_shot = gains[EDITED] if base.name == FEW_SHOT else None
    if over_few_shot is None and any(arm.name == FEW_SHOT for arm in cell.arms):
        over_few_shot = gain(cell.arm(FEW_SHOT), edited)
    scores = {arm.name: metric.score(cell.gold, metric.answers(arm)) for arm in cell.arms}
    return Comparison(cell, base.name, scores, gains, over_few_shot)


def arms_compared(comparisons: Sequence[Comparison]) -> list[str]:
    """The edited arm and every control, few-shot prompting among them, in the order in which the cells name them."""
    names = dict.fromkeys([EDITED, *(name for comparison in comparisons for name in comparison.gains)])
    return [name for name in names if name != ZERO_SHOT] if comparisons else []


def by_setting(comparisons: Sequence[Comparison]) -> list[list[Comparison]]:
    """Sorted comparisons, those that differ by their seed only together."""
    return [list(group) for _, group in groupby(comparisons, key=lambda comparison: comparison.setting)]


def mean_gain(comparisons: Sequence[Comparison], gain: Callable[[Comparison], Gain | None]) -> MeanGain:
    """Mean over seeds, then over settings, of the gains that are there."""
    return mean_over_settings([[g for each in group if (g := gain(each))] for group in by_setting(comparisons)])
