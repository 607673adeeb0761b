"""The metrics of a comparison: which answers of an arm they look at, and how they score them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean

from tarot.arguments import Registry
from tarot.evaluation.results.comparison import Arm
from tarot.evaluation.statistics.gains import Gain, accuracy, accuracy_gain, f1_gain, weighted_f1


@dataclass(frozen=True)
class Metric:
    """A way to score answers.

    Attributes:
        title: what tables call it.
        answers: returns the answers of an arm that count.
        score: returns the score of right and given answers, a fraction.
        gain: returns the gain of right, base's and edited answers.
    """

    title: str
    answers: Callable[[Arm], tuple[int, ...]]
    score: Callable[[Sequence[int], Sequence[int]], float]
    gain: Callable[[Sequence[int], Sequence[int], Sequence[int]], Gain]

    def mean_score(self, gold: Sequence[int], arms: Sequence[Arm]) -> float:
        """Return the mean of the arms' scores, a fraction."""
        return fmean(self.score(gold, self.answers(arm)) for arm in arms)


METRICS: Registry[Metric] = Registry(
    "metric",
    {
        "f1": Metric("weighted F1 among the choices", lambda arm: arm.predicted, weighted_f1, f1_gain),
        "acc": Metric("accuracy among the choices", lambda arm: arm.predicted, accuracy, accuracy_gain),
        "greedy_f1": Metric("weighted F1 of the greedy answer", lambda arm: arm.greedy, weighted_f1, f1_gain),
        "greedy_acc": Metric("accuracy of the greedy answer", lambda arm: arm.greedy, accuracy, accuracy_gain),
    },
)


@lru_cache(maxsize=4096)
def gain_of(metric: Metric, gold: tuple[int, ...], base: tuple[int, ...], edited: tuple[int, ...]) -> Gain:
    """Return the gain of edited over base answers; it is remembered, since tables, pages and files all show it."""
    return metric.gain(gold, base, edited)


def describe_metrics(names: Iterable[str]) -> str:
    """Say what the names of metrics in a table stand for, a sentence.

    Example:
        >>> describe_metrics(["f1"])
        'f1 is the weighted F1 among the choices.'
    """
    return f"{'; '.join(f'{name} is the {METRICS[name].title}' for name in names)}."
