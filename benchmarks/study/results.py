"""Write RESULTS.md, the study's README and their pictures from the study's files: `python -m benchmarks.study.results`.

The texts stand in `RESULTS.in.md` and `README.in.md`; their tables and numbers are computed (`figures`).
"""

import argparse
import statistics
from pathlib import Path

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

from benchmarks.study import (
    development_tables,
    effect_tables,
    grid,
    retention_tables,
    reward_tables,
    sizes,
    tables,
)
from benchmarks.study.cross_validation import cross_validation
from benchmarks.study.effect_tables import RecordedEffects
from benchmarks.study.figures import Figures, fill
from benchmarks.study.grid import Cell
from benchmarks.study.markdown import reflow
from benchmarks.study.recorded import RecordedCells
from benchmarks.study.retention import DOCUMENTS
from tarot.evaluation.statistics.seeds import mean_over_settings
from tarot.report.figures.comparison import Interval, forest
from tarot.report.figures.side_effects import strength_curves
from tarot.report.figures.svg import write_svg
from tarot.search.config import MAX_KL

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TITLES = {"smollm2": "SmolLM2-135M", "gemma3": "Gemma 3 270M"}
PAGES = {"RESULTS.in.md": ROOT / "RESULTS.md", "README.in.md": HERE / "README.md"}


def write_pages(cells: RecordedCells, effects: RecordedEffects) -> dict[Path, str]:
    """Return the text of each page, by its path."""
    contents = {
        "summary": tables.summary(cells),
        "goals": tables.goals(cells),
        "repeated": tables.repeated(cells),
        "by_metric": tables.by_metric(cells),
        "ablations": tables.ablations(cells),
        "costs": tables.costs(cells),
        "fit": tables.fit(cells),
        "side_effects": effect_tables.side_effects(cells, effects),
        "strengths": effect_tables.strengths(effects),
        "searches": development_tables.searches(),
        "gradients": development_tables.gradients(),
        "trust_regions": development_tables.trust_regions(),
        "gradient_share": f"{development_tables.gain_share('bo-gradient')[0]:.0%}",
        "gradient_cells": str(development_tables.gain_share("bo-gradient")[1]),
        "spaces": development_tables.spaces(),
        "classes": development_tables.classes(),
        "stopping": development_tables.stopping(),
        "remedies": development_tables.remedies(),
        "cross_validation": cross_validation(cells),
        "sizes": sizes.sizes(),
        "sizes_by_task": sizes.by_task(),
        "retention": retention_tables.retention(),
        "retention_means": retention_tables.compared(),
        "other_templates": retention_tables.other_templates(),
        "falls": retention_tables.falls(),
        "near_chance": retention_tables.near_chance(),
        "rounding": retention_tables.rounding(),
        "named_tasks": retention_tables.named_tasks(),
        "noise": development_tables.noise(),
        "rewards": reward_tables.rewards(),
        "followed": reward_tables.followed_gains(),
        "retention_documents": str(DOCUMENTS),
        "max_kl": f"{MAX_KL:g}",
        "development": development_tables.development(),
    }
    for shots in grid.SHOTS:
        contents[f"scores_{shots}"] = tables.scores(cells, shots)
        contents[f"against_{shots}"] = tables.against(cells, shots)
    figures = Figures(cells, effects)
    return {path: reflow(fill((HERE / name).read_text(), figures, contents)) for name, path in PAGES.items()}


def plot_curves(cells: RecordedCells, path: Path) -> None:
    """Plot the best score so far against evaluations spent: means over development cells, searches on equal samples."""
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "tarot"})
    figure = Figure(figsize=(7.2, 3.6), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    for method, changes in grid.SEARCHES.items():
        if {"num_samples", "num_fewshot"} & changes.keys():
            continue
        curves = [methods[method]["curve"] for cell in grid.DEVELOPMENT if method in (methods := cells.records[cell])]
        if len(curves) == len(grid.DEVELOPMENT):
            best = [[max(curve[: i + 1]) for i in range(grid.BUDGET)] for curve in curves]
            axes.plot(range(1, grid.BUDGET + 1), [statistics.mean(at) for at in zip(*best, strict=True)], label=method)
    axes.set_xlabel("evaluations spent")
    axes.set_ylabel("best log-probability so far, nats")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Date": None})


def gains_figure(cells: RecordedCells) -> Markup:
    """Draw the default's gain over zero-shot prompts for each model and task, and their mean."""
    intervals = []
    for model in grid.MODELS:
        for task in grid.TASKS:
            seeds = [cells.gain(Cell(model, task, 0, seed), "default", "base") for seed in grid.SEEDS]
            gain = mean_over_settings([[gain for gain in seeds if gain]])
            intervals.append(Interval(f"{TITLES[model]}, {task}", gain.value, gain.low, gain.high))
    mean = mean_over_settings(cells.gains(0, "default", "base"))
    intervals.append(Interval("mean", mean.value, mean.low, mean.high, is_mean=True))
    return forest(intervals, "gain over zero-shot prompts, weighted F1")


def main() -> None:
    """Write the pages and pictures."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    cells, effects = RecordedCells.load(HERE / "cells"), RecordedEffects.load(HERE / "effects")
    plot_curves(cells, HERE / "curves.svg")
    sizes.plot_sizes(HERE / "sizes.svg")
    write_svg(ROOT / "docs" / "_static" / "gains.svg", gains_figure(cells))
    write_svg(HERE / "strengths.svg", strength_curves("strengths", effects.strengths))
    for path, text in write_pages(cells, effects).items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
