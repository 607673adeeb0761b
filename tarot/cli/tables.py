"""Tables that the commands print."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from tarot.cli.console import out
from tarot.report.columns import aligned

if TYPE_CHECKING:
    from tarot.evaluation.results.comparison import Comparison
    from tarot.evaluation.results.reward_comparison import RewardComparison


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None) -> None:
    """Print a table that fits the terminal: columns too many stand above each other, and no word is cut."""
    if title:
        out.print(title, style="italic", highlight=False)
    for number, lines in enumerate(aligned([header, *rows], out.width)):
        out.print("\n".join(lines), style=None if number else "bold", highlight=False)
    out.print()


def print_command(comparison: "Comparison | RewardComparison") -> None:
    """Print the command that repeats a comparison, and what it does not repeat."""
    out.print(f"repeat it with: {comparison.command}", highlight=False)
    if comparison.not_repeated:
        out.print(f"which does not repeat all of this edit: {comparison.not_repeated}", highlight=False)
