"""The largest number of sequences in one pass, as options state it."""

from tarot.arguments import parse_whole_number


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
    return parse_whole_number(str(text), least=1)
