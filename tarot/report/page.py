"""The report: one HTML file that needs no network, no script and nothing beside it."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from statistics import fmean

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from tarot._files.atomic import write_atomically
from tarot.evaluation.metrics import METRICS, metric_named
from tarot.evaluation.results import EDITED, HEADLINE, OUTSIDE, Arm, Comparison, missing_number_notes
from tarot.evaluation.reward_results import RewardComparison
from tarot.evaluation.scored_comparison import (
    ScoredComparison,
    compared_arms,
    comparison_labels,
    group_by_search,
    group_by_setting,
    mean_gain,
    score_comparisons,
)
from tarot.evaluation.statistics.gains import Gain
from tarot.evaluation.statistics.means import Difference
from tarot.evaluation.statistics.seeds import mean_over_seeds
from tarot.report import comparison_figures, table
from tarot.report.head_figures import angle_map
from tarot.report.pictures import Picture, read_pictures
from tarot.report.rewards import ARMS_HEADER, FRONT_HEADER, reward_section
from tarot.report.svg import without_controls

PAGE = "index.html"


@dataclass(frozen=True)
class ChangedDocument:
    """A document that one of base and edited answers right and the other wrong, with the answers as choices."""

    text: str
    right: str
    base: str
    edited: str


@dataclass(frozen=True)
class Section:
    """All that the page shows of one cell, under a name that no other has."""

    comparison: Comparison
    name: str
    base: str
    arms: Sequence[Sequence[str]]
    over_draws: str
    curves: Markup | None
    angles: Markup | None
    gained: Sequence[ChangedDocument]
    lost: Sequence[ChangedDocument]
    settings: Sequence[tuple[str, str]]


def write_report(
    comparisons: Sequence[Comparison],
    folder: str | Path,
    metric: str = HEADLINE,
    analyses: Sequence[str | Path] = (),
    rewarded: Sequence[RewardComparison] = (),
    verdicts: Sequence[tuple[str, bool, str]] = (),
) -> Path:
    """Write `folder/index.html` and return its path; the same cells and pictures give the same bytes.

    Args:
        cells: what was measured.
        folder: for the page.
        metric: one of METRICS.
        rewarded: comparisons of texts that a reward judged.
        analyses: folders whose pictures the page is to show, as `tarot analysis` and `tarot effects` write them.
        verdicts: of the gate: name of the cell, whether it fails, and why.

    Raises:
        UnknownName: a metric that there is not.
        TarotError: a cell without a base or an edited arm, an analysis without pictures, or a folder that cannot be
            written.
    """
    path = Path(folder) / PAGE
    page = render(comparisons, metric, [read_pictures(analysis) for analysis in analyses], rewarded, verdicts)
    write_atomically(path, without_controls(page).encode())
    return path


def render(
    comparisons: Sequence[Comparison],
    metric: str = HEADLINE,
    analyses: Sequence[Sequence[Picture]] = (),
    rewarded: Sequence[RewardComparison] = (),
    verdicts: Sequence[tuple[str, bool, str]] = (),
) -> str:
    """The page as text."""
    scored_comparisons = score_comparisons(comparisons, metric)
    ordered = sorted(rewarded, key=lambda each: (each.id, each.adapter))
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["minus"] = lambda text: re.sub(r"-(?=\d)", "\N{MINUS SIGN}", text)
    page = environment.from_string(files("tarot.report").joinpath("page.html").read_text(encoding="utf-8"))
    return page.render(
        metric=metric_named(metric).title,
        notes=[note for scored in scored_comparisons for note in missing_number_notes(scored.comparison)],
        verdicts=verdicts,
        comparisons=_spread([scored.gain for scored in scored_comparisons]),
        texts=_spread([each.gain for each in ordered]),
        header=table.HEADER,
        rows=table.summary(scored_comparisons),
        forest=_forest(scored_comparisons) if scored_comparisons else None,
        seeds=list(_seeds(scored_comparisons)),
        analyses=analyses,
        arm_header=("arm", "gain", "p", *METRICS, "gold prob.", "labels", "seconds"),
        sections=[
            _section(number, *each, metric)
            for number, each in enumerate(
                zip(scored_comparisons, comparison_labels(scored_comparisons), strict=True), start=1
            )
        ],
        arms_header=ARMS_HEADER,
        front_header=FRONT_HEADER,
        rewards=[reward_section(number, each) for number, each in enumerate(ordered, start=1)],
    )


def _spread(gains: Sequence[Gain | Difference]) -> tuple[int, int, int, int]:
    """How many there are, and how many intervals lie above zero, below it, and across."""
    above, below = sum(gain.low > 0 for gain in gains), sum(gain.high < 0 for gain in gains)
    return len(gains), above, below, len(gains) - above - below


def _forest(scored_comparisons: Sequence[ScoredComparison]) -> Markup:
    # What all cells share is left out: there is room for little.
    several_models, several_seeds = (
        len({getattr(scored.comparison, of) for scored in scored_comparisons}) > 1 for of in ("model", "seed")
    )
    intervals = []
    for scored, search in zip(scored_comparisons, comparison_labels(scored_comparisons), strict=True):
        comparison, gain = scored.comparison, scored.gain
        label = f"{comparison.task}, {comparison.shots}-shot" + f", seed {comparison.seed}" * several_seeds
        label += f", {search}" * bool(search) + f", {comparison.model}" * several_models
        intervals.append(comparison_figures.Interval(label, gain.value, gain.low, gain.high))
    for search, alike in group_by_search(scored_comparisons).items():
        for name in compared_arms(alike):
            mean = mean_gain(alike, lambda scored, name=name: scored.gains.get(name))  # type: ignore[misc]  # a default
            label = f"mean: {name}" + f", {search}" * bool(search)
            intervals.append(comparison_figures.Interval(label, mean.value, mean.low, mean.high, is_mean=True))
    return comparison_figures.forest(intervals)


def _seeds(scored_comparisons: Sequence[ScoredComparison]) -> Iterator[tuple[str, ...]]:
    """One row a setting that was measured with several seeds."""
    for search, alike in group_by_search(scored_comparisons).items():
        for group in group_by_setting(alike):
            mean = mean_over_seeds([scored.gain for scored in group])
            if mean.between is not None:
                comparison = group[0].comparison
                spreads = (table.fraction(mean.between), table.fraction(mean.within))
                yield (
                    comparison.model,
                    comparison.task,
                    comparison.shots,
                    search,
                    table.with_interval(mean),
                    *spreads,
                    str(mean.count),
                )


def _section(number: int, scored: ScoredComparison, search: str, metric: str) -> Section:
    comparison = scored.comparison
    own = comparison.search if comparison.search in comparison.curves else next(iter(comparison.curves), "")
    return Section(
        comparison=comparison,
        name=comparison.id + f", {search}" * bool(search),
        base=scored.base,
        arms=[_arm_row(scored, name) for name in scored.arms],
        over_draws=table.with_interval(scored.over_draws) if scored.over_draws else "",
        curves=comparison_figures.curves(f"curves-{number}", comparison.curves, own, comparison.objective)
        if comparison.curves
        else None,
        angles=angle_map(f"angles-{number}", comparison.head_angles, comparison.layers)
        if comparison.head_angles
        else None,
        gained=list(_flips(scored, metric, right=EDITED, wrong=scored.base)),
        lost=list(_flips(scored, metric, right=scored.base, wrong=EDITED)),
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


def _flips(scored: ScoredComparison, metric: str, right: str, wrong: str) -> Iterator[ChangedDocument]:
    comparison, answers = scored.comparison, METRICS[metric].answers
    base, edited = (answers(comparison.arm(name)) for name in (scored.base, EDITED))
    rights, wrongs = (answers(comparison.arm(name)) for name in (right, wrong))
    for i, gold in enumerate(comparison.gold):
        if rights[i] == gold != wrongs[i]:
            yield ChangedDocument(comparison.texts[i], *(_answer(answer) for answer in (gold, base[i], edited[i])))


def _answer(index: int) -> str:
    return "none of the choices" if index == OUTSIDE else str(index)


def _settings(comparison: Comparison) -> Iterator[tuple[str, str]]:
    yield "model", comparison.model
    yield "task", comparison.task
    yield "shots", comparison.shots
    yield "seed", str(comparison.seed)
    yield "labelled samples", str(comparison.samples)
    yield (
        "search",
        f"{comparison.search} in {comparison.space}, a budget of {comparison.budget} evaluations, {comparison.objective}",
    )
    yield "adapter", comparison.adapter
    yield (
        "documents",
        f"{len(comparison.keys)}, digest {hashlib.sha256(json.dumps(comparison.keys).encode()).hexdigest()[:16]}",
    )
    ratio = (
        f", {comparison.seconds / comparison.reference_seconds:.3g} times the reference workload"
        if comparison.reference_seconds
        else ""
    )
    yield "time", f"{table.duration(comparison.seconds)} s{ratio}"
    yield "versions", ", ".join(f"{name} {version}" for name, version in sorted(comparison.versions.items()))
