"""Score comparisons by one metric, and group the scored ones by search, setting and seed."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby

from tarot.evaluation.results.comparison import (
    EDITED,
    FEW_SHOT,
    HEADLINE,
    ZERO_SHOT,
    Arm,
    Comparison,
    search_labels,
)
from tarot.evaluation.results.metrics import METRICS
from tarot.evaluation.statistics.gains import Gain
from tarot.evaluation.statistics.seeds import MeanGain, mean_over_seeds, mean_over_settings


@dataclass(frozen=True)
class ScoredComparison:
    """A comparison, scored by one metric: scores and gains are fractions, by the name of the arm.

    With several draws of few-shot examples, "few-shot, mean of 5 draws" is a name too. `arms` lists all draws under it.
    Its score is the mean of their scores, and its gain the mean of their paired gains, which has an interval and no
    test.

    Attributes:
        comparison: what was scored.
        metric: name of the metric.
        base: name of the arm that `gains` are over.
        arms: the arms by name; several only under the name of a mean.
        scores: the score of each arm.
        gains: the gain of each arm but the base.
        gain: the edited arm's gain over the base.
        over_few_shot: the edited arm's gain over few-shot prompting; None without that arm.
        over_draws: the edited arm's mean gain over the draws; None with fewer than two draws.
        nth: index among edits of the same setting and seed, so that two edits are not averaged as two seeds.
    """

    comparison: Comparison
    metric: str
    base: str
    arms: Mapping[str, tuple[Arm, ...]]
    scores: Mapping[str, float]
    gains: Mapping[str, Gain | MeanGain]
    gain: Gain
    over_few_shot: Gain | None
    over_draws: MeanGain | None
    nth: int = 0

    @cached_property
    def edited_over(self) -> Mapping[str, Gain | MeanGain]:
        """The edited arm's gain over each other arm, by the arm's name."""
        draws = {mean_of_draws(self.comparison): self.over_draws}
        return {
            name: draws.get(name) or self.comparison.gain(self.metric, over=name)
            for name in self.arms
            if name != EDITED
        }

    @property
    def setting(self) -> tuple[object, ...]:
        """Everything that decides a comparison, except the seed."""
        return (*_setting(self.comparison), self.nth)


def _setting(comparison: Comparison) -> tuple[object, ...]:
    return (comparison.model, comparison.task, comparison.shots, *comparison.edit_identity, comparison.keys)


def score_comparisons(comparisons: Sequence[Comparison], metric: str = HEADLINE) -> list[ScoredComparison]:
    """Score comparisons, sorted by setting and seed; those of the same answers of one edit are scored as one.

    Raises:
        UnknownName: no such metric.
        TarotError: a comparison without a base or an edited arm.

    Example:
        >>> scored, = score_comparisons([comparison], "greedy_acc")
        >>> scored.gain == comparison.gain("greedy_acc")
        True
    """
    _ = METRICS[metric]  # raises UnknownName, for no comparisons too
    distinct: dict[tuple[object, ...], Comparison] = {}
    for comparison in comparisons:
        edited = comparison.arm(EDITED)
        key = (_setting(comparison), comparison.seed, comparison.adapter, edited.greedy, edited.predicted)
        distinct[key] = join_arms(distinct[key], comparison) if key in distinct else comparison
    n_edits: Counter[tuple[object, ...]] = Counter()
    numbered = []
    for (setting, seed, *_), comparison in distinct.items():
        numbered.append(replace(_score(comparison, metric), nth=n_edits[setting, seed]))
        n_edits[setting, seed] += 1
    return sorted(numbered, key=lambda scored: (scored.setting, scored.comparison.seed))


def join_arms(first: Comparison, second: Comparison) -> Comparison:
    """Return two comparisons of one edit as one with the arms of both.

    Where both have an arm of the same name, or draws of few-shot examples, the one with more arms has its own.
    """
    base, other = (first, second) if len(first.arms) >= len(second.arms) else (second, first)
    names = {arm.name for arm in base.arms}
    added = [arm for arm in other.arms if arm.name not in names and not (arm.draw and base.draws)]
    return replace(base, arms=(*base.arms, *added))


def _score(comparison: Comparison, metric: str) -> ScoredComparison:
    base, gold = comparison.base, comparison.gold

    def gain(over: str, arm: str) -> Gain:
        return comparison.gain(metric, arm=arm, over=over)

    few_shot = any(arm.name == FEW_SHOT for arm in comparison.arms)
    arms = named_arms(comparison)
    gains: dict[str, Gain | MeanGain] = {
        name: mean_over_seeds([gain(base.name, arm.name) for arm in draws]) if len(draws) > 1 else gain(base.name, name)
        for name, draws in arms.items()
        if name != base.name
    }
    return ScoredComparison(
        comparison,
        metric,
        base.name,
        arms,
        scores={name: METRICS[metric].mean_score(gold, draws) for name, draws in arms.items()},
        gains=gains,
        gain=gain(base.name, EDITED),
        over_few_shot=gain(FEW_SHOT, EDITED) if few_shot else None,
        over_draws=gain_over_draws(comparison, metric) if len(comparison.draws) > 1 else None,
    )


def gain_over_draws(comparison: Comparison, metric: str = HEADLINE) -> MeanGain:
    """Return the edited arm's gain over each draw of few-shot examples, averaged.

    Args:
        comparison: with at least one draw; without, the mean of no gains is 0 in [-1, 1].
        metric: a name in METRICS.

    Raises:
        UnknownName: no such metric.
    """
    return mean_over_seeds([comparison.gain(metric, over=draw.name) for draw in comparison.draws])


def named_arms(comparison: Comparison) -> dict[str, tuple[Arm, ...]]:
    """Return the arms by name, with all draws under the name of their mean in front of the first draw."""
    named: dict[str, tuple[Arm, ...]] = {}
    for arm in comparison.arms:
        if arm.draw and len(comparison.draws) > 1:
            named.setdefault(mean_of_draws(comparison), comparison.draws)
        named[arm.name] = (arm,)
    return named


def mean_of_draws(comparison: Comparison) -> str:
    """Return the name of the mean over the draws of few-shot examples."""
    return f"{FEW_SHOT}, mean of {len(comparison.draws)} draws"


def compared_arms(scored_comparisons: Sequence[ScoredComparison]) -> list[str]:
    """Return the edited arm and every arm to compare it with, in the order in which the comparisons name them.

    Few-shot prompting is among them; of its draws the mean, the best and the worst.
    """
    middle = {draw.name for scored in scored_comparisons for draw in scored.comparison.draws[1:-1]}
    names = dict.fromkeys([EDITED, *(name for scored in scored_comparisons for name in scored.gains)])
    return [name for name in names if name != ZERO_SHOT and name not in middle] if scored_comparisons else []


def comparison_labels(scored_comparisons: Sequence[ScoredComparison]) -> list[str]:
    """Label each comparison with its search where searches differ, and its adapter where one search has several."""
    searches = search_labels([scored.comparison for scored in scored_comparisons])
    adapters: dict[tuple[str, str], set[str]] = {}
    for scored, search in zip(scored_comparisons, searches, strict=True):
        adapters.setdefault((scored.comparison.id, search), set()).add(scored.comparison.adapter)
    edits = [
        f"adapter {scored.comparison.adapter}" if len(adapters[scored.comparison.id, search]) > 1 else ""
        for scored, search in zip(scored_comparisons, searches, strict=True)
    ]
    return [", ".join(filter(None, parts)) for parts in zip(searches, edits, strict=True)]


def group_by_search(scored_comparisons: Sequence[ScoredComparison]) -> dict[str, list[ScoredComparison]]:
    """Group comparisons by the label of their search, "" where there is one search."""
    groups: dict[str, list[ScoredComparison]] = {}
    labels = search_labels([scored.comparison for scored in scored_comparisons])
    for scored, label in zip(scored_comparisons, labels, strict=True):
        groups.setdefault(label, []).append(scored)
    return groups


def group_by_setting(scored_comparisons: Sequence[ScoredComparison]) -> list[list[ScoredComparison]]:
    """Group sorted comparisons that differ only by their seed."""
    return [list(group) for _, group in groupby(scored_comparisons, key=lambda scored: scored.setting)]


def mean_gain(
    scored_comparisons: Sequence[ScoredComparison], gain: Callable[[ScoredComparison], Gain | MeanGain | None]
) -> MeanGain:
    """Average a gain over seeds, then over settings; comparisons whose gain is None do not count."""
    groups = group_by_setting(scored_comparisons)
    return mean_over_settings([[value for scored in group if (value := gain(scored))] for group in groups])
