"""Strict JSON: dangerous values are refused, and a schema names the field that is wrong."""

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tarot._files.strict_json import DEEPEST, LARGEST_NUMBER, Count, Name, Number, parse_json, read_file, validate

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(-1e30, 1e30)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
)


@dataclass(frozen=True)
class Thing:
    """Schema of the tests."""

    name: Name
    numbers: tuple[Number, ...]
    count: Count = 0


@given(values)
def test_json_values_are_read_back(value: object) -> None:
    for ascii_only in (True, False):
        assert parse_json(json.dumps(value, ensure_ascii=ascii_only).encode()) == value
    assert parse_json(b"\xef\xbb\xbf" + json.dumps(value).encode()) == value


@given(st.binary())
def test_any_bytes_are_accepted_or_raise_a_value_error(content: bytes) -> None:
    try:
        parse_json(content)
    except ValueError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Expecting value"),
        (b"\xff", "can't decode byte"),
        ("{}".encode("utf-16"), "can't decode byte"),
        (b'{"a": {"b": 1, "b": 2}}', "the key 'b' twice in one object"),
        (b"1" + b"0" * 400, "an integer of 1329 bits"),
        (b"1" + b"0" * 5000, "limit"),
        (b"1e999", "the number inf, which is too large"),
        (b"-Infinity", "the number -inf, which is too large"),
        (b"[1e31]", "the number 1e\\+31, which is too large"),
        (rb'["\ud800"]', "half a surrogate pair"),
        (rb'{"\udfff": 1}', "half a surrogate pair"),
        (b"[" * 201 + b"]" * 201, "nested more than 200 deep"),
        (b"[" * 100_000, "nested more than 200 deep|maximum recursion"),
    ],
)
def test_dangerous_json_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_json(content)


def test_tolerated_json_is_accepted() -> None:
    assert parse_json(b"[" * DEEPEST + b"]" * DEEPEST)
    assert parse_json(b"[NaN, null]") == [None, None]
    assert parse_json(b"[Infinity, -1e999]", infinite=True) == [math.inf, -math.inf]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"name": "a"}, "numbers: Field required"),
        ({"name": 1, "numbers": []}, "name: Input should be a valid string, not 1"),
        ({"name": "a", "numbers": ["1"]}, "numbers.0: Input should be a valid number, not '1'"),
        ({"name": "a", "numbers": [True]}, "numbers.0: Input should be a valid number, not True"),
        ({"name": "a", "numbers": [None]}, "numbers.0: Input should be a valid number, not None"),
        ({"name": "a", "numbers": [math.nan]}, "numbers.0: Input should be less than or equal to"),
        ({"name": "a", "numbers": [2 * LARGEST_NUMBER]}, "numbers.0: Input should be less than or equal to"),
        ({"name": "a", "numbers": [], "count": True}, "count: Input should be a valid integer, not True"),
        ({"name": "a", "numbers": [], "count": 1.0}, "count: Input should be a valid integer, not 1.0"),
        ({"name": "a", "numbers": [], "count": -1}, "count: Input should be greater than or equal to 0, not -1"),
        ({"name": "a" * 5000, "numbers": []}, "name: String should have at most 4096 characters, not 'aaa"),
        ([], "the file: "),
    ],
)
def test_a_wrong_field_is_named(value: object, message: str) -> None:
    with pytest.raises(ValueError) as error:
        validate(Thing, value)
    assert str(error.value).startswith(message) and len(str(error.value)) < 250


def test_a_valid_value_is_converted() -> None:
    assert validate(Thing, {"name": "a", "numbers": [1, 0.5], "more": 1}) == Thing("a", (1.0, 0.5))


def test_only_regular_files_of_bounded_size_are_read(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"123")
    assert read_file(tmp_path / "small", 3) == b"123"
    with pytest.raises(OSError, match="more than 2 bytes"):
        read_file(tmp_path / "small", 2)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        read_file(tmp_path / "pipe")
    for missing in ("folder", "."):
        with pytest.raises(OSError):
            read_file(tmp_path / missing)
