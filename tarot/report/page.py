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
from tarot.evaluation.comparison import (
    HEADLINE,
    METRICS,
    Comparison,
    arms_compared,
    by_search,
    by_setting,
    compare,
    mean_gain,
    metric_named,
    told_apart,
)
from tarot.evaluation.results import EDITED, OUTSIDE, Arm, Cell, number_notes
from tarot.evaluation.reward_results import Rewarded
from tarot.evaluation.statistics import Difference, Gain, mean_over_seeds
from tarot.report import figures, table
from tarot.report.folder import Picture, pictures, without_controls
from tarot.report.rewards import ARMS_HEADER, FRONT_HEADER, reward_section

PAGE = "index.html"


@dataclass(frozen=True)
class Flip:
    """A document that one of base and edited answers right and the other wrong, with the answers as choices."""

    text: str
    right: str
    base: str
    edited: str


@dataclass(frozen=True)
class Section:
    """All that the page shows of one cell, under a name that no other has."""

    cell: Cell
    name: str
    base: str
    arms: Sequence[Sequence[str]]
    over_draws: str
    curves: Markup | None
    angles: Markup | None
    gained: Sequence[Flip]
    lost: Sequence[Flip]
    settings: Sequence[tuple[str, str]]


def write_report(
    cells: Sequence[Cell],
    folder: str | Path,
    metric: str = HEADLINE,
    analyses: Sequence[str | Path] = (),
    rewarded: Sequence[Rewarded] = (),
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
    page = render(cells, metric, [pictures(analysis) for analysis in analyses], rewarded, verdicts)
    write_atomically(path, without_controls(page).encode())
    return path


def render(
    cells: Sequence[Cell],
    metric: str = HEADLINE,
    analyses: Sequence[Sequence[Picture]] = (),
    rewarded: Sequence[Rewarded] = (),
    verdicts: Sequence[tuple[str, bool, str]] = (),
) -> str:
    """The page as text."""
    comparisons = compare(cells, metric)
    ordered = sorted(rewarded, key=lambda each: (each.id, each.adapter))
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["minus"] = lambda text: re.sub(r"-(?=\d)", "\N{MINUS SIGN}", text)
    page = environment.from_string(files("tarot.report").joinpath("page.html").read_text(encoding="utf-8"))
    return page.render(
        metric=metric_named(metric).title,
        notes=[note for comparison in comparisons for note in number_notes(comparison.cell)],
        verdicts=verdicts,
        cells=_spread([comparison.gain for comparison in comparisons]),
        texts=_spread([each.gain for each in ordered]),
        header=table.HEADER,
        rows=table.summary(comparisons),
        forest=_forest(comparisons) if comparisons else None,
        seeds=list(_seeds(comparisons)),
        analyses=analyses,
        arm_header=("arm", "gain", "p", *METRICS, "gold prob.", "labels", "seconds"),
        sections=[
            _section(number, *each, metric)
            for number, each in enumerate(zip(comparisons, told_apart(comparisons), strict=True), start=1)
        ],
        arms_header=ARMS_HEADER,
        front_header=FRONT_HEADER,
        rewards=[reward_section(number, each) for number, each in enumerate(ordered, start=1)],
    )


def _spread(gains: Sequence[Gain | Difference]) -> tuple[int, int, int, int]:
    """How many there are, and how many intervals lie above zero, below it, and across."""
    above, below = sum(gain.low > 0 for gain in gains), sum(gain.high < 0 for gain in gains)
    return len(gains), above, below, len(gains) - above - below


def _forest(comparisons: Sequence[Comparison]) -> Markup:
    # What all cells share is left out: there is room for little.
    several_models, several_seeds = (
        len({getattr(comparison.cell, of) for comparison in comparisons}) > 1 for of in ("model", "seed")
    )
    intervals = []
    for comparison, search in zip(comparisons, told_apart(comparisons), strict=True):
        cell, gain = comparison.cell, comparison.gain
        label = f"{cell.task}, {cell.shots}-shot" + f", seed {cell.seed}" * several_seeds
        label += f", {search}" * bool(search) + f", {cell.model}" * several_models
        intervals.append(figures.Interval(label, gain.value, gain.low, gain.high))
    for search, alike in by_search(comparisons).items():
        for name in arms_compared(alike):
            mean = mean_gain(alike, lambda comparison, name=name: comparison.gains.get(name))  # type: ignore[misc]  # a default
            label = f"mean: {name}" + f", {search}" * bool(search)
            intervals.append(figures.Interval(label, mean.value, mean.low, mean.high, is_mean=True))
    return figures.forest(intervals)


def _seeds(comparisons: Sequence[Comparison]) -> Iterator[tuple[str, ...]]:
    """One row a setting that was measured with several seeds."""
    for search, alike in by_search(comparisons).items():
        for group in by_setting(alike):
            mean = mean_over_seeds([comparison.gain for comparison in group])
            if mean.between is not None:
                cell = group[0].cell
                spreads = (table.fraction(mean.between), table.fraction(mean.within))
                yield (cell.model, cell.task, cell.shots, search, table.with_interval(mean), *spreads, str(mean.count))


def _section(number: int, comparison: Comparison, search: str, metric: str) -> Section:
    cell = comparison.cell
    own = cell.search if cell.search in cell.curves else next(iter(cell.curves), "")
    return Section(
        cell=cell,
        name=cell.id + f", {search}" * bool(search),
        base=comparison.base,
        arms=[_arm_row(comparison, name) for name in comparison.arms],
        over_draws=table.with_interval(comparison.over_draws) if comparison.over_draws else "",
        curves=figures.curves(f"curves-{number}", cell.curves, own, cell.objective) if cell.curves else None,
        angles=figures.angle_map(f"angles-{number}", cell.head_angles, cell.layers) if cell.head_angles else None,
        gained=list(_flips(comparison, metric, right=EDITED, wrong=comparison.base)),
        lost=list(_flips(comparison, metric, right=comparison.base, wrong=EDITED)),
        settings=list(_settings(cell)),
    )


def _arm_row(comparison: Comparison, name: str) -> tuple[str, ...]:
    gold, gain, arms = comparison.cell.gold, comparison.gains.get(name), comparison.arms[name]

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


def _flips(comparison: Comparison, metric: str, right: str, wrong: str) -> Iterator[Flip]:
    cell, answers = comparison.cell, METRICS[metric].answers
    base, edited = (answers(cell.arm(name)) for name in (comparison.base, EDITED))
    rights, wrongs = (answers(cell.arm(name)) for name in (right, wrong))
    for i, gold in enumerate(cell.gold):
        if rights[i] == gold != wrongs[i]:
            yield Flip(cell.texts[i], *(_answer(answer) for answer in (gold, base[i], edited[i])))


def _answer(index: int) -> str:
    return "none of the choices" if index == OUTSIDE else str(index)


def _settings(cell: Cell) -> Iterator[tuple[str, str]]:
    yield "model", cell.model
    yield "task", cell.task
    yield "shots", cell.shots
    yield "seed", str(cell.seed)
    yield "labelled samples", str(cell.samples)
    yield "search", f"{cell.search} in {cell.space}, a budget of {cell.budget} evaluations, {cell.objective}"
    yield "adapter", cell.adapter
    yield "documents", f"{len(cell.keys)}, digest {hashlib.sha256(json.dumps(cell.keys).encode()).hexdigest()[:16]}"
    ratio = (
        f", {cell.seconds / cell.reference_seconds:.3g} times the reference workload" if cell.reference_seconds else ""
    )
    yield "time", f"{table.duration(cell.seconds)} s{ratio}"
    yield "versions", ", ".join(f"{name} {version}" for name, version in sorted(cell.versions.items()))
