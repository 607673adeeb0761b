"""The documents of a comparison with their answers in words, those that changed first."""

from collections.abc import Sequence
from dataclasses import dataclass

from tarot.evaluation.results.comparison import EDITED, FEW_SHOT, Comparison
from tarot.evaluation.results.metrics import METRICS

OUTCOMES = ("broken", "fixed", "wrong both", "right both")
"""Outcomes of a document: right and wrong with base and edited model. In the order of the table."""
MOST_DOCUMENTS = 5_000
"""Documents of all comparisons that a page lists; beyond these it lists only those that changed."""


@dataclass(frozen=True)
class DocumentTable:
    """Documents as the page lists them, in a table that can be sorted, filtered by outcome and searched.

    Attributes:
        columns: title and kind of each: `number`, `text`, `answer`, and `outcome` for the last.
        rows: one text a column.
        outcomes: each outcome with its number of documents, those that are not listed included.
        note: what the table leaves out, a sentence; "" if nothing.
    """

    columns: Sequence[tuple[str, str]]
    rows: Sequence[Sequence[str]]
    outcomes: Sequence[tuple[str, int]]
    note: str = ""


@dataclass(frozen=True)
class DocumentRow:
    """A document, with the right answer and those of the arms in words.

    Attributes:
        row: place in the comparison, from 0.
        text: the document as the prompt shows it.
        right: the right answer.
        base: answer of the base arm.
        few_shot: answer of the few-shot arm; "" if there is none, or if it is the base.
        edited: answer of the edited arm.
        outcome: one of OUTCOMES.
    """

    row: int
    text: str
    right: str
    base: str
    few_shot: str
    edited: str
    outcome: str


def document_rows(comparison: Comparison, metric: str) -> list[DocumentRow]:
    """Return every document of a comparison, in the order of OUTCOMES.

    Args:
        comparison: what was measured.
        metric: decides whether greedy answers or likeliest choices are shown.

    Example:
        >>> len(document_rows(comparison, "greedy_f1")) == len(comparison.keys)
        True
    """
    answers = METRICS[metric].answers
    base, edited = comparison.base, comparison.arm(EDITED)
    few_shot = next((arm for arm in comparison.arms if arm.name == FEW_SHOT != base.name), None)
    rows = []
    for row, (gold, before, after) in enumerate(zip(comparison.gold, answers(base), answers(edited), strict=True)):
        rows.append(
            DocumentRow(
                row,
                comparison.texts[row],
                comparison.answer_text(row, gold),
                comparison.answer_text(row, before, base),
                comparison.answer_text(row, answers(few_shot)[row], few_shot) if few_shot else "",
                comparison.answer_text(row, after, edited),
                _outcome(before == gold, after == gold),
            )
        )
    return sorted(rows, key=lambda each: OUTCOMES.index(each.outcome))


def shown_documents(rows: Sequence[Sequence[DocumentRow]]) -> list[Sequence[DocumentRow]]:
    """Return the documents to list for each comparison: all, or those that changed if there are too many.

    Example:
        >>> shown_documents([[]])
        [[]]
    """
    if sum(map(len, rows)) <= MOST_DOCUMENTS:
        return list(rows)
    return [[each for each in documents if each.outcome in ("broken", "fixed")] for documents in rows]


def document_table(documents: Sequence[DocumentRow], shown: Sequence[DocumentRow]) -> DocumentTable:
    """Return the table of a comparison's documents.

    Args:
        documents: every document.
        shown: the documents to list.

    Example:
        >>> rows = document_rows(comparison, "greedy_f1")
        >>> [title for title, kind in document_table(rows, rows).columns]
        ['#', 'document', 'right', 'base', 'few-shot', 'edited', 'outcome']
    """
    columns = [("#", "number"), ("document", "text"), ("right", "answer"), ("base", "answer")]
    has_few_shot = any(each.few_shot for each in documents)
    columns += [("few-shot", "answer")] * has_few_shot + [("edited", "answer"), ("outcome", "outcome")]
    rows = [
        (
            *(str(each.row), each.text, each.right, each.base),
            *[each.few_shot] * has_few_shot,
            *(each.edited, each.outcome),
        )
        for each in shown
    ]
    outcomes = [(outcome, sum(each.outcome == outcome for each in documents)) for outcome in OUTCOMES]
    left_out = len(shown) < len(documents)
    return DocumentTable(columns, rows, outcomes, "The page lists those that changed; the file has all." * left_out)


def _outcome(base_right: bool, edited_right: bool) -> str:
    if base_right == edited_right:
        return "right both" if base_right else "wrong both"
    return "fixed" if edited_right else "broken"
