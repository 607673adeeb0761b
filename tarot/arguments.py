"""Checks of arguments, one for each kind of value, and registries, which know their names."""

import math
import os
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from pathlib import Path
from reprlib import repr as short
from typing import TypeVar

from tarot.errors import InvalidValueError, TarotError, UnknownName

_Value = TypeVar("_Value")


class Registry(dict[str, _Value]):
    """Values by name, such as the searches; looking up another name raises UnknownName.

    Args:
        kind: what the names name, for the error.
        values: by name.

    Example:
        >>> Registry("colour", {"red": 1})["rod"]
        Traceback (most recent call last):
        ...
        tarot.errors.UnknownName: expected a known colour, got 'rod'; did you mean 'red'?
    """

    def __init__(self, kind: str, values: Mapping[str, _Value]) -> None:
        super().__init__(values)
        self._kind = kind

    def __getitem__(self, name: str) -> _Value:
        if require_text(self._kind, name) not in self:
            raise UnknownName(self._kind, name, self)
        return super().__getitem__(name)


def require_text(name: str, value: object) -> str:
    """Return a string; InvalidValueError for anything else."""
    if not isinstance(value, str):
        raise InvalidValueError(f"{name} must be a string, not {short(value)}.")
    return value


def require_flag(name: str, value: object) -> bool:
    """Return True or False; InvalidValueError for anything else."""
    if not isinstance(value, bool):
        raise InvalidValueError(f"{name} must be True or False, not {short(value)}.")
    return value


def require_path(name: str, value: object) -> Path | None:
    """Return the path of a file or folder, `~` expanded, or None for None; InvalidValueError for anything else.

    Example:
        >>> require_path("output_dir", "my-edit").name
        'my-edit'
    """
    if value is None:
        return None
    if value == "" or not isinstance(value, str | os.PathLike):
        raise InvalidValueError(f"{name} must be a path, not {short(value)}.")
    return Path(value).expanduser()


def require_function(name: str, value: object) -> None:
    """Raise InvalidValueError for anything but a function or another callable."""
    if not callable(value):
        raise InvalidValueError(f"{name} must be a function, not {short(value)}.")


def require_mapping(name: str, value: object) -> None:
    """Raise InvalidValueError for anything but a dictionary, another mapping, or None."""
    if not isinstance(value, Mapping | None):
        raise InvalidValueError(f"{name} must be a dictionary, not {short(value)}.")


def require_whole_number(name: str, value: object, least: int = 0, note: str = "") -> int:
    """Return an integer, NumPy's included; InvalidValueError for anything else, or for one below `least`.

    Args:
        name: of the argument.
        value: the argument.
        least: the smallest that is allowed.
        note: follows `least` in the error.

    Example:
        >>> require_whole_number("budget", 6, least=1)
        6
    """
    number = as_integer(value)
    if number is None or number < least:
        raise InvalidValueError(f"{name} must be a whole number of at least {least}{note}, not {short(value)}.")
    return number


def parse_whole_number(text: str, least: int = 0) -> int:
    """Return the whole number that an option states; TarotError for anything but digits, or a number below `least`."""
    if not (text.strip().isascii() and text.strip().isdigit() and int(text) >= least):
        raise TarotError(f"a whole number from {least}", repr(text))
    return int(text)


def require_number(name: str, value: object, allowed: str, is_allowed: Callable[[float], bool]) -> float:
    """Return a number as a float; InvalidValueError for anything else, or unless it is allowed.

    Args:
        name: of the argument.
        value: the argument.
        allowed: what is allowed, for the error.
        is_allowed: whether a number is.

    Example:
        >>> require_number("share", 1, "from 0 to 1", lambda number: 0 <= number <= 1)
        1.0
    """
    number = math.nan if isinstance(value, bool) or not isinstance(value, Real) else float(value)
    if not is_allowed(number):
        raise InvalidValueError(f"{name} must be {allowed}, not {short(value)}.")
    return number


def require_strength(strength: object) -> float:
    """Return a factor of the angles as a float; InvalidValueError unless it is from 0 to 1."""
    return require_number("strength", strength, "from 0 (the base model) to 1 (the adapter)", lambda x: 0 <= x <= 1)


def require_seed(seed: object) -> int:
    """Return a seed that torch accepts; InvalidValueError for anything but an integer of at most 63 bits."""
    value = as_integer(seed)
    if value is None or abs(value) >= 2**63:
        raise InvalidValueError(f"seed must be an integer of at most 63 bits, not {short(seed)}.")
    return value


def require_names(name: str, value: str | Iterable[str]) -> list[str]:
    """Return names as a list; a single string is one name.

    Raises:
        InvalidValueError: anything else than names.

    Example:
        >>> require_names("baselines", "lora"), require_names("baselines", ["lora", "caa"])
        (['lora'], ['lora', 'caa'])
    """
    listed = [value] if isinstance(value, str) else list(value) if isinstance(value, Iterable) else [value]
    if not all(isinstance(each, str) for each in listed):
        raise InvalidValueError(f"{name} must be a name or a list of names, not {short(value)}.")
    return listed


def as_integer(value: object) -> int | None:
    """Return the value of an integer, NumPy's included; None for anything else, booleans included."""
    if isinstance(value, bool):
        return None
    return int(value) if isinstance(value, Integral) else None
