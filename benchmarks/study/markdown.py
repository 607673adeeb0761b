"""Markdown: tables, gains, and paragraphs of one width."""

import re
from collections.abc import Iterable, Sequence
from textwrap import wrap

from tarot.evaluation.statistics.gains import Gain
from tarot.evaluation.statistics.seeds import MeanGain


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def signed(gain: Gain | MeanGain | None) -> str:
    """Format a gain with its 95% CI; None gives an empty text."""
    return f"{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]" if gain else ""


def reflow(text: str) -> str:
    """Wrap paragraphs and list items at 120 characters; headings, tables and pictures stay as they are."""
    return "\n\n".join(map(_reflow_block, text.strip().split("\n\n"))) + "\n"


def _reflow_block(block: str) -> str:
    if block.lstrip().startswith(("#", "|", "!")):
        return block
    lines = []
    for item in re.split(r"\n(?=- |\d+\. )", block):
        marker = re.match(r"- |\d+\. |", item)
        indent = " " * len(marker[0]) if marker else ""
        lines += wrap(
            " ".join(item.split()), 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        )
    return "\n".join(lines)
