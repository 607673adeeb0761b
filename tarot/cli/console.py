"""Consoles of the command line: text from files reaches the terminal as text, never as control sequences or markup."""

import logging
from typing import Any

from rich.console import Console
from rich.progress import TextColumn
from rich.text import Text

from tarot.errors import printable


class PlainConsole(Console):
    """rich's console that prints strings as they are: no markup, no emoji codes, control characters escaped.

    Strings in tables, in the progress bars of this module and in the status line count too. The colours that rich adds
    are not affected.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Render one string, line by line."""
        return super().render_str("\n".join(map(printable, text.split("\n"))), **options)


class DescriptionColumn(TextColumn):
    """Description of a task in a progress bar, as plain text."""

    def __init__(self) -> None:
        super().__init__("{task.description}", markup=False)

    def render(self, task: Any) -> Text:
        """Render the description."""
        return Text(printable(task.description))


class _PlainRecord(logging.LogRecord):
    """Log record whose message has no control characters, whichever library logs it."""

    def getMessage(self) -> str:
        return "\n".join(map(printable, super().getMessage().split("\n")))


def escape_log_records() -> None:
    """Have every log record of this process escape control characters in its message."""
    logging.setLogRecordFactory(_PlainRecord)


out = PlainConsole()
err = PlainConsole(stderr=True)
