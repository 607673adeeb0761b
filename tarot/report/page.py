"""The report: one HTML file that needs no network, no script and no other file."""

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
from tarot.evaluation.changes import ChangedDocument
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
from tarot.report import table
from tarot.report.comparison_figures import Interval, forest, has_scores, search_curves
from tarot.report.head_figures import angle_kind, angle_map
from tarot.report.pictures import Picture, read_pictures
from tarot.report.rewards import FRONT_HEADER, TEXTS_HEADER, reward_section
from tarot.report.svg import without_controls

PAGE = "index.html"
SIDE_EFFECT_FIGURES = frozenset({"effects", "tradeoff"})
"""Figures of `tarot effects`; the page shows all others under the mechanism."""


@dataclass(frozen=True)
class Answers:
    """A document that exactly one of base and edited model answers right, with their answers in words."""

    text: str
    right: str
    base: str
    edited: str


@dataclass(frozen=True)
class GainCounts:
    """How many gains there are, and how many of their intervals lie above zero, below it, or contain it."""

    total: int
    above: int
    below: int
    across: int


@dataclass(frozen=True)
class Section:
    """What the page shows of one comparison; `name` is unique on the page."""

    comparison: Comparison
    name: str
    base: str
    arms: Sequence[Sequence[str]]
    over_draws: str
    curves: Markup | None
    angles: Markup | None
    angle_kind: str
    fixed: Sequence[Answers]
    broken: Sequence[Answers]
    settings: Sequence[tuple[str, str]]


