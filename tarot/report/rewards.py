"""Rewarded texts as rows of strings: the arms of a comparison, and a search's trials that no other beats."""

from collections.abc import Mapping, Sequence

from tarot.gains import Difference
from tarot.outcomes import Judged, Outcome
from tarot.report.table import NONE, p_value, with_interval

REWARD_HEADER = ("arm", "reward", "gain", "p", "fluency", "change", "distinct", "repeats")
FRONT_HEADER = ("trial", "reward", "fluency", "distinct-2", "repetition")


def reward_rows(base: Judged, edited: Judged, gain: Difference, fluency_gain: Difference) -> list[tuple[str, ...]]:
    """Base and edited, in the order of REWARD_HEADER: fluency in nats a token, its change in percent of the base's.

    Names are short, so that a terminal of 80 columns cuts none.
    """
    percent = 100 * fluency_gain.value / abs(base.outcome.fluency) if base.outcome.fluency else 0.0
    return [
        ("base", *_judged(base.outcome, NONE, NONE, NONE)),
        ("edited", *_judged(edited.outcome, with_interval(gain), p_value(gain.p), f"{percent:+.1f}%")),
    ]


def front_rows(outcomes: Mapping[int, Outcome], front: Sequence[int]) -> list[tuple[str, ...]]:
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


def _judged(outcome: Outcome, gain: str, p: str, percent: str) -> tuple[str, ...]:
    return (
        f"{outcome.reward:.3f}",
        gain,
        p,
        f"{outcome.fluency:.3f}",
        percent,
        f"{outcome.distinct_2:.3f}",
        f"{outcome.repetition:.3f}",
    )
