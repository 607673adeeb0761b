"""Consoles of the command line: text from files reaches the terminal as text, never as control sequences or markup."""

import logging
import warnings
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.text import Text

from tarot.errors import printable


class PlainConsole(Console):
    """Print strings as they are: no markup, no emoji codes, control characters escaped.

    This includes strings in tables, in the status line and in the progress bars of `tarot.cli.progress`. rich's own
    colours are not affected. Lines of text are not wrapped: a path or a command that is cut in two cannot be copied.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print; tables and other renderables are fitted to the width, text is not."""
        if all(isinstance(each, str) for each in objects):
            options.setdefault("soft_wrap", True)
        super().print(*objects, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Render one string, line by line."""
        return super().render_str(_plain_lines(text), **options)


class _PlainRecord(logging.LogRecord):
    """Log record of any library, without control characters in its message."""

    def getMessage(self) -> str:
        """Return the message, with control characters escaped."""
        return _plain_lines(super().getMessage())


def escape_messages() -> None:
    """Make the log records and warnings of every library in this process escape control characters."""
    logging.setLogRecordFactory(_PlainRecord)
    warnings.formatwarning = _format_warning


def _format_warning(*args: Any, _format: Callable[..., str] = warnings.formatwarning, **options: Any) -> str:
    return _plain_lines(_format(*args, **options))


def _plain_lines(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))


out = PlainConsole()
err = PlainConsole(stderr=True)
