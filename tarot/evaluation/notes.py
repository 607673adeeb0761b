"""What a reader of a comparison must know, a sentence each."""

from tarot.errors import describe_missing_numbers
from tarot.evaluation.results import Comparison

EACH_ALONE = (
    "Each 95% interval is of one difference alone, not corrected for the number of arms; the table has no p-values."
)


def arm_notes(comparison: Comparison) -> list[str]:
    """Return notes on the table of arms: on its intervals, and on arms with more labels than samples.

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
    return notes


def missing_number_notes(comparison: Comparison) -> list[str]:
    """Describe for each arm which documents have no number; empty if all have one."""
    return [
        f"{comparison.id}, {arm.name}: {describe_missing_numbers(arm.without_number, len(comparison.keys))}"
        for arm in comparison.arms
        if arm.without_number
    ]
