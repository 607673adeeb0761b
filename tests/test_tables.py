"""Tables of the terminal: they fit it, by columns above each other, and no word is cut."""

import pytest
from fabricated import COMPARISONS
from hypothesis import given
from hypothesis import strategies as st

from tarot.cli import tables
from tarot.cli.console import PlainConsole
from tarot.cli.tables import print_table
from tarot.report.columns import aligned
from tarot.report.table import summary_rows

WORDS = st.text("abcdef/-. ", min_size=1, max_size=30)


@st.composite
def cells(draw: st.DrawFn) -> list[list[str]]:
    width = draw(st.integers(1, 12))
    return draw(st.lists(st.lists(WORDS, min_size=width, max_size=width), min_size=2, max_size=4))


@given(cells())
def test_a_printed_table_fits_and_cuts_no_word(rows: list[list[str]]) -> None:
    console = PlainConsole(width=80, record=True, file=None)
    with pytest.MonkeyPatch.context() as patch, console.capture() as captured:
        patch.setattr(tables, "out", console)
        print_table(rows[0], rows[1:])
    text = captured.get()
    assert all(len(line) <= 80 for line in text.splitlines())
    shown = text.split()
    assert all(word in shown for row in rows for cell in row for word in cell.split())


def test_a_wide_table_is_folded() -> None:
    header = [f"column-{number}" for number in range(11)]
    (first, second), _ = aligned([header, header], 80)
    assert first.split() == header[::2] and second.split() == header[1::2]
    assert aligned([header, header], 200)[0] == ["  ".join(header)]


@given(cells(), st.integers(20, 120))
def test_aligned_rows_keep_every_cell_and_fit_if_they_can(rows: list[list[str]], width: int) -> None:
    shown = aligned(rows, width)
    assert len(shown) == len(rows)
    for row, lines in zip(rows, shown, strict=True):
        words = " ".join(row).split()
        assert sorted(words) == sorted(" ".join(lines).split())
    longest = max(len(text) for row in rows for text in row)
    assert max(len(line) for lines in shown for line in lines) <= max(width, longest)


def test_the_summary_of_a_run_fits_80_columns() -> None:
    shown = aligned([summary_rows(COMPARISONS)[0], *summary_rows(COMPARISONS)[1]])
    assert max(len(line) for lines in shown for line in lines) <= 80
    wide = aligned([summary_rows(COMPARISONS)[0], *summary_rows(COMPARISONS)[1]], 300)
    assert {len(lines) for lines in wide} == {1}


def test_lines_of_text_are_not_wrapped(capsys: pytest.CaptureFixture[str]) -> None:
    path = "a/very/long/path/" * 10
    PlainConsole(width=80).print(f"adapter in {path}")
    assert capsys.readouterr().out == f"adapter in {path}\n"
