"""The largest number of sequences in one pass, as options state it."""

from tarot.arguments import parse_whole_number
from tarot.errors import InvalidValueError, TarotError


def parse_batch_size(text: int | str | None) -> int | None:
    """Return a number of sequences; None for `auto` or None, which leave it to the size of the passes.

    Raises:
        InvalidValueError: anything but a whole number from 1, `auto` and None.

    Example:
        >>> parse_batch_size("8"), parse_batch_size("auto")
        (8, None)
    """
    if text is None or text == "auto":
        return None
    try:
        return parse_whole_number(str(text), least=1)
    except TarotError as error:
        raise InvalidValueError("auto, or a whole number from 1, as batch size", error.got) from None
