"""What the benchmarks of a group have measured, so that a later one can state its ratio to an earlier one."""

from collections import defaultdict
from typing import Any, NamedTuple


class Timed(NamedTuple):
    """One alternative of a group: seconds of its shortest round (None if benchmarks are disabled), and its result."""

    seconds: float | None
    result: Any


class Alternatives:
    """The alternatives that this run has timed, by group and name."""

    def __init__(self) -> None:
        self._timed: dict[str, dict[str, Timed]] = defaultdict(dict)

    def add(self, benchmark: Any, name: str, result: Any = None) -> None:
        """Keep what a benchmark has just measured, as alternative `name` of its group."""
        seconds = benchmark.stats["min"] if benchmark.stats else None
        self._timed[benchmark.group][name] = Timed(seconds, result)

    def result(self, group: str, name: str) -> Any:
        """Return what an alternative's work returned, None if this run did not time it."""
        timed = self._timed[group].get(name)
        return timed.result if timed else None

    def ratio(self, group: str, numerator: str, denominator: str) -> float | None:
        """Divide the shortest round of one alternative by that of another, None unless this run timed both."""
        above, below = (self._timed[group].get(name, Timed(None, None)).seconds for name in (numerator, denominator))
        return above / below if above is not None and below else None
