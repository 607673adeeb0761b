"""Tables that the commands print."""

from typing import TYPE_CHECKING

from rich.table import Table

from tarot.cli.console import out
from tarot.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tarot.evaluation.results import Comparison
    from tarot.evaluation.reward_results import RewardComparison


def print_table(header: "Sequence[str]", rows: "Iterable[Sequence[str]]", title: str | None = None) -> None:
    table = Table(*header, title=title, title_justify="left")
    for row in rows:
        table.add_row(*map(printable, row))  # a line break would add a row
    out.print(table)


def print_again(measured: "Comparison | RewardComparison") -> None:
    out.print(f"again: {measured.command}", soft_wrap=True, highlight=False, markup=False)
    if measured.not_repeated:
        out.print(f"which does not repeat all of this edit: {measured.not_repeated}", soft_wrap=True, highlight=False)
