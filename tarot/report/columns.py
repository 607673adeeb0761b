"""Text in columns: rows that fit a width, folded where they do not."""

from collections.abc import Callable, Sequence

from tarot.errors import printable

GAP = "  "


def aligned(rows: Sequence[Sequence[str]], width: int = 80) -> list[list[str]]:
    """Return the lines of each row, in columns as wide as their widest text, without control characters.

    Where a row is wider than `width` characters, columns stand above each other and an empty line precedes each row but
    the first.

    Example:
        >>> aligned([("arm", "score"), ("edited", "0.5")])
        [['arm     score'], ['edited  0.5']]
    """
    columns = fold_columns([[printable(text) for text in row] for row in rows], width + len(GAP), len(GAP), len)
    widths = [max(len(line) for text in column for line in text.split("\n")) for column in zip(*columns, strict=True)]
    lines = [
        [
            GAP.join(text.ljust(size) for text, size in zip(texts, widths, strict=True)).rstrip()
            for texts in zip(*(text.split("\n") for text in row), strict=True)
        ]
        for row in _even_heights(columns)
    ]
    is_folded = max(map(len, lines)) > 1
    return [["", *row] if is_folded and number else row for number, row in enumerate(lines)]


def _even_heights(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """Return the texts of each row with as many lines each."""
    height = max(text.count("\n") for row in rows for text in row)
    return [[text + "\n" * (height - text.count("\n")) for text in row] for row in rows]


def fold_columns(
    rows: Sequence[Sequence[str]], width: int, padding: int, size: Callable[[str], int]
) -> list[list[str]]:
    """Put neighbouring columns above each other, as lines of one, if a row does not fit.

    Args:
        rows: texts of a table, the header first, without line breaks.
        width: characters of a line.
        padding: characters beside the text of a column.
        size: characters that a text needs at least.

    Returns:
        The same texts in fewer columns, with as few lines a row as fit and then as many columns; in one column if they
        fit in no other way.
    """
    columns = list(zip(*rows, strict=True))
    groups, start = [], 0
    for height in _fold([max(map(size, column)) + padding for column in columns], width):
        groups.append(columns[start : start + height])
        start += height
    return [["\n".join(column[row] for column in group) for group in groups] for row in range(len(rows))]


def _fold(sizes: Sequence[int], width: int) -> tuple[int, ...]:
    """Return how many neighbouring columns to put above each other, for each column of the folded table."""
    for height in range(1, len(sizes)):
        # The narrowest way to put the first columns into so many, by both numbers.
        narrowest: dict[tuple[int, int], tuple[int, tuple[int, ...]]] = {(0, 0): (0, ())}
        for end in range(1, len(sizes) + 1):
            for start in range(max(0, end - height), end):
                for count in range(start + 1):
                    if (start, count) in narrowest:
                        before, heights = narrowest[start, count]
                        folded = (before + max(sizes[start:end]), (*heights, end - start))
                        narrowest[end, count + 1] = min(folded, narrowest.get((end, count + 1), folded))
        for count in range(len(sizes), 0, -1):
            total, heights = narrowest.get((len(sizes), count), (width + 1, ()))
            if total <= width:
                return heights
    return (len(sizes),)


def longest_word(text: str) -> int:
    """Return the length of the longest word of a text."""
    return max(map(len, text.split()), default=0)
