"""RewardComparison texts as rows of strings: the arms of a comparison, trials that no other beats, and some of the texts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tarot.evaluation.reward_results import RewardComparison
from tarot.evaluation.statistics.means import Difference, Mean, jackknife, mean_intervals
from tarot.objectives.text_metrics import distinct, distinct_without, repetition
from tarot.objectives.text_scores import ScoredTexts, TextScores
from tarot.report.comparison_figures import reward_against_fluency
from tarot.report.table import NONE, p_value, with_interval

REWARD_HEADER = ("arm", "reward", "gain", "p", "fluency", "change", "distinct", "repeats")
FRONT_HEADER = ("trial", "reward", "fluency", "distinct-2", "repetition")
ARMS_HEADER = ("arm", "reward", "fluency, nats", "distinct-2", "repetition", "documents")
TEXTS_SHOWN = 3  # of each kind


@dataclass(frozen=True)
class Written:
    """A document as asked, and what base and edited model wrote on it, each with its reward and fluency."""

    prompt: str
    base: str
    edited: str
    base_worth: str
    edited_worth: str


@dataclass(frozen=True)
class RewardSection:
    """All that the page shows of one rewarded comparison."""

    compared: RewardComparison
    arms: Sequence[Sequence[str]]
    p: str
    front: Sequence[Sequence[str]]
    figure: Markup
    gained: Sequence[Written]
    lost: Sequence[Written]
    settings: Sequence[tuple[str, str]]


def reward_rows(
    base: ScoredTexts, edited: ScoredTexts, gain: Difference, fluency_gain: Difference
) -> list[tuple[str, ...]]:
    """Base and edited, in the order of REWARD_HEADER: fluency in nats a token, its change in percent of the base's.

    Names are short, so that a terminal of 80 columns cuts none.
    """
    percent = 100 * fluency_gain.value / abs(base.summary.fluency) if base.summary.fluency else 0.0
    return [
        ("base", *_judged(base.summary, NONE, NONE, NONE)),
        ("edited", *_judged(edited.summary, with_interval(gain), p_value(gain.p), f"{percent:+.1f}%")),
    ]


def front_rows(outcomes: Mapping[int, TextScores], front: Sequence[int]) -> list[tuple[str, ...]]:
    """Trials that no other beats in reward and fluency at once, in the order of FRONT_HEADER."""
    found = [(trial, outcomes[trial]) for trial in front]
    return [
        (
            f"{trial} (refused)" if outcome.refused else f"{trial} (identity)" if trial == 0 else str(trial),
            f"{outcome.reward:.3f}",
            f"{outcome.fluency:.3f}",
            f"{outcome.distinct_2:.3f}",
            f"{outcome.repetition:.3f}",
        )
        for trial, outcome in found
    ]


def _judged(outcome: TextScores, gain: str, p: str, percent: str) -> tuple[str, ...]:
    return (
        f"{outcome.reward:.3f}",
        gain,
        p,
        f"{outcome.fluency:.3f}",
        percent,
        f"{outcome.distinct_2:.3f}",
        f"{outcome.repetition:.3f}",
    )


def reward_section(number: int, compared: RewardComparison) -> RewardSection:
    """The comparison as the page shows it; `number` keeps the identifiers of its figure apart."""
    base, edited = (_means(arm) for arm in (compared.base, compared.edited))
    changes = sorted(range(compared.gain.n), key=lambda i: compared.edited.rewards[i] - compared.base.rewards[i])
    written = list(_written(compared))
    rose = [i for i in changes[::-1] if compared.edited.rewards[i] > compared.base.rewards[i]]
    fell = [i for i in changes if compared.edited.rewards[i] < compared.base.rewards[i]]
    return RewardSection(
        compared=compared,
        arms=[*_arms(compared, base, edited)],
        p=p_value(compared.gain.p),
        front=front_rows(compared.outcomes, compared.front),
        figure=reward_against_fluency(
            f"front-{number}",
            {trial: (o.fluency, o.reward, o.refused) for trial, o in compared.outcomes.items()},
            compared.front,
            {name: (means[1], means[0]) for name, means in (("base", base), ("edited", edited))},
            compared.reward,
        ),
        gained=[written[i] for i in rose[:TEXTS_SHOWN]],
        lost=[written[i] for i in fell[:TEXTS_SHOWN]],
        settings=[
            *(("model", compared.model), ("task", compared.task), ("reward", compared.reward)),
            *(("seed", str(compared.seed)), ("adapter", compared.adapter), ("documents", f"{compared.gain.n:,}")),
        ],
    )


def _means(arm: ScoredTexts) -> list[Mean]:
    """Reward, fluency, distinct-2 and repetition of an arm's texts."""
    rows = list(zip(arm.rewards, arm.fluencies, map(repetition, arm.texts), strict=True))
    reward, fluency, repeated = mean_intervals(rows)
    return [reward, fluency, jackknife(distinct(arm.texts), distinct_without(arm.texts)), repeated]


def _arms(compared: RewardComparison, base: Sequence[Mean], edited: Sequence[Mean]) -> Iterator[tuple[str, ...]]:
    """Both arms, and the paired differences between them, in the order of ARMS_HEADER."""
    n = f"{compared.gain.n:,}"
    for name, means in (("base", base), ("edited", edited)):
        yield name, *(f"{mean.value:.3f} [{mean.low:.3f}, {mean.high:.3f}]" for mean in means), n
    texts = [arm.texts for arm in (compared.base, compared.edited)]
    before, after = map(distinct_without, texts)
    variety = jackknife(edited[2].value - base[2].value, [b - a for a, b in zip(before, after, strict=True)])
    repeats = [[repetition(b) - repetition(a)] for a, b in zip(*texts, strict=True)]
    changes = (compared.gain, compared.fluency_gain, variety, mean_intervals(repeats)[0])
    yield "edited minus base", *(with_interval(change) for change in changes), n


def _written(compared: RewardComparison) -> Iterator[Written]:
    base, edited = compared.base, compared.edited
    for i, prompt in enumerate(compared.prompts):
        worth = (f"reward {arm.rewards[i]:.3f}, fluency {arm.fluencies[i]:.3f}" for arm in (base, edited))
        yield Written(prompt, base.texts[i], edited.texts[i], *worth)
