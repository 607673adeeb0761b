"""The page's section of one comparison: its answer, arms, documents, search and settings."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from markupsafe import Markup

from tarot.evaluation.cost.speed import describe_time
from tarot.evaluation.results.comparison import Arm, Comparison
from tarot.evaluation.results.metrics import METRICS, describe_metrics
from tarot.evaluation.results.notes import arm_notes
from tarot.evaluation.results.reward_comparison import RewardComparison
from tarot.evaluation.results.scored_comparison import ScoredComparison
from tarot.report import table
from tarot.report.answer import Answer, answer
from tarot.report.costs import cost_note, cost_rows
from tarot.report.document_table import DocumentRow, DocumentTable, document_table
from tarot.report.figures.comparison import has_scores, search_curves
from tarot.report.figures.heads import angle_map
from tarot.report.figures.retention import trade_off_figure
from tarot.report.side_effect_words import Costs

ARMS_HEADER = ("arm", "gain over base", "edited minus it", *METRICS, "gold prob.", "labels")
ARMS_LEGEND = (
    f"{describe_metrics(METRICS)} Gold prob. is the mean probability of the right answer, and labels are the labelled "
    "documents that the arm sees, as samples or as shots."
)


@dataclass(frozen=True)
class Section:
    """The page's data of one comparison; `name` is unique on the page."""

    comparison: Comparison
    name: str
    base: str
    answer: Answer
    arms: Sequence[Sequence[str]]
    notes: Sequence[str]
    cost_note: str
    curves: Markup | None
    angles: Markup | None
    trade_off: Markup | None
    costs: Sequence[Sequence[str]]
    documents: DocumentTable
    settings: Sequence[tuple[str, str]]


def section(
    number: int,
    scored: ScoredComparison,
    name: str,
    metric: str,
    documents: Sequence[DocumentRow],
    shown: Sequence[DocumentRow],
    costs: Sequence[Costs],
) -> Section:
    """Return what the page shows of a comparison.

    Args:
        number: makes the identifiers of the figures unique.
        scored: the comparison.
        name: what the page calls it.
        metric: name of the metric that it was scored by.
        documents: every document.
        shown: the documents that the page lists.
        costs: measured side effects of any adapters.
    """
    comparison = scored.comparison
    own_search = comparison.search if comparison.search in comparison.curves else next(iter(comparison.curves), "")
    curves = angles = trade_off = None
    if has_scores(comparison.curves):
        curves = search_curves(f"curves-{number}", comparison.curves, own_search, comparison.objective)
    if comparison.head_angles:
        angles = angle_map(f"angles-{number}", comparison.head_angles, comparison.layers)
    if comparison.trade_off:
        trade_off = trade_off_figure(
            f"trade-off-{number}", comparison.trade_off, comparison.max_kl, comparison.objective
        )
    return Section(
        comparison=comparison,
        name=name,
        base=scored.base,
        answer=answer(scored, metric, costs),
        arms=[_arm_row(scored, arm) for arm in scored.arms],
        notes=arm_notes(comparison),
        cost_note=cost_note(comparison),
        curves=curves,
        angles=angles,
        trade_off=trade_off,
        costs=cost_rows(comparison),
        documents=document_table(documents, shown),
        settings=list(_settings(comparison)),
    )


def _arm_row(scored: ScoredComparison, name: str) -> tuple[str, ...]:
    gold, arms = scored.comparison.gold, scored.arms[name]
    gain, over = scored.gains.get(name), scored.edited_over.get(name)

    def mean(value: Callable[[Arm], float]) -> float:
        return fmean(value(arm) for arm in arms)

    return (
        name,
        table.with_interval(gain) if gain else "base",
        table.with_interval(over) if over else "",
        *(table.fraction(metric.mean_score(gold, arms)) for metric in METRICS.values()),
        table.fraction(mean(lambda arm: fmean(arm.gold_probability or (0.0,)))),
        str(arms[0].labels),
    )


def _settings(comparison: Comparison) -> Iterator[tuple[str, str]]:
    yield "model", comparison.model
    yield "task", comparison.task
    yield "shots", comparison.shots
    yield "seed", str(comparison.seed)
    yield "labelled samples", str(comparison.samples)
    budget = f"a budget of {comparison.budget} evaluations"
    yield "search", f"{comparison.search} in {comparison.space}, {budget}, {comparison.objective}"
    if comparison.max_kl:
        yield "limit of divergence", f"{comparison.max_kl:g} nats a token on retained prompts"
    yield "adapter", comparison.adapter
    digest = hashlib.sha256(json.dumps(comparison.keys).encode()).hexdigest()[:16]
    yield "documents", f"{len(comparison.keys)}, digest {digest}"
    yield "time", describe_time(comparison)
    yield from provenance(comparison)


def provenance(comparison: Comparison | RewardComparison) -> Iterator[tuple[str, str]]:
    """Yield when, where and with which versions a comparison was measured, as terms and texts."""
    yield "date", comparison.date or "not recorded"
    yield "machine", comparison.machine or "not recorded"
    versions = ", ".join(f"{name} {version}" for name, version in sorted(comparison.versions.items()))
    yield "versions", versions or "not recorded"
