"""What the fixture `tarot_gain` hands to a test, and how it explains itself when an assertion fails."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from textwrap import shorten
from typing import Generic, TypeVar

from tarot.errors import TarotError
from tarot.evaluation.metrics import METRICS, Metric
from tarot.evaluation.results import EDITED, FEW_SHOT, OUTSIDE, ZERO_SHOT, Arm, Comparison
from tarot.evaluation.scored_comparison import mean_of_draws, named_arms
from tarot.evaluation.statistics.gains import Gain
from tarot.evaluation.statistics.seeds import MeanGain, mean_over_seeds
from tarot.report.table import aligned

SHOWN = 3  # documents that flipped each way
WIDTH = 100


Measured = TypeVar("Measured", Gain, MeanGain)


@dataclass(frozen=True, repr=False)
class Gains(Generic[Measured]):
    """edited - before, on the same documents, in four measures.

    `greedy_f1` is the project's headline: weighted F1 of what greedy decoding over the whole vocabulary writes, where
    anything but a choice is wrong. `f1` is that of the likeliest choice. `greedy_accuracy` and `accuracy` are the
    fractions right.
    """

    comparison: Comparison
    before: str
    measured: Callable[[Metric], Measured]

    def __repr__(self) -> str:
        """Short, since pytest prints it in every assertion."""
        return f"<{type(self).__name__} over {self.before} of {self.comparison.id}>"

    @cached_property
    def f1(self) -> Measured:
        return self.measured(METRICS["f1"])

    @cached_property
    def accuracy(self) -> Measured:
        return self.measured(METRICS["acc"])

    @cached_property
    def greedy_f1(self) -> Measured:
        return self.measured(METRICS["greedy_f1"])

    @cached_property
    def greedy_accuracy(self) -> Measured:
        return self.measured(METRICS["greedy_acc"])


class TarotGain(Gains[Gain]):
    """Gains of the edited model over the unedited one under the same prompts.

    `over_few_shot` holds those over prompting with labelled examples, `over_draws` those over the mean of several
    choices and orders of the examples; `comparison` everything that was measured.
    """

    def __init__(self, comparison: Comparison) -> None:
        base = base_of(comparison)
        super().__init__(comparison, base.name, lambda metric: _gain(comparison, base, metric))

    @cached_property
    def over_few_shot(self) -> Gains[Gain]:
        before = self.comparison.arm(FEW_SHOT)
        return Gains(self.comparison, before.name, lambda metric: _gain(self.comparison, before, metric))

    @cached_property
    def over_draws(self) -> Gains[MeanGain]:
        draws = self.comparison.draws
        if not draws:
            raise TarotError("draws of few-shot prompts", f"none in {self.comparison.id}", "give --tarot-draws 5")
        return Gains(
            self.comparison,
            mean_of_draws(self.comparison),
            lambda metric: mean_over_seeds([_gain(self.comparison, draw, metric) for draw in draws]),
        )


def _gain(comparison: Comparison, before: Arm, metric: Metric) -> Gain:
    return metric.gain(comparison.gold, metric.answers(before), metric.answers(comparison.arm(EDITED)))


def base_of(comparison: Comparison) -> Arm:
    """The unedited arm under the edited one's prompts."""
    return comparison.arm(FEW_SHOT if comparison.num_fewshot else ZERO_SHOT)


def explain(comparison: Comparison) -> str:
    """The arms, the gains with their intervals, documents that flipped each way, the command that repeats the cell."""
    gains = TarotGain(comparison)
    parts = [comparison.id, "", *_arms(comparison), "", *_intervals(gains)]
    flips = _flips(comparison, base_of(comparison), comparison.arm(EDITED))
    return "\n".join([*parts, "", *flips, "", "repeat it with:", comparison.command])


def _arms(comparison: Comparison) -> list[str]:
    rows = [
        (name, str(arms[0].labels), *(f"{metric.mean_score(comparison.gold, arms):.3f}" for metric in METRICS.values()))
        for name, arms in named_arms(comparison).items()
    ]
    return aligned([("arm", "labels", *METRICS), *rows])


def _intervals(gains: TarotGain) -> list[str]:
    """The edited arm over its base, over few-shot prompting, and over the mean of its draws, which has no test."""
    rows = [("edited minus", "measure", "gain", f"{gains.f1.level:.0%} interval", "p", "gained", "lost", "documents")]
    over: list[Gains[Gain] | Gains[MeanGain]] = [gains]
    if gains.before != FEW_SHOT and any(arm.name == FEW_SHOT for arm in gains.comparison.arms):
        over.append(gains.over_few_shot)
    if len(gains.comparison.draws) > 1:
        over.append(gains.over_draws)
    for these in over:
        for measure in ("f1", "accuracy", "greedy_f1", "greedy_accuracy"):
            gain: Gain | MeanGain = getattr(these, measure)
            tested = ("", "", "")
            if isinstance(gain, Gain):
                tested = (f"{gain.p:.3f}", str(gain.gained), str(gain.lost))
            interval = f"[{gain.low:+.3f}, {gain.high:+.3f}]"
            rows.append(
                (these.before, measure, f"{gain.value:+.3f}", interval, *tested, str(len(gains.comparison.gold)))
            )
    return aligned(rows)


def _flips(comparison: Comparison, before: Arm, after: Arm) -> list[str]:
    """Documents whose likeliest choice or greedy answer became right or wrong."""
    lines = []
    for title, wanted in (("gained", True), ("lost", False)):
        for kind in ("predicted", "greedy"):
            old, new = getattr(before, kind), getattr(after, kind)
            rows = [
                (i, gold)
                for i, gold in enumerate(comparison.gold)
                if (new[i] == gold) == wanted and (old[i] == gold) != wanted
            ]
            lines.append(f"{title}, {'likeliest choice' if kind == 'predicted' else 'greedy answer'}: {len(rows)}")
            for i, gold in rows[:SHOWN]:
                said = f"right {gold}, {before.name} {_answer(old[i])}, edited {_answer(new[i])}"
                lines.append(f"  {i}: {shorten(comparison.texts[i], WIDTH, placeholder=' ...')} ({said})")
    return lines


def _answer(index: int) -> str:
    return "none" if index == OUTSIDE else str(index)
