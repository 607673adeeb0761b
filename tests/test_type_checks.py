"""Checks of annotations: one for all definitions of a signature, and as strict as one for each."""

from collections.abc import Callable
from typing import Any

import torch
from beartype import beartype
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Float, TypeCheckError, jaxtyped
from torch import Tensor
from type_checks import check_types

ANNOTATIONS = [int, float, str, int | None, list[int], dict[str, float], Float[Tensor, "n"], Float[Tensor, "n n"]]
VALUES = [1, True, 1.5, "a", None, [1], ["a"], {"a": 1.0}, {1: 1}, torch.zeros(2), torch.zeros(2, 2), torch.zeros(1, 2)]


def define(annotation: Any, result: Any, default: Any) -> Callable[..., Any]:
    """Define a function anew, as a function inside another is defined at each call."""

    def inner(value: annotation, other: int = default) -> result:
        return value

    return inner


def outcome(function: Callable[..., Any], value: object) -> str:
    try:
        function(value)
    except TypeCheckError as error:
        return str(error).splitlines()[0]
    return "accepted"


@given(st.lists(st.tuples(*map(st.sampled_from, (ANNOTATIONS, ANNOTATIONS, VALUES))), min_size=1, max_size=4))
def test_shared_checks_decide_as_beartype_does(definitions: list[tuple[Any, Any, Any]]) -> None:
    for annotation, result, value in definitions:
        function = define(annotation, result, 0)
        shared, own = (jaxtyped(function, typechecker=checker) for checker in (check_types, beartype))
        assert outcome(shared, value) == outcome(own, value)


def test_definitions_of_one_signature_share_a_check() -> None:
    first, second, other = (define(annotation, int, 0) for annotation in (int, int, str))
    assert check_types(first) is check_types(second) is not check_types(other)
    assert check_types(define(int, int, [])) is not check_types(define(int, int, []))  # cannot be compared
