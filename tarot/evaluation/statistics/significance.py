"""Significance of many comparisons: corrected p-values, and what counts as a regression.

Source: Holm (1979).
"""

import math
from collections.abc import Sequence

from tarot.errors import TarotError
from tarot.evaluation.statistics.gains import Gain


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Correct m p-values for their number: max over j <= i of min(1, (m - j) p_(j)), j from 0 in rising order.

    Raises:
        TarotError: a value outside [0, 1], or NaN, which has no place in the order.

    Example:
        >>> holm([0.01, 0.2, 0.03])
        (0.03, 0.2, 0.06)
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
    """Return value < -tolerance and p < 1 - level: the loss exceeds both the tolerance and what chance explains.

    Raises:
        TarotError: the gain, its p-value or the tolerance is NaN, which compares as neither more nor less.
    """
    if any(map(math.isnan, (gain.value, gain.p, tolerance))):
        raise TarotError("a gain, a p-value and a tolerance", "NaN")
    return gain.value < -tolerance and gain.p < 1 - gain.level
