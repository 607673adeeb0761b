"""What each arm of a comparison costs, as rows of text."""

from tarot.evaluation.results import Comparison
from tarot.report.table import NONE

COST_HEADER = ("arm", "prepare s", "answer s", "of base", "peak MiB", "stored B")


def cost_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """Return one row an arm, in the order of COST_HEADER; it fits a terminal of 80 columns.

    "of base" divides the seconds of the answers by those of the base.

    Example:
        >>> cost_rows(comparison)[0][0] == comparison.arms[0].name
        True
    """
    base = comparison.base.seconds
    return [
        (
            arm.name,
            f"{arm.preparation_seconds:.1f}" if arm.preparation_seconds else NONE,
            f"{arm.seconds:.1f}",
            f"{arm.seconds / base:.2f}" if base else NONE,
            f"{arm.peak_memory / 2**20:,.0f}" if arm.peak_memory else NONE,
            f"{arm.stored_bytes:,}" if arm.stored_bytes else NONE,
        )
        for arm in comparison.arms
    ]
