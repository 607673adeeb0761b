"""A verdict as text: scores then and now, lost documents, the command, and how to accept the change."""

from dataclasses import replace

from test_regression import comparison

from tarot.evaluation.regression.reference import check_regressions
from tarot.evaluation.regression.verdict import Verdict
from tarot.report.verdict_text import SHOWN_DOCUMENTS, verdict_lines

CHOICES = ((" no", " yes"),) * 40


def verdict(right: list[bool], **change: object) -> Verdict:
    """Compare with a run of the same settings that answered everything right; a change is one of this run alone."""
    then, now = comparison([True] * 40, choices=CHOICES), comparison(right, choices=CHOICES, **change)
    (found,) = check_regressions([replace(then, not_repeated=now.not_repeated)], [now], 0.02)
    return found


def test_a_loss_in_lines() -> None:
    found = verdict([i >= 20 for i in range(40)], versions={"torch": "9"})
    lines = verdict_lines(found, "say so")
    assert found.failed and lines[0] == found.reasons[0]
    row = next(line.split() for line in lines if line.startswith("greedy_f1"))
    assert row[1:3] == ["1.000", "0.500"] and float(row[3]) == -0.5
    assert all(len(line) <= 80 for line in lines[2:5])  # the table
    assert "weighted F1 of the greedy answer" in " ".join(lines[5:8])  # what greedy_f1 in the table stands for
    assert "other versions: torch 2.13 then, 9 now" in lines
    assert "right then and wrong now: 20" in lines
    shown = [line for line in lines if line.startswith("    right: ")]
    assert len(shown) == SHOWN_DOCUMENTS and shown[0] == "    right: no; then: no; now: yes"
    assert f"  and {20 - SHOWN_DOCUMENTS} more" in lines
    assert lines[-1] == "to accept an intended change: say so"
    assert lines[lines.index("repeat it with:") + 1] == "tarot tune"
    scaled = verdict([False] * 40, not_repeated="scaled by 0.3")
    assert "which does not repeat all of this edit: scaled by 0.3" in verdict_lines(scaled, "say so")


def test_prose_fits_80_columns() -> None:
    long = verdict([False] * 40, texts=("word " * 60,) * 40, versions={f"library-{n}": "9" for n in range(30)})
    lines = verdict_lines(long, "say so")[1:]
    assert max(map(len, lines)) <= 78
    assert sum(line.split()[:1] == ["word"] for line in lines) > SHOWN_DOCUMENTS


def test_a_passed_verdict_needs_no_acceptance() -> None:
    lines = verdict_lines(verdict([True] * 40), "say so")
    assert not any("accept" in line or "repeat" in line for line in lines)
    assert any(line.startswith("greedy_f1") for line in lines)


def test_texts_are_printable_and_short() -> None:
    texts = tuple("\x1b[2J\u202e" + "long " * 200 for _ in range(40))
    lines = verdict_lines(verdict([False] * 40, texts=texts), "say so")
    assert all(line.isprintable() for line in lines)
    assert max(map(len, lines)) < 300
