"""Markdown tables, and the notation of gains in them."""

from collections.abc import Iterable, Sequence

from tarot.evaluation.statistics.gains import Gain
from tarot.evaluation.statistics.seeds import MeanGain


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def signed(gain: Gain | MeanGain | None) -> str:
    """Format a gain with its 95% CI; None gives an empty text."""
    return f"{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]" if gain else ""
