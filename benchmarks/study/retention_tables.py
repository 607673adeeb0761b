"""What a limit of divergence keeps: a table of whatever `retention.py` has measured."""

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.study import grid
from benchmarks.study.grid import Cell
from benchmarks.study.markdown import table
from benchmarks.study.records import Record, read_records
from benchmarks.study.retention import ARMS, BASE, EARLIER, NAMED, NO_LIMIT, TRAINED, summarize, summarize_others
from benchmarks.study.rounding import FORMATS, record_name
from tarot.evaluation.statistics.gains import f1_gain

HERE = Path(__file__).parent
SHOWN = (NO_LIMIT, *EARLIER, *(arm for arm in ARMS if arm != NO_LIMIT), *TRAINED)
# A synthetic task with the template of a task of the study, and other documents: an edit for one answers the other too.
SAME_TEMPLATE = {"entailed_polarity": "synth_implicatives"}
OTHER_COLUMNS = ("KL", "perplexity", "change elsewhere", "worst", "same answers")
COLUMNS = ("arm", "gain", *OTHER_COLUMNS, "evaluations")
LARGEST_LOSS = 0.05  # of weighted F1 on a task that was neither tuned on nor retained: the goal


def measured_arms(folder: Path) -> Iterator[tuple[Cell, str, Record, Record]]:
    """Yield each measured cell and arm with its record and that of the unedited model, arms of one cell together.

    Args:
        folder: the records.
    """
    records = read_records(folder)
    for shots, model, task, seed in product(grid.SHOTS, grid.REFERENCES, grid.TASKS, grid.SEEDS):
        cell = Cell(model, task, shots, seed)
        base = records.get(f"{model}-{task}-{shots}-{BASE}")
        for arm in SHOWN:
            if base and (record := records.get(cell.record_name(arm))):
                yield cell, arm, record, base


def summaries(folder: Path) -> Iterator[tuple[Cell, str, dict[str, Any]]]:
    """Yield each measured cell and arm with its summary.

    Args:
        folder: the records.
    """
    for cell, arm, record, base in measured_arms(folder):
        yield cell, arm, summarize(record, base) | {"spent": record["spent"]}


def retention(folder: Path = HERE / "retention-records") -> str:
    """Show gain, divergence and what became of the other tasks, and the mean of every arm over the cells that all have.

    Args:
        folder: the records.
    """
    measured = list(summaries(folder))
    rows = [
        [cell.model, cell.task, str(cell.shots), str(cell.seed), arm, *_columns([summary])]
        for cell, arm, summary in measured
    ]
    for arm in SHOWN:
        cells = {cell for cell, each, _ in measured if each == arm}
        common = cells & {cell for cell, each, _ in measured if each == NO_LIMIT}
        for each in dict.fromkeys((NO_LIMIT, arm)):
            of_arm = [summary for cell, name, summary in measured if name == each and cell in common]
            if len(of_arm) > 1 and arm != NO_LIMIT:
                rows.append(["mean", f"{len(of_arm)} cells", "", "", each, *_columns(of_arm)])
    return table(("model", "task", "shots", "seed", *COLUMNS), rows)


def compared(folder: Path = HERE / "retention-records") -> str:
    """Show the means of arms over the cells that all of them have: the limit on each model, then LoRA beside the edit.

    Args:
        folder: the records.
    """
    measured = {(cell, arm): summary for cell, arm, summary in summaries(folder)}
    rows = []
    everywhere, without_shots = tuple(grid.REFERENCES), grid.SHOTS[:1]
    groups: list[tuple[tuple[str, ...], tuple[int, ...], tuple[str, ...]]] = [
        *(((model,), (shots,), (NO_LIMIT, "default")) for shots in grid.SHOTS for model in grid.REFERENCES),
        (everywhere, without_shots, ("default", "named")),
        (everywhere, without_shots, ("default", "lora")),
        (everywhere, without_shots, (NO_LIMIT, "default", *TRAINED)),
    ]
    for models, shots, arms in groups:
        cells = [cell for cell, arm in measured if arm == arms[0] and all((cell, each) in measured for each in arms)]
        cells = [cell for cell in cells if cell.model in models and cell.shots in shots]
        where = [" and ".join(dict.fromkeys(cell.model for cell in cells)), str(shots[0]), str(len(cells))]
        rows += [[*where, arm, *_columns([measured[cell, arm] for cell in cells])] for arm in arms if cells]
    return table(("models", "shots", "cells", *COLUMNS), rows)


