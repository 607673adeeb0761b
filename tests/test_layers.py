"""Selection of layers: fractions, lists, and what a command line accepts."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tarot.edit.layers import format_layers, parse_layers, select_layers
from tarot.errors import InvalidValueError


@given(st.floats(0, 1, exclude_min=True), st.integers(1, 200))
def test_a_fraction_selects_the_first_layers(fraction, n):
    selected = select_layers(fraction, n)
    assert selected == tuple(range(len(selected)))
    assert 1 <= len(selected) <= n
    assert abs(len(selected) - n * fraction) <= 0.5 + 1e-9 or len(selected) == 1


def test_halves_are_rounded_up():
    assert [len(select_layers(0.5, n)) for n in (1, 2, 3, 5, 30)] == [1, 1, 2, 3, 15]
    assert select_layers(1.0, 4) == (0, 1, 2, 3) == select_layers(-1.0, 4)


@given(st.integers(1, 99), st.floats(1e-3, 1.0))
def test_a_negative_fraction_counts_from_the_last(n, fraction):
    assert select_layers(-fraction, n) == tuple(n - 1 - layer for layer in reversed(select_layers(fraction, n)))


@given(st.lists(st.integers(0, 9), min_size=1))
def test_a_list_is_sorted_without_duplicates(layers):
    assert select_layers(layers, 10) == tuple(sorted(set(layers))) == select_layers(iter(layers), 10)


@given(st.floats(0, 1, exclude_min=True) | st.lists(st.integers(0, 99999), min_size=1).map(tuple))
def test_formatted_layers_are_parsed_to_the_same(layers):
    assert parse_layers(format_layers(layers)) == layers
    assert isinstance(layers, tuple) or parse_layers(format_layers(-layers)) == -layers


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)), min_size=1))
def test_ranges_and_numbers_are_parsed(parts):
    alone = len(parts) == 1  # a bare integer could mean either
    text = ",".join(f"{first}-{first + more}" if more or alone else str(first) for first, more in parts)
    assert parse_layers(text) == tuple(layer for first, more in parts for layer in range(first, first + more + 1))


def test_parsed_examples():
    assert parse_layers("0.5") == 0.5 and parse_layers(" 1.0 ") == 1.0 and parse_layers(".25") == 0.25
    assert parse_layers("-0.5") == -0.5
    assert parse_layers("4-11") == tuple(range(4, 12))
    assert parse_layers("0, 3,5") == (0, 3, 5)


@pytest.mark.parametrize("text", ["1", " 0 ", "12"])
def test_a_bare_integer_is_ambiguous(text):
    with pytest.raises(InvalidValueError) as error:
        parse_layers(text)
    hint = f"{int(text)}-{int(text)} is one layer, 1.0 is all"
    assert error.value.hint == hint and repr(text) in str(error.value)
    assert parse_layers(hint.split()[0]) == (int(text),)


@pytest.mark.parametrize("text", ["", "half", "5-3", "-1", "0,,2", "1e-1", "0.5,3", "1-2-3", "nan"])
def test_other_texts_are_refused(text):
    with pytest.raises(InvalidValueError) as error:
        parse_layers(text)
    assert error.value.got == repr(text)


@pytest.mark.parametrize(
    ("spec", "got"),
    [
        (0.0, "0.0"),
        (-1.5, "-1.5"),
        (1.5, "1.5"),
        (math.nan, "nan"),
        (2, "2"),
        ([], "none"),
        ([0, 4, -1, 9], "-1,4,9"),
    ],
)
def test_other_selections_are_refused(spec, got):
    with pytest.raises(InvalidValueError) as error:
        select_layers(spec, 4)
    assert error.value.got == got
