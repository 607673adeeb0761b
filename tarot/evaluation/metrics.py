"""FIXME: one sentence on this module."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from tarot.errors import UnknownName
from tarot.evaluation.results import Arm
from tarot.evaluation.statistics.gains import (
    Gain,
    accuracy,
    accuracy_gain,
    f1_gain,
    weighted_f1,
)


@dataclass(frozen=True)
class Metric:
    """What is measured: `score(gold, answers)` of the answers that `answers(arm)` picks, and the gain in it."""

    title: str
    answers: Callable[[Arm], tuple[int, ...]]
    score: Callable[[Sequence[int], Sequence[int]], float]
    gain: Callable[[Sequence[int], Sequence[int], Sequence[int]], Gain]

    def mean_score(self, gold: Sequence[int], arms: Sequence[Arm]) -> float:
        """Mean of the arms' scores, a fraction."""
        return fmean(self.score(gold, self.answers(arm)) for arm in arms)


HEADLINE = "greedy_f1"


METRICS: Mapping[str, Metric] = {
    "f1": Metric("weighted F1 among the choices", lambda arm: arm.predicted, weighted_f1, f1_gain),
    "acc": Metric("accuracy among the choices", lambda arm: arm.predicted, accuracy, accuracy_gain),
    "greedy_f1": Metric("weighted F1 of the greedy answer", lambda arm: arm.greedy, weighted_f1, f1_gain),
    "greedy_acc": Metric("accuracy of the greedy answer", lambda arm: arm.greedy, accuracy, accuracy_gain),
}


def metric_named(name: str) -> Metric:
    """Raises UnknownName for another than those of METRICS."""
    if name not in METRICS:
        raise UnknownName("metric", name, METRICS)
    return METRICS[name]
