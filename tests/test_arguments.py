"""What users pass: each check returns what it accepts, and refuses the rest in one line that names the argument."""

import math
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tarot.arguments import (
    Registry,
    parse_whole_number,
    require_flag,
    require_names,
    require_number,
    require_seed,
    require_text,
    require_whole_number,
)
from tarot.errors import InvalidValueError, TarotError, UnknownName, import_package, require_package

ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.text()), st.lists(st.integers())
)
SHARE = ("from 0 to 1", lambda number: 0 <= number <= 1)
CHECKS: dict[Callable[[object], object], Callable[[object], bool]] = {
    lambda value: require_text("it", value): lambda value: isinstance(value, str),
    lambda value: require_flag("it", value): lambda value: isinstance(value, bool),
    lambda value: require_whole_number("it", value, 3): lambda value: type(value) is int and value >= 3,
    lambda value: require_number("it", value, *SHARE): lambda value: type(value) in (int, float) and 0 <= value <= 1,
    require_seed: lambda value: type(value) is int and abs(value) < 2**63,
}


@given(st.sampled_from(list(CHECKS)), ANYTHING)
def test_a_value_is_returned_or_refused_by_name(check: Callable[[object], object], value: object) -> None:
    if CHECKS[check](value):
        assert check(value) == value
    else:
        with pytest.raises(InvalidValueError, match=r"^(it|seed) must be ") as caught:
            check(value)
        assert "\n" not in str(caught.value)


def test_numbers_of_numpy_become_pythons() -> None:
    assert type(require_whole_number("it", np.int64(4))) is type(require_seed(np.int32(4))) is int
    assert type(require_number("it", np.float32(0.5), *SHARE)) is float
    with pytest.raises(InvalidValueError):
        require_number("it", math.nan, *SHARE)


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_an_option_states_a_whole_number(number: int, least: int) -> None:
    if number >= least:
        assert parse_whole_number(str(number), least) == number
    for wrong in (str(least - 1), "", "x", "1.0", "\u0663"):
        with pytest.raises(TarotError, match=f"from {least}"):
            parse_whole_number(wrong, least)


def test_names_are_one_or_several() -> None:
    assert require_names("it", "lora") == ["lora"]
    assert require_names("it", iter(["lora", "caa"])) == ["lora", "caa"]
    wrong: Any
    for wrong in (3, [3], None):
        with pytest.raises(InvalidValueError, match="it"):
            require_names("it", wrong)


@given(st.dictionaries(st.text(), st.integers()), st.text())
def test_a_registry_knows_its_names(values: dict[str, int], name: str) -> None:
    registry = Registry("colour", values)
    for each in (registry, MappingProxyType(registry)):
        assert dict(each) == values and each.get(name) == values.get(name)
        if name in values:
            assert each[name] == values[name]
        else:
            with pytest.raises(UnknownName, match="colour"):
                each[name]


def test_a_missing_package_is_named_with_its_extra() -> None:
    require_package("json", "It", "ray")
    assert import_package("json", "It", "ray").dumps(1) == "1"
    for find in (require_package, import_package):
        with pytest.raises(TarotError, match=r"^It needs .*nosuch.*\[ray\]"):
            find("nosuch", "It", "ray")
