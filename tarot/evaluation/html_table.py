"""A comparison as an HTML table, for notebooks."""

from html import escape

from tarot.evaluation.metrics import METRICS
from tarot.evaluation.notes import arm_notes
from tarot.evaluation.results import HEADLINE, Comparison, missing_number_notes
from tarot.evaluation.scored_comparison import score_comparisons
from tarot.evaluation.statistics.gains import Gain

COLUMNS = ("arm", "score", "gain", "95% CI", "p")


def comparison_to_html(comparison: Comparison) -> str:
    """Return a table of the arms with score, gain over the base, 95% CI and p-value, and documents without a number.

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
        row = [name, f"{score:.3f}", "", "", ""]
        if gain := scored.gains.get(name):
            p = f"{gain.p:.3f}" if isinstance(gain, Gain) else ""
            row[2:] = [f"{gain.value:+.3f}", f"[{gain.low:+.3f}, {gain.high:+.3f}]", p]
        rows.append(_row("td", row))
    title = f"{comparison.id}: {METRICS[HEADLINE].title}, {len(comparison.keys):,} documents"
    notes = "".join(f"<p>{escape(note)}</p>" for note in [*arm_notes(comparison), *missing_number_notes(comparison)])
    return f"<table><caption>{escape(title)}</caption>{_row('th', COLUMNS)}{''.join(rows)}</table>{notes}"


def _row(tag: str, texts: tuple[str, ...] | list[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(text)}</{tag}>' for text in texts)}</tr>"
