"""Selection of layers: a fraction of them or a list."""

import math
import re
from collections.abc import Iterable
from decimal import Decimal

from tarot.errors import InvalidValueError


def parse_layers(text: str) -> float | tuple[int, ...]:
    """Parse a command line's selection of layers.

    Args:
        text: `0.5` for the first half, `-0.5` for the last half, `4-11` for layers 4 to 11, `0,3,5` for a list.

    Returns:
        A fraction or the indices, as `select_layers` takes them.

    Raises:
        InvalidValueError: the text is something else, or a bare integer, which could be a layer or a fraction.

    Example:
        >>> parse_layers("0.5"), parse_layers("4-6,9")
        (0.5, (4, 5, 6, 9))
    """
    if re.fullmatch(r"\s*\d+\s*", text):
        hint = f"{text.strip()}-{text.strip()} is one layer, 1.0 is all"
        raise InvalidValueError("a fraction of the layers or a list of them", repr(text), hint)
    if re.fullmatch(r"-?(\d*\.\d+|\d+\.)", text.strip()):
        return float(text)
    layers: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,5})\s*(?:-\s*(\d{1,5})\s*)?", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            raise InvalidValueError("layers as '0.5', '-0.5', '4-11' or '0,3,5'", repr(text))
        layers.extend(range(first, last + 1))
    return tuple(layers)


def format_layers(layers: float | tuple[int, ...]) -> str:
    """Return the text that `parse_layers` reads as this fraction or these indices.

    Example:
        >>> format_layers(0.5), format_layers((0, 3)), format_layers((2, 3)), format_layers((3,))
        ('0.5', '0,3', '2-3', '3-3')
    """
    if isinstance(layers, tuple):
        is_range = layers == tuple(range(layers[0], layers[-1] + 1))
        return f"{layers[0]}-{layers[-1]}" if is_range else ",".join(map(str, layers))
    return f"{Decimal(repr(layers)):f}"  # no exponent


def select_layers(spec: int | float | Iterable[int], n_layers: int) -> tuple[int, ...]:
    """Return the selected layers in order.

    Args:
        spec: indices, or a fraction of the layers: the first ones, or the last ones if it is negative. The number is
            rounded, halves up, and at least 1.
        n_layers: number of layers of the model.

    Raises:
        InvalidValueError: the fraction is outside [-1, 0) and (0, 1], an index does not exist, or `spec` is an integer,
            which could be a layer or a fraction.

    Example:
        >>> select_layers(0.5, 5), select_layers(-0.5, 4), select_layers([3, 0], 4)
        ((0, 1, 2), (2, 3), (0, 3))
    """
    if isinstance(spec, float):
        if not 0 < abs(spec) <= 1:
            raise InvalidValueError("a fraction of the layers above 0 and at most 1, or its negative", str(spec))
        n = max(1, math.floor(n_layers * abs(spec) + 0.5))
        return tuple(range(n) if spec > 0 else range(n_layers - n, n_layers))
    if isinstance(spec, int):
        raise InvalidValueError(
            "a fraction of the layers or a list of them", repr(spec), f"[{spec}] is one layer, 1.0 is all"
        )
    layers = sorted(set(spec))
    missing = [layer for layer in layers if not 0 <= layer < n_layers]
    if missing or not layers:
        got = format_layers(tuple(missing)) if len(missing) > 1 else str(*missing) or "none"
        raise InvalidValueError(f"layers from 0 to {n_layers - 1}", got)
    return tuple(layers)
