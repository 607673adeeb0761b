"""What an error says: one line, with what was expected, what came and what to try."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tarot.errors import ShapeMismatch, TarotError, UnknownName

names = st.text(st.characters(categories=["L", "N"]), min_size=1)


@given(st.text(), st.text(), st.text())
def test_a_message_is_one_line_without_loose_ends(expected: str, got: str, hint: str) -> None:
    message = str(TarotError(expected, got, hint))
    assert len(message.splitlines()) == 1
    assert message == message.strip()
    assert "  " not in message


@given(names, st.sets(names))
def test_an_unknown_name_is_quoted_and_its_nearest_is_known(name: str, known: set[str]) -> None:
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
    elsewhere = copy.copy(error)  # by the protocol with which a process' workers send it
    assert (type(elsewhere), str(elsewhere)) == (type(error), message)
