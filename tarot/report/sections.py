"""What the page shows of one comparison: its answer, arms, documents, search and settings."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from markupsafe import Markup

from tarot.evaluation.metrics import METRICS
from tarot.evaluation.results import Arm, Comparison
from tarot.evaluation.reward_results import RewardComparison
from tarot.evaluation.scored_comparison import ScoredComparison
from tarot.evaluation.speed import describe_time, is_busy
from tarot.report import table
from tarot.report.answer import Answer, answer
from tarot.report.comparison_figures import has_scores, search_curves
from tarot.report.document_table import OUTCOMES, DocumentRow
from tarot.report.head_figures import angle_kind, angle_map

ARMS_HEADER = ("arm", "gain", "p", *METRICS, "gold prob.", "labels", "seconds")


@dataclass(frozen=True)
class Section:
    """What the page shows of one comparison; `name` is unique on the page."""

    comparison: Comparison
    name: str
    base: str
    answer: Answer
    arms: Sequence[Sequence[str]]
    over_draws: str
    busy: bool
    curves: Markup | None
    angles: Markup | None
    angle_kind: str
    documents: Sequence[DocumentRow]
    outcomes: Sequence[tuple[str, int]]
    settings: Sequence[tuple[str, str]]


def section(
    number: int,
    scored: ScoredComparison,
    name: str,
    metric: str,
    documents: Sequence[DocumentRow],
    shown: Sequence[DocumentRow],
    costs: Sequence[str],
) -> Section:
    """Return what the page shows of a comparison.

    Args:
        number: makes the identifiers of the figures unique.
        scored: the comparison.
        name: what the page calls it.
        metric: name of the metric that it was scored by.
        documents: every document.
        shown: the documents that the page lists.
        costs: measured side effects, sentences.
    """
    comparison = scored.comparison
    own_search = comparison.search if comparison.search in comparison.curves else next(iter(comparison.curves), "")
    curves = angles = None
    if has_scores(comparison.curves):
        curves = search_curves(f"curves-{number}", comparison.curves, own_search, comparison.objective)
    if comparison.head_angles:
        angles = angle_map(f"angles-{number}", comparison.head_angles, comparison.layers)
    return Section(
        comparison=comparison,
        name=name,
        base=scored.base,
        answer=answer(scored, metric, costs),
        arms=[_arm_row(scored, arm) for arm in scored.arms],
        over_draws=table.with_interval(scored.over_draws) if scored.over_draws else "",
        busy=is_busy(comparison),
        curves=curves,
        angles=angles,
        angle_kind=angle_kind(comparison.head_angles),
        documents=shown,
        outcomes=[(outcome, sum(each.outcome == outcome for each in documents)) for outcome in OUTCOMES],
        settings=list(_settings(comparison)),
    )


def _arm_row(scored: ScoredComparison, name: str) -> tuple[str, ...]:
    gold, gain, arms = scored.comparison.gold, scored.gains.get(name), scored.arms[name]

    def mean(value: Callable[[Arm], float]) -> float:
        return fmean(value(arm) for arm in arms)

    return (
        name,
        table.with_interval(gain) if gain else "base",
        table.p_of(gain) if gain else "",
        *(table.fraction(metric.mean_score(gold, arms)) for metric in METRICS.values()),
        table.fraction(mean(lambda arm: fmean(arm.gold_probability or (0.0,)))),
        str(arms[0].labels),
        table.duration(mean(lambda arm: arm.seconds)),
    )


def _settings(comparison: Comparison) -> Iterator[tuple[str, str]]:
    yield "model", comparison.model
    yield "task", comparison.task
    yield "shots", comparison.shots
    yield "seed", str(comparison.seed)
    yield "labelled samples", str(comparison.samples)
    budget = f"a budget of {comparison.budget} evaluations"
    yield "search", f"{comparison.search} in {comparison.space}, {budget}, {comparison.objective}"
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
