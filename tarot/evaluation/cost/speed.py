"""The time of a comparison as a multiple of a fixed workload, and how far that multiple can be trusted."""

from typing import NamedTuple

from tarot.evaluation.results.comparison import EDITED, Comparison

BUSY = 1.25
"""How far apart the workload's times may be, slowest over fastest, before the machine counts as busy."""


BUSY_NOTE = "The machine was busy while this was measured, so the seconds say little about speed."


class RelativeTime(NamedTuple):
    """A time in units of the reference workload: by its fastest run, and the lower value by its slowest."""

    value: float
    low: float


def is_busy(comparison: Comparison) -> bool:
    """Return whether the reference workload took so different times that other work must have disturbed it."""
    times = comparison.reference_times
    return len(times) > 1 and max(times) > BUSY * min(times)


def relative_time(comparison: Comparison, seconds: float) -> RelativeTime:
    """Return seconds of a comparison in units of the reference workload of the same session.

    Example:
        >>> relative_time(comparison, 2 * comparison.reference_seconds).value
        2.0
    """
    times = comparison.reference_times or (comparison.reference_seconds,)
    fastest, slowest = max(min(times), 1e-6), max(*times, 1e-6)
    return RelativeTime(seconds / fastest, seconds / slowest)


def describe_time(comparison: Comparison) -> str:
    """Return how long a comparison took, as a multiple of the reference workload, or that the machine was busy."""
    if not comparison.reference_times:
        return f"{comparison.seconds:,.1f} s; the machine's speed was not recorded"
    if is_busy(comparison):
        return f"{comparison.seconds:,.1f} s on a busy machine ({_spread(comparison)}), which says little about speed"
    value, low = relative_time(comparison, comparison.seconds)
    return f"{comparison.seconds:,.1f} s, {value:.3g} times the reference workload ({low:.3g} by its slowest run)"


def describe_speed_change(then: Comparison, now: Comparison) -> str:
    """Return how much longer the edited arm takes than in a reference run, or why that is not known."""
    for when, comparison in (("then", then), ("now", now)):
        if not comparison.reference_times:
            return f"times are not compared: the machine's speed was not recorded {when}"
        if is_busy(comparison):
            return f"times are not compared: the machine was busy {when} ({_spread(comparison)})"
    before, after = (relative_time(each, max(each.arm(EDITED).seconds, 1e-3)) for each in (then, now))
    low, high = after.low / before.value, after.value / before.low
    ratio = after.value / before.value
    return f"the edited arm takes {ratio:.2f} times as long as then, {low:.2f} to {high:.2f} by the reference workload"


def _spread(comparison: Comparison) -> str:
    ratio = max(comparison.reference_times) / max(min(comparison.reference_times), 1e-6)
    return f"the reference workload's times differ by a factor of {ratio:.1f}"
