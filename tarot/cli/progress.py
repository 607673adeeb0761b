"""Progress of the commands, in one style: what is being done, and how much of it is done.

A terminal shows a bar for the current step. Elsewhere each step is one line, printed when it begins.
"""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from tarot.cli.console import PlainConsole, err
from tarot.errors import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tarot.edit.adapter import Adapter
    from tarot.search.callbacks import Callback
    from tarot.search.loop import SearchResult
    from tarot.search.trials import Trial


class DescriptionColumn(TextColumn):
    """Description of a task in a progress bar, as plain text."""

    def __init__(self) -> None:
        super().__init__("{task.description}", markup=False)

    def render(self, task: Any) -> Text:
        """Return the description, with control characters escaped."""
        return Text(printable(task.description))


class StepProgress:
    """Show the steps of a long task, one at a time.

    Attributes:
        part: what the next steps belong to, such as an arm; stands before their names.
    """

    def __init__(self, console: PlainConsole = err) -> None:
        self._console = console
        self._bars = Progress(
            DescriptionColumn(), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
        )
        self._step: str | None = None
        self._bar: TaskID | None = None
        self.part = ""

    def __enter__(self) -> "StepProgress":
        """Start showing."""
        if self._console.is_terminal:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the last bar as it is."""
        if self._console.is_terminal:
            self._bars.stop()

    def __call__(self, step: str, done: int, total: int | None, note: str = "") -> None:
        """Show a step.

        Args:
            step: name of the step; a call with another name begins the next step.
            done: how much of it is done.
            total: how much there is; None if it is not known.
            note: what the bar says beside it; not printed elsewhere.
        """
        name = f"{self.part}: {step}" if self.part else step
        if name != self._step:
            self._step = name
            if not self._console.is_terminal:
                self.print(name)
            elif self._bar is not None:
                self._bars.remove_task(self._bar)
            self._bar = self._bars.add_task(name, total=total)
        if self._bar is not None:
            self._bars.update(self._bar, completed=done, total=total, description=f"{name}  {note}".rstrip())

    def begin_part(self, name: str, number: int, total: int) -> None:
        """Name the part that the next steps belong to: `edited, arm 3 of 7`."""
        self.part = f"{name}, arm {number} of {total}"

    def print(self, line: str) -> None:
        """Print a message above the bar."""
        self._console.print(line)


@contextmanager
def evaluation_progress() -> Iterator[StepProgress]:
    """Show the steps of a long task, including lm-eval's.

    Yields:
        A function to call with a step's name, how much of it is done, and how much there is to do.
    """
    from tarot.models.lm_eval_bars import bars_as_steps

    with StepProgress() as show, bars_as_steps(show):
        yield show


@contextmanager
def trial_progress(budget: int, search: str) -> "Iterator[Callback]":
    """Show the progress of a search: evaluations spent, best score, time left, and why it ended.

    Yields:
        A callback for `tune`.
    """
    from tarot.search.algorithms.registry import SEARCHES
    from tarot.search.callbacks import Callback  # imports torch

    step = f"searching, {budget} evaluations"
    with StepProgress() as show:

        class ShowProgress(Callback):
            """Update the bar."""

            def on_phase(self, phase: str) -> None:
                show(phase, 0, None)

            def on_search_begin(self, *_: object, resumed: "Sequence[Trial]", **__: object) -> None:
                if resumed:
                    show.print(f"resuming after {len(resumed)} trials")
                show(step, len(resumed) * SEARCHES[search].trial_cost, budget)

            def on_trial(self, trial: "Trial", result: "SearchResult") -> None:
                if trial.score != trial.score:
                    show.print(f"trial {trial.index}: no finite score, or refused; skipped")
                note = f"best {result.best.score:.4f}  identity {result.identity.score:.4f}"
                show(step, result.spent, budget, note)

            def on_search_end(self, adapter: "Adapter | None") -> None:
                if adapter is not None:
                    if not adapter.provenance["interrupted"]:
                        show(step, budget, budget)
                    show.print(why_ended(adapter.provenance, SEARCHES[search].trial_cost))

        yield ShowProgress()


def why_ended(provenance: Any, cost: int) -> str:
    """Return why a search ended, and after how many evaluations."""
    spent, budget = provenance["spent"], provenance["budget"]
    if provenance["interrupted"]:
        reason = "interrupted"
    elif spent + cost > budget:
        reason = "budget spent"
    else:
        # Only a policy gradient ends for want of a better score, and only the identity can have no gradient to follow.
        alone = "cross-validation found no benefit" if "cross_validation" in provenance else "no gradient to follow"
        unfitted = alone if provenance["trials"] == 1 else "no better score for many trials"
        reason = "training samples fitted" if provenance["fitted"] else unfitted
    return f"{reason} after {spent} of {budget} evaluations"


class CellProgress:
    """Progress of a grid: which cell of how many, what is being done in it, and messages above."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._show = StepProgress()
        self._done = 0

    def __enter__(self) -> "CellProgress":
        """Return the progress, which is shown from `start` on."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the bar as it is."""
        self._show.__exit__()

    def start(self, done: int) -> None:
        """Show the progress, with the number of cells that are in the file already."""
        if done:
            self.print(f"cells that are in the file already: {done}")
        self._done = done
        self._show.__enter__()

    def begin_phase(self, cell: str, phase: str) -> None:
        """Show what is being done in the cell that is measured now."""
        self._show(f"{cell}, cell {self._done + 1} of {self._total}: {phase}", self._done, self._total)

    def advance(self) -> None:
        """Count one more cell."""
        self._done += 1

    def print(self, line: str) -> None:
        """Print a message above the bar."""
        self._show.print(line)


def announce(command: str) -> None:
    """Print a first line before a command imports torch, transformers and lm-eval, which takes seconds.

    Call it after the checks that need none of them: a mistake of the user's ends in one line.
    """
    if "torch" not in sys.modules:
        err.print(f"{command}: importing libraries")


def announce_tasks(edits: "Iterable[Adapter]") -> None:
    """Print which tasks adapters name, before they are loaded: lm-eval may download their data sets."""
    names = dict.fromkeys(str(edit.provenance["task"]) for edit in edits if "task" in edit.provenance)
    if names:
        err.print(f"loading the task that the adapter names: {', '.join(names)}")


@contextmanager
def show_wait(step: str) -> Iterator[None]:
    """Show a step whose length is not known: a spinner at a terminal, one line elsewhere."""
    if not err.is_terminal:
        err.print(step)
    with err.status(Text(printable(step))):
        yield
