"""Gains of a cell, as the fixture `tarot_gain` gives them to a test."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

from tarot.errors import TarotError
from tarot.evaluation.results.comparison import FEW_SHOT, Comparison
from tarot.evaluation.results.scored_comparison import gain_over_draws, mean_of_draws
from tarot.evaluation.statistics.gains import Gain
from tarot.evaluation.statistics.seeds import MeanGain

AnyGain = TypeVar("AnyGain", Gain, MeanGain)


@dataclass(frozen=True, repr=False)
class Gains(Generic[AnyGain]):
    """Gains of the edited model over one arm, on the same documents, in four metrics.

    Attributes:
        comparison: Everything that was measured.
        before: Name of the arm that the edited model is compared with.
        measured: Returns the gain in a metric of that name.

    Example:
        >>> def test_it_helps_over_prompting(tarot_gain):
        ...     assert tarot_gain.over_few_shot.greedy_f1.low > 0
    """

    comparison: Comparison
    before: str
    measured: Callable[[str], AnyGain]

    def __repr__(self) -> str:
        """Return a short name, since pytest prints it in every failed assertion."""
        return f"<{type(self).__name__} over {self.before} of {self.comparison.id}>"

    @cached_property
    def f1(self) -> AnyGain:
        """Gain in the weighted F1 of the likeliest choice."""
        return self.measured("f1")

    @cached_property
    def accuracy(self) -> AnyGain:
        """Gain in the accuracy of the likeliest choice."""
        return self.measured("acc")

    @cached_property
    def greedy_f1(self) -> AnyGain:
        """Gain in the weighted F1 of what greedy decoding over the whole vocabulary writes: the headline metric.

        An answer that is none of the choices is wrong.
        """
        return self.measured("greedy_f1")

    @cached_property
    def greedy_accuracy(self) -> AnyGain:
        """Gain in the accuracy of what greedy decoding over the whole vocabulary writes."""
        return self.measured("greedy_acc")


class TarotGain(Gains[Gain]):
    """Gains of the edited model over the base model under the same prompts.

    `comparison` holds everything that was measured; `over_few_shot` and `over_draws` compare with few-shot prompting.

    Example:
        >>> def test_the_edit_helps(tarot_gain):
        ...     assert tarot_gain.greedy_f1.low > 0  # the 95% CI of the gain excludes 0
    """

    def __init__(self, comparison: Comparison) -> None:
        super().__init__(comparison, comparison.base.name, comparison.gain)

    @cached_property
    def over_few_shot(self) -> Gains[Gain]:
        """Gains over prompting with labelled examples."""
        self.comparison.arm(FEW_SHOT)  # raises if there is none
        return Gains(self.comparison, FEW_SHOT, lambda metric: self.comparison.gain(metric, over=FEW_SHOT))

    @cached_property
    def over_draws(self) -> Gains[MeanGain]:
        """Gains over the mean of several choices and orders of the labelled examples.

        Raises:
            TarotError: There were no draws.
        """
        if not self.comparison.draws:
            raise TarotError("draws of few-shot prompts", f"none in {self.comparison.id}", "give --tarot-draws 5")
        return Gains(
            self.comparison,
            mean_of_draws(self.comparison),
            lambda metric: gain_over_draws(self.comparison, metric),
        )
