"""How a long measurement shows its progress."""

from collections.abc import Callable

OnStep = Callable[[str, int, int], None]
"""Called with the name of the step, how much of it is done, and how much there is in all."""


def ignore_step(step: str, done: int, total: int) -> None:
    """Show nothing: the default `OnStep`."""
