"""Progress bars of the commands."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from tarot.cli.console import PlainConsole, err
from tarot.errors import printable

if TYPE_CHECKING:
    from tarot.search import SearchResult, Trial
    from tarot.search.callbacks import Callback


class DescriptionColumn(TextColumn):
    """Description of a task in a progress bar, as plain text."""

    def __init__(self) -> None:
        super().__init__("{task.description}", markup=False)

    def render(self, task: Any) -> Text:
        """Return the description, with control characters escaped."""
        return Text(printable(task.description))


@contextmanager
def trial_progress(budget: int, cost: int) -> "Iterator[Callback]":
    """Show the progress of a search: evaluations spent, best score, time left.

    Args:
        budget: Evaluations of the whole search.
        cost: Evaluations that one trial counts for.

    Yields:
        A callback for `tune`.
    """
    from tarot.search.callbacks import Callback  # imports torch

    columns = (DescriptionColumn(), TimeRemainingColumn())
    with Progress(
        TextColumn("evaluation"), MofNCompleteColumn(), BarColumn(), TaskProgressColumn(), *columns, console=err
    ) as progress:
        bar = progress.add_task("", total=budget)

        class ShowProgress(Callback):
            """Update the bar."""

            def on_search_begin(self, *_: object, resumed: "Sequence[Trial]", **__: object) -> None:
                if resumed:
                    progress.console.print(f"resuming after {len(resumed)} trials")
                    progress.update(bar, completed=len(resumed) * cost)

            def on_trial(self, trial: "Trial", result: "SearchResult") -> None:
                if trial.score != trial.score:
                    progress.console.print(f"trial {trial.index}: no finite score, or refused; skipped")
                description = f"best {result.best.score:.4f}  identity {result.identity.score:.4f}"
                progress.update(bar, completed=result.spent, description=description)

        yield ShowProgress()


@contextmanager
def step_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Show one bar for each step of a longer work.

    Yields:
        A function to call with a step's name, how much of it is done, and how much there is to do.
    """
    columns = (DescriptionColumn(), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn())
    bars: dict[str, TaskID] = {}
    with Progress(*columns, console=err) as progress:

        def show(step: str, done: int, total: int) -> None:
            if step not in bars:
                bars[step] = progress.add_task(step)
            progress.update(bars[step], completed=done, total=total)

        yield show


class CellProgress:
    """Progress bar of a grid, by cells, with messages above it."""

    def __init__(self, total: int) -> None:
        # Cells run with stderr redirected; a console of its own keeps writing to the real one.
        console = PlainConsole(file=sys.stderr)
        self.progress = Progress(
            TextColumn("cells"), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn(), console=console
        )
        self.bar = self.progress.add_task("", total=total)

    def __enter__(self) -> "CellProgress":
        """Return the bar, which is shown from `start` on."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the bar as it is."""
        self.progress.stop()

    def start(self, done: int) -> None:
        """Show the bar, with the number of cells that are in the file already."""
        if done:
            self.print(f"cells that are in the file already: {done}")
        self.progress.start()
        self.progress.update(self.bar, completed=done)

    def advance(self) -> None:
        """Count one more cell."""
        self.progress.advance(self.bar)

    def print(self, line: str) -> None:
        """Print a message above the bar."""
        self.progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
