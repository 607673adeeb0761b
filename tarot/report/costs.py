"""The cost of each arm of a comparison, as rows of text."""

from collections.abc import Sequence
from statistics import fmean

from tarot.evaluation.cost.speed import BUSY_NOTE, is_busy
from tarot.evaluation.results.comparison import Arm, Comparison
from tarot.evaluation.results.scored_comparison import named_arms
from tarot.report.table import NONE, duration

COST_HEADER = ("arm", "prepare s", "answer s", "of base", "peak MiB", "stored B")


def cost_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """Return one row an arm, in the order of COST_HEADER; it fits a terminal of 80 columns.

    "of base" divides the seconds of the answers by those of the base.

    Example:
        >>> cost_rows(comparison)[0][0] == comparison.arms[0].name
        True
    """
    return [_cost_row(name, arms, comparison.base.seconds) for name, arms in named_arms(comparison).items()]


def cost_note(comparison: Comparison) -> str:
    """Say that the seconds mean little, a sentence; "" if the machine was not busy."""
    return BUSY_NOTE if is_busy(comparison) else ""


def _cost_row(name: str, arms: Sequence[Arm], base: float) -> tuple[str, ...]:
    arm, seconds = arms[0], fmean(arm.seconds for arm in arms)
    return (
        name,
        duration(arm.preparation_seconds) if arm.preparation_seconds else NONE,
        duration(seconds),
        f"{seconds / base:.2f}" if base else NONE,
        f"{arm.peak_memory / 2**20:,.0f}" if arm.peak_memory else NONE,
        f"{arm.stored_bytes:,}" if arm.stored_bytes else NONE,
    )
