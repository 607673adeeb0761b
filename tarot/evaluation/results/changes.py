"""Documents that one arm answers right and another wrong."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class ChangedDocument:
    """A document that exactly one of base and edited answers right.

    Attributes:
        row: the document's place in the comparison, from 0.
        text: the document as the prompt shows it.
        gold: the right choice, an index.
        base: the choice of the arm that is compared with, an index; `OUTSIDE` (-1) for an answer outside the choices.
        edited: the choice of the arm in question, likewise.
        right_text: the right choice in words.
        base_text: the answer of the arm that is compared with, in words: a choice, or what the model wrote instead.
        edited_text: the answer of the arm in question, likewise.
    """

    row: int
    text: str
    gold: int
    base: int
    edited: int
    right_text: str = ""
    base_text: str = ""
    edited_text: str = ""


class ChangedDocuments(NamedTuple):
    """The documents that went from wrong to right, and those that went from right to wrong."""

    fixed: tuple[ChangedDocument, ...]
    broken: tuple[ChangedDocument, ...]


class ChangedRows(NamedTuple):
    """Rows of the documents that went from wrong to right, and of those that went from right to wrong."""

    fixed: list[int]
    broken: list[int]


def changed_rows(gold: Sequence[int], base: Sequence[int], edited: Sequence[int]) -> ChangedRows:
    """Return the rows that exactly one of two arms answers right, each list in rising order.

    Example:
        >>> changed_rows(gold=[0, 1, 1], base=[0, 0, 1], edited=[0, 1, 0])
        ChangedRows(fixed=[1], broken=[2])
    """
    rows = ChangedRows([], [])
    for row, (right, before, after) in enumerate(zip(gold, base, edited, strict=True)):
        if before != right == after:
            rows.fixed.append(row)
        elif before == right != after:
            rows.broken.append(row)
    return rows
