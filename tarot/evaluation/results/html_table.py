"""A comparison as an HTML table, for notebooks."""

from html import escape

from tarot.evaluation.results.comparison import HEADLINE, Comparison
from tarot.evaluation.results.metrics import METRICS
from tarot.evaluation.results.notes import arm_notes, missing_number_notes
from tarot.evaluation.results.scored_comparison import score_comparisons
from tarot.evaluation.statistics.formatting import fraction, with_interval

COLUMNS = ("arm", "score", "gain over base, 95% CI", "edited minus it, 95% CI")


def comparison_to_html(comparison: Comparison) -> str:
    """Return a table of the arms with score, gain over the base, what the edited arm is ahead by, and notes.

    All text is escaped.

    Raises:
        TarotError: a comparison without a base or an edited arm.

    Example:
        >>> comparison_to_html(comparison).startswith("<table>")
        True
    """
    (scored,) = score_comparisons([comparison])
    rows = []
    for name, score in scored.scores.items():
        gains = (scored.gains.get(name), scored.edited_over.get(name))
        rows.append(_row("td", [name, fraction(score), *(with_interval(gain) if gain else "" for gain in gains)]))
    title = f"{comparison.id}: {METRICS[HEADLINE].title}, {len(comparison.keys):,} documents"
    notes = "".join(f"<p>{escape(note)}</p>" for note in [*arm_notes(comparison), *missing_number_notes(comparison)])
    return f"<table><caption>{escape(title)}</caption>{_row('th', COLUMNS)}{''.join(rows)}</table>{notes}"


def _row(tag: str, texts: tuple[str, ...] | list[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(text)}</{tag}>' for text in texts)}</tr>"