def write_report(
    comparisons: Sequence[Comparison],
    folder: str | Path,
    metric: str = HEADLINE,
    analyses: Sequence[str | Path] = (),
    rewarded: Sequence[RewardComparison] = (),
    verdicts: Sequence[tuple[str, bool, str]] = (),
) -> Path:
    """Write `folder/index.html` and return its path; the same results and figures give the same bytes.

    Args:
        comparisons: what `tarot.compare` or `tarot bench` measured.
        folder: folder of the page.
        metric: one of METRICS.
        analyses: folders that `tarot analysis` and `tarot effects` wrote; the page shows their figures.
        rewarded: comparisons of texts, scored by a reward.
        verdicts: what a regression gate found: the name of a comparison, whether it failed, and the reasons.

    Raises:
        UnknownName: no such metric.
        TarotError: a comparison has no base or no edited arm, an analysis has no figures, or the folder cannot be
            written.

    Example:
        >>> write_report([comparison], "my-report")
        PosixPath('my-report/index.html')
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
    """Return the page as text; arguments and errors are those of `write_report`, with figures instead of folders."""
    scored_comparisons = score_comparisons(comparisons, metric)
    reward_comparisons = sorted(rewarded, key=lambda each: (each.id, each.adapter))
    labels = comparison_labels(scored_comparisons)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["minus"] = lambda text: re.sub(r"-(?=\d)", "\N{MINUS SIGN}", text)
    template, style = (files("tarot.report").joinpath(name).read_text(encoding="utf-8") for name in _TEMPLATE)
    return environment.from_string(template).render(
        title=_title([*comparisons, *reward_comparisons]),
        style=Markup(style),
        metric=metric_named(metric).title,
        notes=[note for scored in scored_comparisons for note in missing_number_notes(scored.comparison)],
        verdicts=verdicts,
        gain_counts=_count_gains([scored.gain for scored in scored_comparisons]),
        reward_counts=_count_gains([each.gain for each in reward_comparisons]),
        header=table.HEADER,
        rows=table.summary(scored_comparisons),
        has_draws=any(scored.over_draws for scored in scored_comparisons),
        forest=_forest(scored_comparisons, metric) if scored_comparisons else None,
        seeds=list(_seed_rows(scored_comparisons)),
        side_effects=_select_pictures(analyses, lambda name: name in SIDE_EFFECT_FIGURES),
        mechanism=_select_pictures(analyses, lambda name: name not in SIDE_EFFECT_FIGURES),
        arm_header=("arm", "gain", "p", *METRICS, "gold prob.", "labels", "seconds"),
        sections=[
            _section(number, scored, label, metric)
            for number, (scored, label) in enumerate(zip(scored_comparisons, labels, strict=True), start=1)
        ],
        texts_header=TEXTS_HEADER,
        front_header=FRONT_HEADER,
        rewards=[reward_section(number, each) for number, each in enumerate(reward_comparisons, start=1)],
    )


_TEMPLATE = ("page.html", "page.css")


def _title(comparisons: Sequence[Comparison | RewardComparison]) -> str:
    """Name the tasks and models, or count them if there are more than two."""
    tasks = list(dict.fromkeys(comparison.task for comparison in comparisons))
    models = list(dict.fromkeys(comparison.model for comparison in comparisons))
    parts = [
        ", ".join(sorted(names)) if len(names) < 3 else f"{len(names)} {kind}"
        for names, kind in ((tasks, "tasks"), (models, "models"))
    ]
    return f"tarot report: {parts[0]} with {parts[1]}" if comparisons else "tarot report"


def _select_pictures(analyses: Sequence[Sequence[Picture]], select: Callable[[str], bool]) -> list[list[Picture]]:
    """Return the selected figures of each analysis that has any."""
    selected = ([picture for picture in pictures if select(picture.name)] for pictures in analyses)
    return [pictures for pictures in selected if pictures]


def _count_gains(gains: Sequence[Gain | Difference]) -> GainCounts:
    above, below = sum(gain.low > 0 for gain in gains), sum(gain.high < 0 for gain in gains)
    return GainCounts(len(gains), above, below, len(gains) - above - below)


def _forest(scored_comparisons: Sequence[ScoredComparison], metric: str) -> Markup:
    # Labels are short, so leave out what all comparisons share.
    several_models = len({scored.comparison.model for scored in scored_comparisons}) > 1
    several_seeds = len({scored.comparison.seed for scored in scored_comparisons}) > 1
    intervals = []
    for scored, search in zip(scored_comparisons, comparison_labels(scored_comparisons), strict=True):
        comparison, gain = scored.comparison, scored.gain
        label = f"{comparison.task}, {comparison.shots}-shot" + f", seed {comparison.seed}" * several_seeds
        label += f", {search}" * bool(search) + f", {comparison.model}" * several_models
        intervals.append(Interval(label, gain.value, gain.low, gain.high))
    for search, group in group_by_search(scored_comparisons).items():
        for name in compared_arms(group):
            if name == EDITED and len(group) == 1:
                continue  # the mean would repeat the comparison
            mean = mean_gain(group, lambda scored, name=name: scored.gains.get(name))  # type: ignore[misc]  # a lambda with a default has no type
            label = f"mean: {name}" + f", {search}" * bool(search)
            intervals.append(Interval(label, mean.value, mean.low, mean.high, is_mean=True))
    return forest(intervals, f"gain in {metric_named(metric).title} over the base")


def _seed_rows(scored_comparisons: Sequence[ScoredComparison]) -> Iterator[tuple[str, ...]]:
    """Yield one row for each setting that was measured with several seeds."""
    for search, group in group_by_search(scored_comparisons).items():
        for same_setting in group_by_setting(group):
            mean = mean_over_seeds([scored.gain for scored in same_setting])
            if mean.between is not None:
                comparison = same_setting[0].comparison
                yield (
                    comparison.model,
                    comparison.task,
                    comparison.shots,
                    search,
                    table.with_interval(mean),
                    table.fraction(mean.between),
                    table.fraction(mean.within),
                    str(mean.count),
                )


def _section(number: int, scored: ScoredComparison, label: str, metric: str) -> Section:
    comparison = scored.comparison
    own_search = comparison.search if comparison.search in comparison.curves else next(iter(comparison.curves), "")
    curves = angles = None
    if has_scores(comparison.curves):
        curves = search_curves(f"curves-{number}", comparison.curves, own_search, comparison.objective)
    if comparison.head_angles:
        angles = angle_map(f"angles-{number}", comparison.head_angles, comparison.layers)
    changed = comparison.changed(metric)
    return Section(
        comparison=comparison,
        name=comparison.id + f", {label}" * bool(label),
        base=scored.base,
        arms=[_arm_row(scored, name) for name in scored.arms],
        over_draws=table.with_interval(scored.over_draws) if scored.over_draws else "",
        curves=curves,
        angles=angles,
        angle_kind=angle_kind(comparison.head_angles),
        fixed=[_answers(document) for document in changed.fixed],
        broken=[_answers(document) for document in changed.broken],
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


def _answers(document: ChangedDocument) -> Answers:
    right, base, edited = (
        "none of the choices" if index == OUTSIDE else str(index)
        for index in (document.gold, document.base, document.edited)
    )
    return Answers(document.text, right, base, edited)


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
    ratio = ""
    if comparison.reference_seconds:
        ratio = f", {comparison.seconds / comparison.reference_seconds:.3g} times the reference workload"
    yield "time", f"{table.duration(comparison.seconds)} s{ratio}"
    yield "versions", ", ".join(f"{name} {version}" for name, version in sorted(comparison.versions.items()))
