"""Warnings for the reader of a comparison, a sentence each."""

from tarot.errors import describe_missing_numbers
from tarot.evaluation.results.comparison import HEADLINE, Comparison

EACH_ALONE = (
    "Each 95% interval is of one difference alone, not corrected for the number of arms; the table has no p-values."
)


def arm_notes(comparison: Comparison, metric: str = HEADLINE) -> list[str]:
    """Return notes on the table of arms: on its intervals, arms with more labels than samples, and calibrated arms.

    Args:
        comparison: what was measured.
        metric: name of the metric of the table; only greedy answers are scored over the whole vocabulary.

    Example:
        >>> arm_notes(comparison)[0] == EACH_ALONE
        True
    """
    notes = [EACH_ALONE] if len(comparison.arms) > 2 else []
    if more := [f"{arm.name} {arm.labels}" for arm in comparison.arms if arm.labels > comparison.samples]:
        notes.append(
            f"Shots count as labels too, so these arms see more than the {comparison.samples} samples: "
            f"{', '.join(more)}."
        )
    calibrated = [arm.name for arm in comparison.arms if "calibrat" in arm.name]
    if calibrated and metric.startswith("greedy_"):
        notes.append(
            f"A calibrated answer is always one of the choices ({', '.join(calibrated)}); every other arm may write "
            "anything, so part of such a gain is the form of the answer."
        )
    return notes


def missing_number_notes(comparison: Comparison) -> list[str]:
    """Describe for each arm which documents have no number; empty if all have one."""
    return [
        f"{comparison.id}, {arm.name}: {describe_missing_numbers(arm.without_number, len(comparison.keys))}"
        for arm in comparison.arms
        if arm.without_number
    ]
