"""The number of documents to evaluate: all, a number from 1, or a fraction below 1."""

import math

from tarot.arguments import require_number
from tarot.errors import InvalidValueError


def parse_limit(text: str) -> int | float:
    """Return the limit that an option states.

    Raises:
        InvalidValueError: the text is neither a whole number from 1 nor a fraction between 0 and 1.

    Example:
        >>> parse_limit("100"), parse_limit("0.1")
        (100, 0.1)
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    # 1.0 may stand for one document or for all of them.
    if not _is_limit(number) or (number >= 1 and not text.strip().isdecimal()):
        raise InvalidValueError("a whole number from 1, or a fraction below 1", repr(text))
    return number if number < 1 else int(number)


def check_limit(limit: object) -> None:
    """Raise InvalidValueError unless `limit` is None, a whole number from 1, or a fraction between 0 and 1."""
    if limit is not None:
        allowed = "a number of documents from 1, or a fraction of them such as 0.1"
        require_number("limit", limit, allowed, _is_limit)


def _is_limit(number: float) -> bool:
    return 0 < number < 1 or (number >= 1 and number.is_integer())
