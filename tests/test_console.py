"""Consoles print strings as they are, with control characters escaped."""

import io
import logging
import warnings
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.progress import Progress
from rich.table import Table

from tarot.cli.console import PlainConsole, escape_messages
from tarot.cli.progress import DescriptionColumn
from tarot.errors import printable
from tarot.report.columns import aligned

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b1m\u202e\r[bold]x[/nothing] :warning:"
SHOWN = r"\x1b]0;owned\x07\x1b[2J\x9b1m\u202e\r[bold]x[/nothing] :warning:"


def printed(*things: object, **options: object) -> str:
    """Return what a console prints."""
    file = io.StringIO()
    PlainConsole(file=file, width=500, **options).print(*things)
    return file.getvalue()


@given(st.text())
def test_a_string_has_no_control_characters(text: str) -> None:
    shown = printed(text)
    assert all(printable(line) == line for line in shown.split("\n"))


def test_markup_and_emoji_codes_are_text() -> None:
    table = Table("name", title=HOSTILE)
    table.add_row(HOSTILE)
    assert printed(HOSTILE) == f"{SHOWN}\n"
    assert printed(table).count(SHOWN) == 2


def test_colours_of_rich_itself_stay() -> None:
    assert "\x1b[" in printed("1.5", force_terminal=True, color_system="standard")


def test_a_progress_bar_has_names_as_text() -> None:
    file = io.StringIO()
    with Progress(DescriptionColumn(), console=PlainConsole(file=file, width=200), auto_refresh=False) as progress:
        progress.add_task(HOSTILE)
    assert SHOWN in file.getvalue() and "\x1b" not in file.getvalue()


@pytest.fixture
def plain_records() -> Iterator[None]:
    before, formatter = logging.getLogRecordFactory(), warnings.formatwarning
    escape_messages()
    yield
    logging.setLogRecordFactory(before)
    warnings.formatwarning = formatter


@pytest.mark.usefixtures("plain_records")
def test_log_records_of_any_library(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("another.library").warning("loaded %s\nand more", HOSTILE)
    assert caplog.messages == [f"loaded {SHOWN}\nand more"]


@pytest.mark.usefixtures("plain_records")
def test_warnings_of_any_library() -> None:
    """Python prints what this function returns."""
    text = warnings.formatwarning(f"loaded {HOSTILE}\nand more", UserWarning, "library.py", 7, line="warn(text)")
    assert text == f"library.py:7: UserWarning: loaded {SHOWN}\nand more\n  warn(text)\n"


def test_rows_of_a_plain_table() -> None:
    assert aligned([["a", "b"], [HOSTILE, "c\nd"]]) == [[f"a{' ' * (len(SHOWN) - 1)}  b"], [f"{SHOWN}  c\\nd"]]
