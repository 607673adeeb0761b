"""What a reader of the table of arms must know, a sentence each."""

from tarot.evaluation.results import Comparison


def arm_notes(comparison: Comparison) -> list[str]:
    """Return notes on the arms of a comparison: which of them see more labelled documents than there are samples.

    Example:
        >>> arm_notes(comparison)
        []
    """
    more = [f"{arm.name} {arm.labels}" for arm in comparison.arms if arm.labels > comparison.samples]
    if not more:
        return []
    return [
        f"Shots count as labels too, so these arms see more than the {comparison.samples} samples: {', '.join(more)}."
    ]
