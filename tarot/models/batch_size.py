"""The largest number of sequences in one pass, as options state it."""

from tarot.errors import TarotError


def parse_batch_size(text: int | str | None) -> int | None:
    """Return a number of sequences; None for `auto` or None, which leave it to the size of the passes.

    Raises:
        TarotError: anything but a whole number from 1, `auto` and None.

    Example:
        >>> parse_batch_size("8"), parse_batch_size("auto")
        (8, None)
    """
    if text is None or text == "auto":
        return None
    digits = str(text)
    if not (digits.isascii() and digits.isdigit() and int(digits)):
        raise TarotError("a batch size from 1, or auto", repr(text))
    return int(digits)
