"""Arguments that take one value or several."""

from collections.abc import Iterable
from reprlib import repr as short

from tarot.errors import InvalidValueError


def name_list(argument: str, names: str | Iterable[str]) -> list[str]:
    """Return names as a list; a single string is one name.

    Raises:
        InvalidValueError: anything else than names.

    Example:
        >>> name_list("baselines", "lora"), name_list("baselines", ["lora", "caa"])
        (['lora'], ['lora', 'caa'])
    """
    listed = [names] if isinstance(names, str) else list(names) if isinstance(names, Iterable) else [names]
    if not all(isinstance(name, str) for name in listed):
        raise InvalidValueError(f"{argument} must be a name or a list of names, not {short(names)}.")
    return listed
