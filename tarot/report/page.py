"""The report: one HTML page that needs no network and no other file, with the numbers behind it as CSV beside it."""

import base64
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from tarot._files.atomic import write_atomically
from tarot.evaluation.regression.verdict import Verdict
from tarot.evaluation.results.comparison import EDITED, HEADLINE, Comparison
from tarot.evaluation.results.metrics import METRICS
from tarot.evaluation.results.notes import missing_number_notes
from tarot.evaluation.results.reward_comparison import RewardComparison
from tarot.evaluation.results.scored_comparison import (
    ScoredComparison,
    compared_arms,
    comparison_labels,
    group_by_search,
    group_by_setting,
    mean_gain,
    score_comparisons,
)
from tarot.evaluation.statistics.seeds import MeanGain, mean_over_seeds
from tarot.report import table
from tarot.report.answer import Answer, answer_reward, answer_several
from tarot.report.costs import COST_HEADER
from tarot.report.data_files import Tables, comparison_tables, overview_tables, reward_tables, write_tables
from tarot.report.document_table import MOST_DOCUMENTS, document_rows, shown_documents
from tarot.report.figures.comparison import Interval, forest
from tarot.report.figures.pictures import Picture, read_pictures
from tarot.report.figures.svg import without_controls
from tarot.report.rewards import FRONT_HEADER, TEXTS_HEADER, reward_section
from tarot.report.sections import ARMS_HEADER, ARMS_LEGEND, section
from tarot.report.side_effect_words import Costs, describe_costs, describe_other_adapters, read_costs
from tarot.report.verdict_text import HEADER, SHOWN_DOCUMENTS, score_legend, score_rows

PAGE = "index.html"
SIDE_EFFECT_FIGURES = frozenset({"effects", "tradeoff"})
"""Figures of `tarot effects`; the page shows all others under the mechanism."""
ANSWERS_SHOWN = 3
"""Reward comparisons whose answer opens the page; of more, the sections have them."""


@dataclass(frozen=True)
class Gate:
    """Findings of a regression gate and of the test run around it.

    Attributes:
        verdicts: the gate's verdict on each comparison.
        accept: how to accept an intended change, a sentence.
        outcome: how the test run ended, a sentence; "" if it passed, or if there was none.
    """

    verdicts: Sequence[Verdict] = ()
    accept: str = ""
    outcome: str = ""


def write_report(
    comparisons: Sequence[Comparison],
    folder: str | Path,
    metric: str = HEADLINE,
    analyses: Sequence[str | Path] = (),
    rewards: Sequence[RewardComparison] = (),
    gate: Gate | None = None,
) -> Path:
    """Write `folder/index.html` and CSV files, and return the page's path; the same results give the same bytes.

    Args:
        comparisons: what `tarot.compare` or `tarot bench` measured.
        folder: folder of the page.
        metric: one of METRICS.
        analyses: folders that `tarot analysis` and `tarot effects` wrote; the page shows their figures.
        rewards: comparisons of texts, scored by a reward.
        gate: what a regression gate found.

    Raises:
        UnknownName: no such metric.
        TarotError: a comparison has no base or no edited arm, an analysis has no figures, or the folder cannot be
            written.

    Example:
        >>> write_report([comparison], "my-report")
        PosixPath('my-report/index.html')
    """
    folder = Path(folder)
    pictures = [_with_unique_data(i, read_pictures(analysis)) for i, analysis in enumerate(analyses, start=1)]
    costs = [each for analysis in analyses for each in read_costs(analysis)]
    page, tables = render(comparisons, metric, pictures, rewards, gate, costs)
    write_atomically(folder / PAGE, without_controls(page).encode())
    write_tables(tables, folder)
    numbers = {picture.data_name: picture.data for each in pictures for picture in each if picture.data}
    for name, content in numbers.items():
        write_atomically(folder / name, content)
    for path in folder.glob("figures-[0-9]*-*.csv"):  # of an earlier page
        if path.name not in numbers:
            path.unlink()
    return folder / PAGE


