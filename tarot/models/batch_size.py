"""Parse the number of sequences of one pass."""

from tarot.errors import TarotError


def parse_batch_size(text: int | str) -> int:
    """Parse a positive number of sequences.

    Raises:
        TarotError: the text is anything else.
    """
    try:
        size = int(text)
    except ValueError:
        size = 0
    if size < 1:
        raise TarotError("a batch size from 1, or 'auto'", repr(text))
    return size