def other_templates(folder: Path = HERE / "retention-records") -> dict[str, str]:
    """Return what edits do to other tasks, leaving out the one that has the template of the own task.

    Args:
        folder: the records.

    Returns:
        Of the default's edits the number of cells, the mean and the worst change, and the share of kept answers; the
        share for each model and arm too, as `smollm2 default`.
    """
    left = {
        (cell, arm): {
            key: [value for name, value in summary[key].items() if name != SAME_TEMPLATE.get(cell.task)]
            for key in ("changes", "agreement")
        }
        for cell, arm, summary in summaries(folder)
    }
    of_default = [values for (_, arm), values in left.items() if arm == "default"]
    shown = {
        "cells": str(len(of_default)),
        "change": f"{fmean(fmean(values['changes']) for values in of_default):+.3f}",
        "worst": f"{min(min(values['changes']) for values in of_default):+.3f}",
        "agreement": f"{fmean(fmean(values['agreement']) for values in of_default):.0%}",
    }
    for model, arm in dict.fromkeys((cell.model, arm) for cell, arm in left):
        kept = [
            fmean(values["agreement"]) for (cell, each), values in left.items() if (cell.model, each) == (model, arm)
        ]
        shown[f"{model} {arm}"] = f"{fmean(kept):.0%}"
    return shown


def falls(folder: Path = HERE / "retention-records") -> dict[str, str]:
    """Count the other tasks on which an edit of the default loses more than the goal allows, beyond chance or not.

    Args:
        folder: the records.
    """
    gains = []
    for _, arm, record, base in measured_arms(folder):
        if arm == "default":
            before = {name: answers["greedy"] for name, answers in base["tasks"].items()}
            gains += [
                f1_gain(answers["gold"], before[name], answers["greedy"])
                for name, answers in record["tasks"].items()
                if name != f"tarot_{record['task']}"
            ]
    return {
        "pairs": str(len(gains)),
        "below": str(sum(gain.value < -LARGEST_LOSS for gain in gains)),
        "beyond chance": str(sum(gain.high < -LARGEST_LOSS for gain in gains)),
        "allowed": f"{LARGEST_LOSS}",
    }


def near_chance(folder: Path = HERE / "retention-records") -> dict[str, str]:
    """Return the share of SmolLM2's answers that edits for other tasks keep, on tasks that it answers near chance.

    Args:
        folder: the records.
    """
    of_model = [(cell, arm, summary) for cell, arm, summary in summaries(folder) if cell.model == "smollm2"]
    shown = {}
    for each in ("default", "lora"):
        kept = [summary["agreement"] for cell, arm, summary in of_model if arm == each and cell.task != "navigate"]
        near, others = (
            [share for shares in kept for name, share in shares.items() if name.endswith("_navigate") is is_near]
            for is_near in (True, False)
        )
        shown |= {each: f"{fmean(near):.0%}", f"{each} others": f"{fmean(others):.0%}"}
    return shown


def rounding(folder: Path = HERE / "retention-records") -> str:
    """Show what rounding the weights of the unedited model changes on all tasks.

    Args:
        folder: the records.
    """
    records, rows = read_records(folder), []
    for model, kind in product(grid.MODELS, FORMATS):
        if not (record := records.get(record_name(model, kind))):
            continue
        bases = [base for name, base in records.items() if name.startswith(f"{model}-") and base.get("arm") == BASE]
        base = {name: answers for each in bases if not each["shots"] for name, answers in each["tasks"].items()}
        summary = summarize_others(record, {"tasks": base})
        rows.append([model, kind, *_other_columns([summary]), f"{summary['agreement']['tarot_navigate']:.0%}"])
    return table(("model", "weights", *OTHER_COLUMNS, "same answers to `navigate`"), rows)


def named_tasks(folder: Path = HERE / "retention-records") -> dict[str, str]:
    """Return what the arm `named` and the default do to the tasks that `named` retains, in the cells that have both.

    Args:
        folder: the records.
    """
    measured = {(cell, arm): summary for cell, arm, summary in summaries(folder) if arm in ("default", "named")}
    cells = [cell for cell, arm in measured if arm == "named" and (cell, "default") in measured]
    shown = {"cells": str(len(cells))}
    for arm in ("default", "named"):
        of_arm = [measured[cell, arm] for cell in cells]
        changes, kept = (
            [value for summary in of_arm for name, value in summary[key].items() if name in NAMED]
            for key in ("changes", "agreement")
        )
        shown |= {f"{arm} largest": f"{max(map(abs, changes)):.3f}", f"{arm} kept": f"{fmean(kept):.0%}"}
    return shown


def _columns(summaries: Sequence[dict[str, Any]]) -> list[str]:
    """Return the cells of a row: means over the summaries, but the worst change of all."""
    return [
        f"{fmean(summary['gain'] for summary in summaries):+.3f}",
        *_other_columns(summaries),
        f"{fmean(spent):.0f}" if (spent := [summary["spent"] for summary in summaries if summary["spent"]]) else "",
    ]


def _other_columns(summaries: Sequence[dict[str, Any]]) -> list[str]:
    """Return the part of a row that is about text and other tasks."""
    changes = [list(summary["changes"].values()) for summary in summaries]
    return [
        f"{fmean(summary['kl'] for summary in summaries):.3f}",
        f"x{fmean(summary['perplexity_ratio'] for summary in summaries):.3f}",
        f"{fmean(map(fmean, changes)):+.3f}",
        f"{min(map(min, changes)):+.3f}",
        f"{fmean(fmean(summary['agreement'].values()) for summary in summaries):.0%}",
    ]