def render(
    comparisons: Sequence[Comparison],
    metric: str = HEADLINE,
    analyses: Sequence[Sequence[Picture]] = (),
    rewards: Sequence[RewardComparison] = (),
    gate: Gate | None = None,
    costs: Sequence[Costs] = (),
) -> tuple[str, Tables]:
    """Return the page of `write_report`, and the tables that it links.

    Args:
        comparisons: what `tarot.compare` or `tarot bench` measured.
        metric: one of METRICS.
        analyses: figures of each analysis.
        rewards: comparisons of texts, scored by a reward.
        gate: what a regression gate found.
        costs: measured side effects.

    Raises:
        UnknownName: no such metric.
        TarotError: a comparison has no base or no edited arm.
    """
    gate = gate or Gate()
    scored = score_comparisons(comparisons, metric)
    rewards = sorted(rewards, key=lambda each: (each.id, each.adapter))
    names = [
        each.comparison.id + f", {label}" * bool(label)
        for each, label in zip(scored, comparison_labels(scored), strict=True)
    ]
    documents = [document_rows(each.comparison, metric) for each in scored]
    shown = shown_documents(documents)
    intervals = _intervals(scored)
    means = table.arm_means(scored) if len(scored) > 1 else []
    seeds = _means_over_seeds(scored)
    compared = {each.adapter for each in comparisons} | {each.adapter for each in rewards}
    most_texts = MOST_DOCUMENTS // max(1, len(rewards))
    reward_sections = [reward_section(n, each, most_texts) for n, each in enumerate(rewards, start=1)]
    tables = (
        comparison_tables(scored, names, documents)
        | overview_tables(means, intervals, seeds, gate.verdicts)
        | reward_tables(reward_sections)
    )
    parts = enumerate(zip(scored, names, documents, shown, strict=True), start=1)
    sections = [
        section(number, each, name, metric, every, listed, costs) for number, (each, name, every, listed) in parts
    ]
    style, script = map(_read_file, ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    title, unit = _title([*comparisons, *rewards]), METRICS[metric].title
    values = dict(
        title=title,
        style=Markup(style),
        script=Markup(script),
        script_hash=digest,
        tables=tables,
        metric=unit,
        answers=_answers(scored, metric, rewards, costs, [each.answer for each in sections]),
        provenance=_provenance([*(each.comparison for each in scored), *rewards]),
        notes=[note for each in scored for note in missing_number_notes(each.comparison)],
        gate=gate,
        gate_header=HEADER,
        gate_rows=score_rows,
        gate_legend=score_legend,
        lost_shown=SHOWN_DOCUMENTS,
        header=table.HEADER,
        rows=table.summary(scored),
        arm_means_header=table.ARM_MEANS_HEADER,
        arm_means=table.arm_mean_rows(means),
        has_draws=any(each.over_draws for each in scored),
        forest=forest(intervals, f"gain in {unit} over the base") if scored else None,
        has_means=any(interval.is_mean for interval in intervals),
        seeds=_seed_rows(seeds),
        side_effects=_select_pictures(analyses, lambda name: name in SIDE_EFFECT_FIGURES),
        costs=describe_costs(costs, compared),
        other_adapters=describe_other_adapters(costs, compared),
        mechanism=_select_pictures(analyses, lambda name: name not in SIDE_EFFECT_FIGURES),
        arm_header=ARMS_HEADER,
        arm_legend=ARMS_LEGEND,
        cost_header=COST_HEADER,
        sections=sections,
        texts_header=TEXTS_HEADER,
        front_header=FRONT_HEADER,
        rewards=[(each, answer_reward(each.comparison, costs)) for each in reward_sections],
    )
    return _template().render(values), tables


def _read_file(name: str) -> str:
    return files("tarot.report").joinpath(name).read_text(encoding="utf-8")


@cache  # compiling it takes as long as a small page
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["minus"] = lambda text: re.sub(r"(?<!\w)-(?=\d)", "\N{MINUS SIGN}", text)
    environment.filters["address"] = quote
    return environment.from_string(_read_file("macros.html") + _read_file("page.html"))


def _title(comparisons: Sequence[Comparison | RewardComparison]) -> str:
    """Name the tasks and models, or count them if there are more than two."""
    tasks = list(dict.fromkeys(comparison.task for comparison in comparisons))
    models = list(dict.fromkeys(comparison.model for comparison in comparisons))
    parts = [
        ", ".join(sorted(names)) if len(names) < 3 else f"{len(names)} {kind}"
        for names, kind in ((tasks, "tasks"), (models, "models"))
    ]
    return f"tarot report: {parts[0]} with {parts[1]}" if comparisons else "tarot report"


def _answers(
    scored: Sequence[ScoredComparison],
    metric: str,
    rewards: Sequence[RewardComparison],
    costs: Sequence[Costs],
    own: Sequence[Answer],
) -> list[Answer]:
    """Return the answers that open the page: of the one comparison, or of all together, and of a few rewards."""
    answers = list(own) if len(own) < 2 else [answer_several(scored, metric, costs)]
    return answers + [answer_reward(each, costs) for each in rewards[:ANSWERS_SHOWN]]


def _provenance(comparisons: Sequence[Comparison | RewardComparison]) -> str:
    """Say when, where and with what the comparisons were measured, as far as they record it."""
    dates = sorted({comparison.date for comparison in comparisons if comparison.date})
    machines = sorted({comparison.machine for comparison in comparisons if comparison.machine})
    versions = sorted({f"{name} {version}" for each in comparisons for name, version in each.versions.items()})
    parts = [
        f"measured {dates[0]}" + f" to {dates[-1]}" * (len(dates) > 1) if dates else "",
        f"on {'; '.join(machines)}" if machines else "",
        f"with {', '.join(versions)}" if versions else "",
    ]
    text = " ".join(filter(None, parts))
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _with_unique_data(number: int, pictures: Sequence[Picture]) -> list[Picture]:
    """Name the pictures' tables so that several folders do not overwrite each other's."""
    return [
        replace(picture, data_name=f"figures-{number}-{picture.data_name}") if picture.data_name else picture
        for picture in pictures
    ]


def _select_pictures(analyses: Sequence[Sequence[Picture]], select: Callable[[str], bool]) -> list[list[Picture]]:
    """Return the selected figures of each analysis that has any."""
    selected = ([picture for picture in pictures if select(picture.name)] for pictures in analyses)
    return [pictures for pictures in selected if pictures]


def _intervals(scored_comparisons: Sequence[ScoredComparison]) -> list[Interval]:
    """Return the lines of the figure of gains: each comparison, then the arms of each search."""
    # Labels are short, so leave out what all comparisons share.
    several_models = len({scored.comparison.model for scored in scored_comparisons}) > 1
    several_seeds = len({scored.comparison.seed for scored in scored_comparisons}) > 1
    intervals = []
    for scored, search in zip(scored_comparisons, comparison_labels(scored_comparisons), strict=True):
        comparison, gain = scored.comparison, scored.gain
        label = f"{comparison.task}, {comparison.shots}-shot" + f", seed {comparison.seed}" * several_seeds
        label += f", {search}" * bool(search) + f", {comparison.model}" * several_models
        label = EDITED if len(scored_comparisons) == 1 else label  # the title names the rest
        intervals.append(Interval(label, gain.value, gain.low, gain.high))
    for search, group in group_by_search(scored_comparisons).items():
        for name in compared_arms(group):
            if name == EDITED and len(group) == 1:
                continue  # the mean would repeat the comparison
            mean = _mean_gain_of(group, name)
            label = "mean: " * (len(group) > 1) + name + f", {search}" * bool(search)
            intervals.append(Interval(label, mean.value, mean.low, mean.high, is_mean=len(group) > 1))
    return intervals


def _mean_gain_of(scored_comparisons: Sequence[ScoredComparison], name: str) -> MeanGain:
    return mean_gain(scored_comparisons, lambda scored: scored.gains.get(name))


def _means_over_seeds(scored_comparisons: Sequence[ScoredComparison]) -> list[tuple[tuple[str, ...], MeanGain]]:
    """Return model, task, shots and search, and the mean gain, of each setting measured with several seeds."""
    means: list[tuple[tuple[str, ...], MeanGain]] = []
    for search, group in group_by_search(scored_comparisons).items():
        for same_setting in group_by_setting(group):
            mean = mean_over_seeds([scored.gain for scored in same_setting])
            if mean.between is not None:
                comparison = same_setting[0].comparison
                means.append(((comparison.model, comparison.task, comparison.shots, search), mean))
    return means


def _seed_rows(means: Sequence[tuple[tuple[str, ...], MeanGain]]) -> list[tuple[str, ...]]:
    return [
        (
            *setting,
            table.with_interval(mean),
            table.fraction(mean.between or 0.0),
            table.fraction(mean.within),
            str(mean.count),
        )
        for setting, mean in means
    ]
