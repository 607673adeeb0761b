"""FIXME: one sentence on this module."""

import math
from collections.abc import Sequence

from tarot.errors import TarotError
from tarot.evaluation.statistics.gains import Gain


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """max over j <= i of min(1, (m - j) p_(j)), j from 0 in rising order: p-values corrected for being m of them.

    Raises:
        TarotError: a value that is not a number from 0 to 1: NaN has no place in the order.
    """
    if odd := [p for p in p_values if not 0 <= p <= 1]:
        raise TarotError("p-values from 0 to 1", f"{odd[0]!r}")
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return tuple(adjusted)


def regressed(gain: Gain, tolerance: float) -> bool:
    """value < -tolerance and p < 1 - level: worse by more than is tolerated, and by more than chance explains.

    Raises:
        TarotError: a gain or a tolerance that is NaN, with which no comparison is true.
    """
    if any(map(math.isnan, (gain.value, gain.p, tolerance))):
        raise TarotError("a gain, a p-value and a tolerance", "NaN")
    return gain.value < -tolerance and gain.p < 1 - gain.level
