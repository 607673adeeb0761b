"""What all intervals share: the standard error they stand for, and the check of their settings."""

from scipy.special import ndtri

from tarot.errors import TarotError


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
    """Raise TarotError unless `level` is in (0, 1) and there are at least 2 resamples."""
    if not 0 < level < 1:
        raise TarotError("a level between 0 and 1", repr(level), "for example 0.95")
    if resamples < 2:
        raise TarotError("at least 2 resamples", repr(resamples))
