"""A verdict of the regression gate as lines of text: for a terminal, a failed test and JUnit XML."""

from itertools import chain
from textwrap import shorten, wrap

from tarot.errors import printable
from tarot.evaluation.regression.verdict import Verdict
from tarot.evaluation.results.metrics import describe_metrics
from tarot.evaluation.statistics.formatting import fraction, interval, p_value, signed
from tarot.report.columns import aligned

HEADER = ("edited arm", "then", "now", "change", "95% CI", "p", "lost", "gained")
SHOWN_DOCUMENTS = 3
TEXT_WIDTH = 200
"""Characters of a document's text."""
WIDTH = 78
"""Characters of a line of prose, which `tarot diff` indents by two."""


def verdict_lines(verdict: Verdict, accept: str) -> list[str]:
    """Return a verdict as lines of printable characters; the first line is the reason in brief.

    Args:
        verdict: what the gate found.
        accept: how to accept an intended change, a sentence; shown for a failure.

    Example:
        >>> verdict = Verdict("my cell", True, ("in the reference run, but not measured now",))
        >>> verdict_lines(verdict, "measure it")[0]
        'in the reference run, but not measured now'
    """
    lines = [*verdict.reasons[:1]]
    if verdict.scores:
        lines += ["", *chain(*aligned([HEADER, *score_rows(verdict)])), *_wrapped(score_legend(verdict), "")]
    for reason in verdict.reasons[1:]:
        lines += _wrapped(reason, "")
    if verdict.failed:
        if verdict.lost:
            lines += ["", *_lost_lines(verdict)]
        if verdict.command:
            lines += ["", "repeat it with:", verdict.command]
        if verdict.not_repeated:
            lines.append(f"which does not repeat all of this edit: {verdict.not_repeated}")
        lines += ["", f"to accept an intended change: {accept}"]
    return [printable(line) for line in lines]


def score_rows(verdict: Verdict) -> list[tuple[str, ...]]:
    """Return one row for each guarded score, in the order of HEADER."""
    return [
        (
            change.metric,
            fraction(change.then),
            fraction(change.now),
            signed(change.gain.value),
            interval(change.gain.low, change.gain.high),
            p_value(change.gain.p),
            str(change.gain.lost),
            str(change.gain.gained),
        )
        for change in verdict.scores
    ]


def score_legend(verdict: Verdict) -> str:
    """Say what the metrics in the table stand for, a sentence."""
    return describe_metrics(change.metric for change in verdict.scores)


def _lost_lines(verdict: Verdict) -> list[str]:
    lines = [f"right then and wrong now: {len(verdict.lost)}"]
    for each in verdict.lost[:SHOWN_DOCUMENTS]:
        lines += _wrapped(shorten(each.text, TEXT_WIDTH, placeholder=" ..."), "  ")
        lines += _wrapped(f"right: {each.right}; then: {each.then}; now: {each.now}", "    ")
    if (more := len(verdict.lost) - SHOWN_DOCUMENTS) > 0:
        lines.append(f"  and {more} more")
    return lines


def _wrapped(text: str, indent: str) -> list[str]:
    """Return a text as lines that cut no word, the further ones with more indentation."""
    return wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
