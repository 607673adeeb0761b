"""Text of a failed assertion on a gain: arms, intervals, changed documents, the command that repeats the cell."""

from itertools import chain
from textwrap import shorten

from tarot.errors import printable
from tarot.evaluation.results.comparison import FEW_SHOT, HEADLINE, Comparison
from tarot.evaluation.results.metrics import METRICS
from tarot.evaluation.results.scored_comparison import named_arms, score_comparisons
from tarot.evaluation.statistics.formatting import fraction, interval, p_value, signed
from tarot.evaluation.statistics.gains import Gain
from tarot.evaluation.statistics.seeds import MeanGain
from tarot.pytest_plugin.gain import Gains, TarotGain
from tarot.report.columns import aligned
from tarot.report.table import other_arm_rows

SHOWN_DOCUMENTS = 3  # that changed each way
TEXT_WIDTH = 100  # characters of a document's text


def explain(comparison: Comparison) -> str:
    """Return the explanation of a comparison, several lines of printable characters.

    Example:
        >>> explain(comparison).splitlines()[0] == comparison.id
        True
    """
    gains = TarotGain(comparison)
    changed = _changed_documents(comparison)
    repeat = ["repeat it with:", comparison.command]
    documents = f"{len(comparison.gold):,} documents"
    tables = [*_arm_table(comparison), "", *_gain_table(gains), "", *_other_arms(gains)]
    lines = [comparison.id, documents, "", *tables, *changed, "", *repeat]
    return "\n".join(map(printable, lines))


def _arm_table(comparison: Comparison) -> list[str]:
    rows = [
        (
            name,
            str(arms[0].labels),
            *(fraction(metric.mean_score(comparison.gold, arms)) for metric in METRICS.values()),
        )
        for name, arms in named_arms(comparison).items()
    ]
    return [*chain(*aligned([("arm", "labels", *METRICS), *rows]))]


def _gain_table(gains: TarotGain) -> list[str]:
    """Return the gains over base, over few-shot prompting, and over the mean of its draws, which has no p-value."""
    rows = [("edited minus", "metric", "gain", f"{gains.f1.level:.0%} CI", "p", "gained", "lost")]
    for over in _compared(gains):
        for metric in ("f1", "accuracy", "greedy_f1", "greedy_accuracy"):
            gain: Gain | MeanGain = getattr(over, metric)
            test = (p_value(gain.p), str(gain.gained), str(gain.lost)) if isinstance(gain, Gain) else ("", "", "")
            name = over.before.removeprefix(f"{FEW_SHOT}, ")  # "mean of 5 draws": the row fits 80 columns
            rows.append((name, metric, signed(gain.value), interval(gain.low, gain.high), *test))
    return [*chain(*aligned(rows))]


def _compared(gains: TarotGain) -> list[Gains[Gain] | Gains[MeanGain]]:
    """Return the gains that have a fixture's attribute: over base, few-shot prompting, and the mean of its draws."""
    compared: list[Gains[Gain] | Gains[MeanGain]] = [gains]
    if gains.before != FEW_SHOT and any(arm.name == FEW_SHOT for arm in gains.comparison.arms):
        compared.append(gains.over_few_shot)
    if len(gains.comparison.draws) > 1:
        compared.append(gains.over_draws)
    return compared


def _other_arms(gains: TarotGain) -> list[str]:
    """Return a line for each further arm, such as a baseline: the edited arm's gain over it in the headline metric."""
    shown = {over.before for over in _compared(gains)}
    (scored,) = score_comparisons([gains.comparison])
    rows = [row for row in other_arm_rows(scored) if row[0] not in shown]
    return [*chain(*aligned([("edited minus", f"{METRICS[HEADLINE].title}, 95% CI"), *rows])), ""] if rows else []


def _changed_documents(comparison: Comparison) -> list[str]:
    """Return how many documents' likeliest choice or greedy answer became right or wrong, and the first of them."""
    base, lines = comparison.base.name, []
    changes = {"likeliest choice": comparison.changed("acc"), "greedy answer": comparison.changed("greedy_acc")}
    for title, direction in (("gained", "fixed"), ("lost", "broken")):
        for kind, change in changes.items():
            documents = getattr(change, direction)
            lines.append(f"{title}, {kind}: {len(documents)}")
            for each in documents[:SHOWN_DOCUMENTS]:
                answers = f"right: {each.right_text}, {base}: {each.base_text}, edited: {each.edited_text}"
                text = shorten(each.text, TEXT_WIDTH, placeholder=" ...")
                lines.append(f"  {each.row}: {text} ({answers})")
    return lines
