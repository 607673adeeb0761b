"""Errors: one printable line with what is wrong and what to do, in a class that callers may catch."""

import copy
import pickle
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tarot.errors import (
    FileAccessError,
    InvalidValueError,
    MissingFileError,
    ShapeMismatch,
    TarotError,
    UnknownName,
    printable,
)

names = st.text(st.characters(categories=["L", "N"]), min_size=1)


@given(st.text(), st.text(), st.text())
def test_a_message_is_one_stripped_line(expected: str, got: str, hint: str) -> None:
    message = str(TarotError(expected, got, hint))
    assert len(message.splitlines()) == 1
    assert message == message.strip()
    assert "  " not in message


@given(st.text(st.characters()))
def test_printable_text_has_nothing_that_a_terminal_interprets_or_hides(text: str) -> None:
    shown = printable(text)
    assert not {unicodedata.category(char) for char in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert printable(shown) == shown
    if text.isprintable():
        assert shown == text
    message = str(TarotError(text, text, text))
    assert printable(message) == message and len(message) < 3500


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;owned\x07\x1b[2J", r"\x1b]0;owned\x07\x1b[2J"),
        ("\x9b2J", r"\x9b2J"),
        ("a\u202eb\u2066c", r"a\u202eb\u2066c"),
        ("a\u200bb\ufeff", r"a\u200bb\ufeff"),
        ("a\r\nb\u2028c", r"a\r\nb\u2028c"),
        ("\ud800", r"\ud800"),
        ("\U000e0041", r"\U000e0041"),
        ("naïve 色 \N{NO-BREAK SPACE}😀 [bold]", "naïve 色 \N{NO-BREAK SPACE}😀 [bold]"),
    ],
)
def test_characters_that_are_replaced(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(names, st.sets(names))
def test_an_unknown_name_is_quoted_and_its_nearest_suggested(name: str, known: set[str]) -> None:
    message = str(UnknownName("thing", name, known))
    assert message.startswith(f"expected a known thing, got {name!r}; ")
    if "did you mean" in message:
        assert any(message.endswith(f"did you mean {each!r}?") for each in known)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (TarotError("a bound above 0", "-1"), "expected a bound above 0, got -1"),
        (TarotError("a bound above 0", "-1", "try 0.785"), "expected a bound above 0, got -1; try 0.785"),
        (TarotError("one\nline", "two\r\n\tlines"), "expected one line, got two lines"),
        (
            UnknownName("search", "boo", ["random", "paper", "bo"]),
            "expected a known search, got 'boo'; did you mean 'bo'?",
        ),
        (
            UnknownName("search", "zzz", ["random", "paper", "bo"]),
            "expected a known search, got 'zzz'; known: bo, paper, random",
        ),
        (
            UnknownName("task", "zzz", (f"t{i:02}" for i in range(13))),
            "expected a known task, got 'zzz'; known: t00, t01, t02, t03, t04, t05, t06, t07, t08, t09, t10, t11, ...",
        ),
        (UnknownName("task", "zzz", []), "expected a known task, got 'zzz'; none is known here"),
        (
            ShapeMismatch("angles", (2, 3, 4), (2, 3)),
            "expected angles of shape (2, 3, 4), got shape (2, 3)",
        ),
        (
            ShapeMismatch("angles", (2, 3, 4), (2, 3), "one row a layer"),
            "expected angles of shape (2, 3, 4), got shape (2, 3); one row a layer",
        ),
    ],
)
def test_messages(error: TarotError, message: str) -> None:
    assert str(error) == message
    assert isinstance(error, TarotError)
    elsewhere = copy.copy(error)  # by the protocol that worker processes use
    assert (type(elsewhere), str(elsewhere)) == (type(error), message)


def test_the_parts_of_an_error() -> None:
    error = TarotError("a bound\nabove 0", "-1", "try\x1b 0.785")
    assert (error.expected, error.got, error.hint) == ("a bound above 0", "-1", r"try\x1b 0.785")
    assert TarotError("a bound", "-1").hint is None


def test_a_plain_sentence() -> None:
    error = TarotError("'x.json' is a file,\nnot a folder.")
    assert str(error) == "'x.json' is a file, not a folder."
    assert (error.expected, error.got, error.hint) == (None, None, None)
    assert str(TarotError("No folder.", hint="choose another")) == "No folder; choose another"


def test_a_long_part_is_cut_and_the_hint_stays() -> None:
    message = str(TarotError("a" * 5000, "b" * 5000, "try again"))
    assert len(message) < 2100 and message.endswith("...; try again")


@pytest.mark.parametrize(
    ("kind", "base"),
    [
        (InvalidValueError, ValueError),
        (FileAccessError, OSError),
        (MissingFileError, FileNotFoundError),
        (UnknownName, ValueError),
        (ShapeMismatch, ValueError),
    ],
)
def test_a_caller_may_catch_the_standard_class(kind: type[TarotError], base: type[Exception]) -> None:
    assert issubclass(kind, TarotError) and issubclass(kind, base)


@pytest.mark.parametrize(
    "error",
    [
        TarotError("a bound above 0", "-1", "try 0.785"),
        TarotError("A plain sentence."),
        FileAccessError("a file", "none", "choose another"),
        MissingFileError("a file", "none"),
        UnknownName("search", "boo", ["bo"]),
        ShapeMismatch("angles", (1,), (2,)),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_can_be_pickled(error: TarotError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error) and str(again) == str(error) and vars(again) == vars(error)
