"""Tables and page sections of reward comparisons: arms, the trials that no other exceeds, and the texts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

from tarot.evaluation.results.reward_comparison import RewardComparison
from tarot.evaluation.statistics.formatting import fraction, p_value, signed, with_interval
from tarot.evaluation.statistics.means import Difference, Mean, jackknife, mean_intervals
from tarot.objectives.rewards.text_metrics import distinct, distinct_without, repetition
from tarot.objectives.rewards.text_scores import ScoredTexts, TextScores
from tarot.report.document_table import MOST_DOCUMENTS, DocumentTable
from tarot.report.figures.comparison import reward_against_fluency
from tarot.report.sections import provenance
from tarot.report.table import NONE

REWARD_HEADER = ("arm", "reward", "gain", "p", "fluency", "change", "distinct", "repeats")
FRONT_HEADER = ("trial", "reward", "fluency", "distinct-2", "repetition")
TEXTS_HEADER = ("arm", "reward", "fluency, nats", "distinct-2", "repetition", "documents")
DIFFERENCE = "edited minus base"
TEXT_COLUMNS = (
    *(("#", "number"), ("prompt", "text"), ("base", "text"), ("edited", "text")),
    *(("base reward", "number"), ("edited reward", "number"), ("change", "number"), ("fluency change", "number")),
    ("outcome", "outcome"),
)
TEXT_OUTCOMES = ("fell", "rose", "same")
"""Outcomes of a text's reward. In the order of the table."""


class ArmScores(NamedTuple):
    """Means over the texts of an arm, or their paired differences, with their intervals."""

    reward: Mean | Difference
    fluency: Mean | Difference
    distinct_2: Mean
    repetition: Mean


@dataclass(frozen=True)
class RewardSection:
    """The page's data of one reward comparison."""

    comparison: RewardComparison
    scores: Mapping[str, ArmScores]
    arms: Sequence[Sequence[str]]
    p: str
    front: Sequence[Sequence[str]]
    figure: Markup
    documents: DocumentTable
    settings: Sequence[tuple[str, str]]


def reward_rows(comparison: RewardComparison) -> list[tuple[str, ...]]:
    """Return one row for the base and one for the edit, in the order of REWARD_HEADER; they fit 80 columns.

    The difference of the fluencies is shown in percent of the base's.
    """
    base, edited = comparison.base.summary, comparison.edited.summary
    percent = 100 * comparison.fluency_gain.value / abs(base.fluency) if base.fluency else 0.0
    gains = with_interval(comparison.gain), p_value(comparison.gain.p), f"{percent:+.1f}%"
    return [
        (
            name,
            f"{scores.reward:.3f}",
            gain,
            p,
            f"{scores.fluency:.3f}",
            change,
            f"{scores.distinct_2:.3f}",
            f"{scores.repetition:.3f}",
        )
        for name, scores, (gain, p, change) in (("base", base, (NONE, NONE, NONE)), ("edited", edited, gains))
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


def reward_section(number: int, comparison: RewardComparison, most_texts: int = MOST_DOCUMENTS) -> RewardSection:
    """Return what the page shows of a comparison.

    Args:
        number: makes the identifiers of its figure unique.
        comparison: what was measured.
        most_texts: documents to list, those whose reward changed most.
    """
    scores = _arm_scores(comparison)
    base, edited = scores["base"], scores["edited"]
    return RewardSection(
        comparison=comparison,
        scores=scores,
        arms=[*_arm_rows(scores, comparison.gain.n)],
        p=p_value(comparison.gain.p),
        front=front_rows(comparison.outcomes, comparison.front),
        figure=reward_against_fluency(
            f"front-{number}",
            {trial: (scores.fluency, scores.reward, scores.refused) for trial, scores in comparison.outcomes.items()},
            comparison.front,
            {"base": (base.fluency, base.reward), "edited": (edited.fluency, edited.reward)},
            comparison.reward,
        ),
        documents=text_table(comparison, most_texts),
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


def text_table(comparison: RewardComparison, most_texts: int = MOST_DOCUMENTS) -> DocumentTable:
    """Return the table of a comparison's texts: those whose reward fell, then those whose reward rose, most first."""
    base, edited = comparison.base, comparison.edited
    changes = [after - before for before, after in zip(base.rewards, edited.rewards, strict=True)]
    outcomes = ["rose" if change > 0 else "fell" if change < 0 else "same" for change in changes]
    by_change = sorted(range(len(changes)), key=lambda row: -abs(changes[row]))
    shown = sorted(by_change[:most_texts], key=lambda row: TEXT_OUTCOMES.index(outcomes[row]))
    rows = [
        (
            *(str(row), comparison.prompts[row], base.texts[row], edited.texts[row]),
            *(f"{base.rewards[row]:.3f}", f"{edited.rewards[row]:.3f}", signed(changes[row])),
            *(signed(edited.fluencies[row] - base.fluencies[row]), outcomes[row]),
        )
        for row in shown
    ]
    note = "The page lists those whose reward changed most; the file has all." * (len(shown) < len(changes))
    return DocumentTable(TEXT_COLUMNS, rows, [(each, outcomes.count(each)) for each in TEXT_OUTCOMES], note)


def _arm_scores(comparison: RewardComparison) -> dict[str, ArmScores]:
    """Return the scores of both arms, and their paired differences."""
    base, edited = _means(comparison.base), _means(comparison.edited)
    base_texts, edited_texts = comparison.base.texts, comparison.edited.texts
    without = zip(distinct_without(base_texts), distinct_without(edited_texts), strict=True)
    variety_gain = jackknife(
        edited.distinct_2.value - base.distinct_2.value, [after - before for before, after in without]
    )
    repeats = [[repetition(after) - repetition(before)] for before, after in zip(base_texts, edited_texts, strict=True)]
    (repetition_gain,) = mean_intervals(repeats)
    changes = ArmScores(comparison.gain, comparison.fluency_gain, variety_gain, repetition_gain)
    return {"base": base, "edited": edited, DIFFERENCE: changes}


def _means(arm: ScoredTexts) -> ArmScores:
    rows = list(zip(arm.rewards, arm.fluencies, map(repetition, arm.texts), strict=True))
    reward, fluency, repeated = mean_intervals(rows)
    return ArmScores(reward, fluency, jackknife(distinct(arm.texts), distinct_without(arm.texts)), repeated)


def _arm_rows(scores: Mapping[str, ArmScores], n: int) -> Iterator[tuple[str, ...]]:
    """Yield both arms and their paired differences, in the order of TEXTS_HEADER."""
    for name, arm in scores.items():
        form = signed if name == DIFFERENCE else fraction
        yield name, *(with_interval(score, form) for score in arm), f"{n:,}"
