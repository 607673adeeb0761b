"""Progress of a long measurement, shown by whoever started it."""

from collections.abc import Callable

OnStep = Callable[[str, int, int], None]
"""Called with the name of the step (or arm), how much of it is done (or its number), and how much there is in all."""


def ignore_step(step: str, done: int, total: int) -> None:
    """Show nothing: the default `OnStep`."""
