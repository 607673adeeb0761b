"""Tables and page sections of reward comparisons: arms, the trials that no other exceeds, and some of the texts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

from tarot.evaluation.reward_results import RewardComparison
from tarot.evaluation.statistics.means import Difference, Mean, jackknife, mean_intervals
from tarot.objectives.text_metrics import distinct, distinct_without, repetition
from tarot.objectives.text_scores import ScoredTexts, TextScores
from tarot.report.comparison_figures import reward_against_fluency
from tarot.report.sections import provenance
from tarot.report.table import NONE, p_value, with_interval

REWARD_HEADER = ("arm", "reward", "gain", "p", "fluency", "change", "distinct", "repeats")
FRONT_HEADER = ("trial", "reward", "fluency", "distinct-2", "repetition")
TEXTS_HEADER = ("arm", "reward", "fluency, nats", "distinct-2", "repetition", "documents")
TEXTS_SHOWN = 3
"""Texts whose reward rose most, and as many whose reward fell most."""


@dataclass(frozen=True)
class TextPair:
    """A prompt, and what base and edited model wrote, each with its reward and fluency."""

    prompt: str
    base: str
    edited: str
    base_scores: str
    edited_scores: str


@dataclass(frozen=True)
class RewardSection:
    """What the page shows of one reward comparison."""

    comparison: RewardComparison
    arms: Sequence[Sequence[str]]
    p: str
    front: Sequence[Sequence[str]]
    figure: Markup
    risen: Sequence[TextPair]
    fallen: Sequence[TextPair]
    settings: Sequence[tuple[str, str]]


def reward_rows(
    base: ScoredTexts, edited: ScoredTexts, gain: Difference, fluency_gain: Difference
) -> list[tuple[str, ...]]:
    """Return a row each for base and edited, in the order of REWARD_HEADER, whose names fit a terminal of 80 columns.

    Args:
        base: texts of the unedited model.
        edited: texts of the edited model.
        gain: difference of the rewards, edited minus base.
        fluency_gain: difference of the fluencies, nats a token; shown in percent of the base's.
    """
    percent = 100 * fluency_gain.value / abs(base.summary.fluency) if base.summary.fluency else 0.0
    return [
        ("base", *_score_columns(base.summary, NONE, NONE, NONE)),
        ("edited", *_score_columns(edited.summary, with_interval(gain), p_value(gain.p), f"{percent:+.1f}%")),
    ]


def front_rows(outcomes: Mapping[int, TextScores], front: Sequence[int]) -> list[tuple[str, ...]]:
    """Return a row for each trial that no other exceeds in both reward and fluency, in the order of FRONT_HEADER."""
    return [
        (
            f"{trial} (refused)" if outcome.refused else f"{trial} (identity)" if trial == 0 else str(trial),
            f"{outcome.reward:.3f}",
            f"{outcome.fluency:.3f}",
            f"{outcome.distinct_2:.3f}",
            f"{outcome.repetition:.3f}",
        )
        for trial, outcome in ((trial, outcomes[trial]) for trial in front)
    ]


def _score_columns(outcome: TextScores, gain: str, p: str, percent: str) -> tuple[str, ...]:
    return (
        f"{outcome.reward:.3f}",
        gain,
        p,
        f"{outcome.fluency:.3f}",
        percent,
        f"{outcome.distinct_2:.3f}",
        f"{outcome.repetition:.3f}",
    )


def reward_section(number: int, comparison: RewardComparison) -> RewardSection:
    """Return what the page shows of a comparison; `number` makes the identifiers of its figure unique."""
    base, edited = _means(comparison.base), _means(comparison.edited)
    changes = [after - before for before, after in zip(comparison.base.rewards, comparison.edited.rewards, strict=True)]
    by_change = sorted(range(len(changes)), key=changes.__getitem__)
    risen = [row for row in reversed(by_change) if changes[row] > 0]
    fallen = [row for row in by_change if changes[row] < 0]
    return RewardSection(
        comparison=comparison,
        arms=[*_arm_rows(comparison, base, edited)],
        p=p_value(comparison.gain.p),
        front=front_rows(comparison.outcomes, comparison.front),
        figure=reward_against_fluency(
            f"front-{number}",
            {trial: (scores.fluency, scores.reward, scores.refused) for trial, scores in comparison.outcomes.items()},
            comparison.front,
            {"base": (base.fluency, base.reward), "edited": (edited.fluency, edited.reward)},
            comparison.reward,
        ),
        risen=[_text_pair(comparison, row) for row in risen[:TEXTS_SHOWN]],
        fallen=[_text_pair(comparison, row) for row in fallen[:TEXTS_SHOWN]],
        settings=[
            ("model", comparison.model),
            ("task", comparison.task),
            ("reward", comparison.reward),
            ("seed", str(comparison.seed)),
            ("adapter", comparison.adapter),
            ("documents", f"{comparison.gain.n:,}"),
            *provenance(comparison),
        ],
    )


class _Means(NamedTuple):
    """Means over the texts of an arm, with their intervals."""

    reward: Mean
    fluency: Mean
    distinct_2: Mean
    repetition: Mean


def _means(arm: ScoredTexts) -> _Means:
    rows = list(zip(arm.rewards, arm.fluencies, map(repetition, arm.texts), strict=True))
    reward, fluency, repeated = mean_intervals(rows)
    return _Means(reward, fluency, jackknife(distinct(arm.texts), distinct_without(arm.texts)), repeated)


def _arm_rows(comparison: RewardComparison, base: _Means, edited: _Means) -> Iterator[tuple[str, ...]]:
    """Yield both arms and their paired differences, in the order of TEXTS_HEADER."""
    n = f"{comparison.gain.n:,}"
    for name, means in (("base", base), ("edited", edited)):
        yield name, *(f"{mean.value:.3f} [{mean.low:.3f}, {mean.high:.3f}]" for mean in means), n
    base_texts, edited_texts = comparison.base.texts, comparison.edited.texts
    without = zip(distinct_without(base_texts), distinct_without(edited_texts), strict=True)
    variety_gain = jackknife(
        edited.distinct_2.value - base.distinct_2.value, [after - before for before, after in without]
    )
    repeats = [[repetition(after) - repetition(before)] for before, after in zip(base_texts, edited_texts, strict=True)]
    (repetition_gain,) = mean_intervals(repeats)
    changes = (comparison.gain, comparison.fluency_gain, variety_gain, repetition_gain)
    yield "edited minus base", *(with_interval(change) for change in changes), n


def _text_pair(comparison: RewardComparison, row: int) -> TextPair:
    base, edited = comparison.base, comparison.edited
    scores = (f"reward {arm.rewards[row]:.3f}, fluency {arm.fluencies[row]:.3f}" for arm in (base, edited))
    return TextPair(comparison.prompts[row], base.texts[row], edited.texts[row], *scores)
