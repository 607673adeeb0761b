"""Numbers as text: scores, differences with their sign, intervals and p-values."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tarot.evaluation.statistics.gains import Gain
    from tarot.evaluation.statistics.means import Difference, Mean
    from tarot.evaluation.statistics.seeds import MeanGain


def fraction(value: float) -> str:
    """Format a fraction with three digits."""
    return f"{value:.3f}"


def signed(value: float, digits: int = 3) -> str:
    """Format a difference with its sign; a rounded zero has no sign.

    Example:
        >>> signed(0.25), signed(-0.0001)
        ('+0.250', '0.000')
    """
    text = f"{value:+.{digits}f}"
    return text if float(text) else text[1:]


def interval(low: float, high: float, form: Callable[[float], str] = signed) -> str:
    """Format an interval, both ends by `form`."""
    return f"[{form(low)}, {form(high)}]"


def with_interval(estimate: "Gain | MeanGain | Difference | Mean", form: Callable[[float], str] = signed) -> str:
    """Format a number with its interval, all three by `form`.

    Example:
        >>> from tarot.evaluation.statistics.means import Mean
        >>> with_interval(Mean(0.5, 0.25, 0.75), fraction)
        '0.500 [0.250, 0.750]'
    """
    return f"{form(estimate.value)} {interval(estimate.low, estimate.high, form)}"


def p_value(p: float) -> str:
    """Format a p-value with three digits."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"
