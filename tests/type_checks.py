"""beartype for jaxtyping's hook: definitions of the same signature share one check.

A function inside another is defined at each call, and beartype takes a millisecond to write a check. What jaxtyping
passes are functions without a body or a closure, so the signature decides.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from types import CodeType
from typing import Any

from beartype import beartype


@dataclass(frozen=True)
class Definition:
    """A function, compared by name and signature."""

    function: Callable[..., Any] = field(compare=False)
    name: tuple[str, str]
    code: CodeType
    annotations: tuple[tuple[str, Any], ...]
    defaults: tuple[Any, ...]


@cache
def _check(definition: Definition) -> Callable[..., Any]:
    return beartype(definition.function)


def check_types(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check arguments and results at each call."""
    definition = Definition(
        function,
        (function.__module__, function.__qualname__),
        function.__code__,
        tuple(function.__annotations__.items()),
        (function.__defaults__, *(function.__kwdefaults__ or {}).items()),
    )
    try:
        return _check(definition)
    except TypeError:  # a default that cannot be hashed
        return beartype(function)
