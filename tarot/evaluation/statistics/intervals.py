"""Standard error and argument checks of intervals."""

from scipy.special import ndtri

from tarot.arguments import require_number, require_whole_number


def standard_error(low: float, high: float, level: float) -> float:
    """Return (high - low) / 2z: the standard error of a normal variable with this interval.

    Args:
        low: the interval's lower end.
        high: the interval's upper end.
        level: the interval's confidence, a fraction in (0, 1); z is the normal quantile of (1 + level) / 2.

    Example:
        >>> round(standard_error(-1.96, 1.96, 0.95), 3)
        1.0
    """
    return (high - low) / (2 * float(ndtri((1 + level) / 2)))


def check_settings(level: float, resamples: int = 2) -> None:
    """Raise InvalidValueError unless `level` is in (0, 1) and there are at least 2 resamples."""
    require_number("level", level, "between 0 and 1, such as 0.95", lambda x: 0 < x < 1)
    require_whole_number("resamples", resamples, least=2)
