"""Tables that the commands print."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from tarot.cli.console import out
from tarot.errors import printable
from tarot.report.columns import fold_columns, longest_word

if TYPE_CHECKING:
    from tarot.evaluation.results.comparison import Comparison
    from tarot.evaluation.results.reward_comparison import RewardComparison

PADDING = 3  # characters of a column beside its text


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None) -> None:
    """Print a table that fits the terminal: columns too many stand above each other, and no word is cut."""
    # A line break would add a row, and rich counts white space before a word as part of it.
    texts = [[" ".join(printable(text).split()) for text in row] for row in (header, *rows)]
    folded = fold_columns(texts, out.width - 1, PADDING, longest_word)
    is_folded = len(folded[0]) < len(texts[0])
    table = Table(title=title, title_justify="left", show_lines=is_folded)
    columns = list(zip(*folded, strict=True))
    for column, width in zip(columns, _widths(columns, out.width - 1), strict=True):
        table.add_column(column[0], width=width)
    for row in folded[1:]:
        table.add_row(*row)
    out.print(table)


def _widths(columns: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return the width of each column: its longest word, and what is left for those whose lines are longer."""
    widths = [max(map(longest_word, column)) for column in columns]
    lines = [max(len(line) for text in column for line in text.split("\n")) for column in columns]
    for _ in range(width - sum(each + PADDING for each in widths)):
        missing = [line - each for line, each in zip(lines, widths, strict=True)]
        if max(missing) > 0:
            widths[missing.index(max(missing))] += 1
    return widths


def print_command(comparison: "Comparison | RewardComparison") -> None:
    """Print the command that repeats a comparison, and what it does not repeat."""
    out.print(f"repeat it with: {comparison.command}", soft_wrap=True, highlight=False, markup=False)
    if comparison.not_repeated:
        out.print(f"which does not repeat all of this edit: {comparison.not_repeated}", soft_wrap=True, highlight=False)
