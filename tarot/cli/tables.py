"""Tables that the commands print."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from tarot.cli.console import out
from tarot.errors import printable

if TYPE_CHECKING:
    from tarot.evaluation.results import Comparison
    from tarot.evaluation.reward_results import RewardComparison


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None) -> None:
    """Print a table."""
    table = Table(*header, title=title, title_justify="left")
    for row in rows:
        table.add_row(*map(printable, row))  # a line break would add a row
    out.print(table)


def print_command(comparison: "Comparison | RewardComparison") -> None:
    """Print the command that repeats a comparison, and what it does not repeat."""
    out.print(f"repeat it with: {comparison.command}", soft_wrap=True, highlight=False, markup=False)
    if comparison.not_repeated:
        out.print(f"which does not repeat all of this edit: {comparison.not_repeated}", soft_wrap=True, highlight=False)
