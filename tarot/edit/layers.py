"""Selection of layers: a fraction of them or a list."""

import math
import re
from collections.abc import Iterable

from tarot.errors import TarotError


def parse_layers(text: str) -> float | tuple[int, ...]:
    """`0.5` the first half, `-0.5` the last, `4-11` the fifth to the twelfth, `0,3,5` these three.

    TarotError quotes anything else, and a bare integer, which could be a layer or a fraction.
    """
    if re.fullmatch(r"\s*\d+\s*", text):
        hint = f"{text.strip()}-{text.strip()} is one layer, 1.0 is all"
        raise TarotError("a fraction of the layers or a list of them", repr(text), hint)
    if re.fullmatch(r"-?(\d*\.\d+|\d+\.)", text.strip()):
        return float(text)
    layers: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d{1,5})\s*(?:-\s*(\d{1,5})\s*)?", part)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if last < first:
            raise TarotError("layers as '0.5', '-0.5', '4-11' or '0,3,5'", repr(text))
        layers.extend(range(first, last + 1))
    return tuple(layers)


def select_layers(spec: int | float | Iterable[int], n_layers: int) -> tuple[int, ...]:
    """The first `round(n_layers * fraction)` layers, halves up and at least one, the last ones where the fraction is
    negative; or the layers listed, in order.

    TarotError for a fraction outside [-1, 0) and (0, 1], layers that are not there, and a bare integer, which could
    mean either.
    """
    if isinstance(spec, float):
        if not 0 < abs(spec) <= 1:
            raise TarotError("a fraction of the layers above 0 and at most 1, or its negative", str(spec))
        n = max(1, math.floor(n_layers * abs(spec) + 0.5))
        return tuple(range(n) if spec > 0 else range(n_layers - n, n_layers))
    if isinstance(spec, int):
        raise TarotError("a fraction of the layers or a list of them", repr(spec), f"[{spec}] is one layer, 1.0 is all")
    layers = sorted(set(spec))
    beyond = [layer for layer in layers if not 0 <= layer < n_layers]
    if beyond or not layers:
        raise TarotError(f"layers from 0 to {n_layers - 1}", ", ".join(map(str, beyond)) or "none")
    return tuple(layers)
