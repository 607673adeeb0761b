"""Progress bars of the commands."""

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from tarot.cli.console import DescriptionColumn, PlainConsole, err

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tarot.search import SearchResult, Trial


@contextmanager
def trial_progress(
    budget: int, cost: int
) -> "Iterator[tuple[Callable[[int], None], Callable[[Trial, SearchResult], None]]]":
    """Progress of a search: evaluations spent, `cost` a trial, best, time left. -> what to call at its start, and on a
    trial."""
    columns = (DescriptionColumn(), TimeRemainingColumn())
    with Progress(
        TextColumn("evaluation"), MofNCompleteColumn(), BarColumn(), TaskProgressColumn(), *columns, console=err
    ) as progress:
        bar = progress.add_task("", total=budget)

        def start(resumed: int) -> None:
            if resumed:
                progress.console.print(f"resuming after {resumed} trials")
                progress.update(bar, completed=resumed * cost)

        def advance(trial: "Trial", result: "SearchResult") -> None:
            if trial.score != trial.score:
                progress.console.print(f"trial {trial.index}: no finite score, or refused; skipped")
            description = f"best {result.best.score:.4f}  identity {result.identity.score:.4f}"
            progress.update(bar, completed=result.spent, description=description)

        yield start, advance


@contextmanager
def step_progress() -> "Iterator[Callable[[str, int, int], None]]":
    """Progress of work in several parts: -> what to call with what is being done, how much of it, and of how much."""
    columns = (DescriptionColumn(), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn())
    bars: dict[str, TaskID] = {}
    with Progress(*columns, console=err) as progress:

        def show(what: str, done: int, total: int) -> None:
            if what not in bars:
                bars[what] = progress.add_task(what)
            progress.update(bars[what], completed=done, total=total)

        yield show


class CellProgress:
    """Progress bar of a grid, by cells."""

    def __init__(self, total: int) -> None:
        # A console of its own: what cells print is caught while they are measured, and this is not to be.
        console = PlainConsole(file=sys.stderr)
        self.progress = Progress(
            TextColumn("cells"), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn(), console=console
        )
        self.bar = self.progress.add_task("", total=total)

    def __enter__(self) -> "CellProgress":
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def start(self, done: int) -> None:
        if done:
            self.say(f"cells that are there already: {done}")
        self.progress.start()
        self.progress.update(self.bar, completed=done)

    def advance(self) -> None:
        self.progress.advance(self.bar)

    def say(self, words: str) -> None:
        self.progress.console.print(words, markup=False, highlight=False, soft_wrap=True)
