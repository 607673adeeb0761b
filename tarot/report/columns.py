"""Text in columns: rows that fit a width, folded where they do not."""

from collections.abc import Sequence

from tarot.errors import printable

GAP = "  "


def aligned(rows: Sequence[Sequence[str]], width: int = 80) -> list[list[str]]:
    """Return the lines of each row, in columns as wide as their widest text, without control characters.

    Where a row is wider than `width` characters, two or more neighbouring columns stand above each other, as few as
    fit, and an empty line precedes each row but the first. Rows that fit in no other way have one column.

    Example:
        >>> aligned([("arm", "score"), ("edited", "0.5")])
        [['arm     score'], ['edited  0.5']]
        >>> aligned([("arm", "score"), ("edited", "0.5")], width=8)
        [['arm', 'score'], ['', 'edited', '0.5']]
    """
    texts = [[printable(text) for text in row] for row in rows]
    sizes = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for height in range(1, len(sizes) + 1):
        widths = [max(sizes[start : start + height]) for start in range(0, len(sizes), height)]
        if len(GAP.join(" " * each for each in widths)) <= width:
            break
    lines = [
        [
            GAP.join(text.ljust(size) for text, size in zip(row[line::height], widths, strict=False)).rstrip()
            for line in range(height)
        ]
        for row in texts
    ]
    return [["", *row] if height > 1 and number else row for number, row in enumerate(lines)]
