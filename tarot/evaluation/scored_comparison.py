"""The arms of a cell against its base: the unedited model under the same prompts."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby

from tarot.evaluation.metrics import HEADLINE, Metric, metric_named
from tarot.evaluation.results import EDITED, FEW_SHOT, ZERO_SHOT, Arm, Comparison, search_labels
from tarot.evaluation.statistics.gains import Gain
from tarot.evaluation.statistics.seeds import MeanGain, mean_over_seeds, mean_over_settings


@dataclass(frozen=True)
class ScoredComparison:
    """Scores of a cell's arms and their gains over `base`, by the arm's name; fractions.

    Where several draws of shots were tried, "few-shot, mean of 5 draws" is a name too. `arms` holds them all under it,
    their scores' mean is its score, and the mean of their paired gains its gain: an interval, with what draws differ by
    in it, and no test. `gain` is the edited arm's over the base, `over_few_shot` over few-shot prompting, `over_draws`
    over the mean of the draws; None where the cell has no such arms. `nth` counts other edits of the same setting and
    seed, which are no further seeds of it.
    """

    comparison: Comparison
    base: str
    arms: Mapping[str, tuple[Arm, ...]]
    scores: Mapping[str, float]
    gains: Mapping[str, Gain | MeanGain]
    gain: Gain
    over_few_shot: Gain | None
    over_draws: MeanGain | None
    nth: int = 0

    @property
    def setting(self) -> tuple[object, ...]:
        """All that the seeds of one measurement share."""
        comparison = self.comparison
        return (
            comparison.model,
            comparison.task,
            comparison.shots,
            comparison.samples,
            comparison.budget,
            comparison.search,
            comparison.space,
            comparison.objective,
            comparison.layers,
            comparison.keys,
            self.nth,
        )


def score_comparisons(comparisons: Sequence[Comparison], metric: str = HEADLINE) -> list[ScoredComparison]:
    """Each cell's arms against its base, sorted by setting and seed; one that is given twice, once.

    The base is `zero-shot` for cells without shots and `few-shot` for those with.

    Raises:
        UnknownName: a metric that is not one of METRICS.
        TarotError: a cell without a base or an edited arm.
    """
    of = metric_named(metric)
    once: dict[tuple[object, ...], ScoredComparison] = {}
    for scored in (_compare(comparison, of) for comparison in comparisons):
        edited = scored.comparison.arm(EDITED)
        which = (scored.setting, scored.comparison.seed)
        once.setdefault((*which, scored.comparison.adapter, edited.greedy, edited.predicted), scored)
    seen: Counter[tuple[object, ...]] = Counter()
    compared = []
    for (setting, seed, *_), scored in once.items():
        compared.append(replace(scored, nth=seen[setting, seed]))
        seen[setting, seed] += 1
    return sorted(compared, key=lambda scored: (scored.setting, scored.comparison.seed))


def _compare(comparison: Comparison, metric: Metric) -> ScoredComparison:
    base = comparison.arm(FEW_SHOT if comparison.num_fewshot else ZERO_SHOT)
    edited = comparison.arm(EDITED)

    @cache  # the edited arm's gain is wanted under several names
    def gain(before: Arm, after: Arm) -> Gain:
        return metric.gain(comparison.gold, metric.answers(before), metric.answers(after))

    over_few_shot = (
        gain(comparison.arm(FEW_SHOT), edited) if any(arm.name == FEW_SHOT for arm in comparison.arms) else None
    )
    over_draws = (
        mean_over_seeds([gain(draw, edited) for draw in comparison.draws]) if len(comparison.draws) > 1 else None
    )
    arms = named_arms(comparison)
    scores = {name: metric.mean_score(comparison.gold, those) for name, those in arms.items()}
    gains: dict[str, Gain | MeanGain] = {
        name: mean_over_seeds([gain(base, arm) for arm in those]) if len(those) > 1 else gain(base, *those)
        for name, those in arms.items()
        if name != base.name
    }
    return ScoredComparison(comparison, base.name, arms, scores, gains, gain(base, edited), over_few_shot, over_draws)


def named_arms(comparison: Comparison) -> dict[str, tuple[Arm, ...]]:
    """The cell's arms, and all its draws under the name of their mean in front of the first."""
    named: dict[str, tuple[Arm, ...]] = {}
    for arm in comparison.arms:
        if arm.draw and len(comparison.draws) > 1:
            named.setdefault(mean_of_draws(comparison), comparison.draws)
        named[arm.name] = (arm,)
    return named


def mean_of_draws(comparison: Comparison) -> str:
    """What the mean over a cell's draws of shots is called."""
    return f"{FEW_SHOT}, mean of {len(comparison.draws)} draws"


def compared_arms(scored_comparisons: Sequence[ScoredComparison]) -> list[str]:
    """The edited arm and every control, few-shot prompting among them, in the order in which the cells name them.

    Of the draws of shots their mean, the best and the worst.
    """
    between = {draw.name for scored in scored_comparisons for draw in scored.comparison.draws[1:-1]}
    names = dict.fromkeys([EDITED, *(name for scored in scored_comparisons for name in scored.gains)])
    return [name for name in names if name != ZERO_SHOT and name not in between] if scored_comparisons else []


def group_by_search(scored_comparisons: Sequence[ScoredComparison]) -> dict[str, list[ScoredComparison]]:
    """Those whose searches are alike, by what tells them from the others in words; of one search alone, by no words."""
    groups: dict[str, list[ScoredComparison]] = {}
    for scored, words in zip(
        scored_comparisons, search_labels([each.comparison for each in scored_comparisons]), strict=True
    ):
        groups.setdefault(words, []).append(scored)
    return groups


def comparison_labels(scored_comparisons: Sequence[ScoredComparison]) -> list[str]:
    """Of each, in words, its search where there are several, and its adapter where one search has several edits."""
    words = search_labels([each.comparison for each in scored_comparisons])
    adapters: dict[tuple[str, str], set[str]] = {}
    for each, said in zip(scored_comparisons, words, strict=True):
        adapters.setdefault((each.comparison.id, said), set()).add(each.comparison.adapter)
    edits = [
        f"adapter {each.comparison.adapter}" if len(adapters[each.comparison.id, said]) > 1 else ""
        for each, said in zip(scored_comparisons, words, strict=True)
    ]
    return [", ".join(filter(None, both)) for both in zip(words, edits, strict=True)]


def group_by_setting(scored_comparisons: Sequence[ScoredComparison]) -> list[list[ScoredComparison]]:
    """Sorted comparisons, those that differ by their seed only together."""
    return [list(group) for _, group in groupby(scored_comparisons, key=lambda scored: scored.setting)]


def mean_gain(
    scored_comparisons: Sequence[ScoredComparison], gain: Callable[[ScoredComparison], Gain | MeanGain | None]
) -> MeanGain:
    """Mean over seeds, then over settings, of the gains that are there."""
    return mean_over_settings(
        [[g for each in group if (g := gain(each))] for group in group_by_setting(scored_comparisons)]
    )
