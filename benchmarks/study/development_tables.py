"""Tables of the development runs: files of one JSON object a line."""

import json
import math
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks.study import grid
from benchmarks.study.markdown import table
from benchmarks.study.recorded import HELD_OUT, read_lines

HERE = Path(__file__).parent


def searches() -> str:
    """Show what searches without a gradient reach."""
    rows = []
    for run in read_lines(HERE / "searches.jsonl"):
        best = [f"{score:.2f}" for score in run["best"].values()]
        held_out = [f"{run[HELD_OUT][name]:.3f}" for name in ("greedy_f1", "log_probability")]
        where = [run["space"], run["task"], str(run["seed"]), run["search"]]
        rows.append([*where, *best, str(run["documents"]), *held_out, f"{run['proposing']:.0f}"])
    header = ["space", "task", "seed", "search", "best after 30", "60", "120", "documents", "F1", "log-probability"]
    return table([*header, "proposing, s"], rows)


def racing() -> dict[str, float]:
    """Return what racing would have left out, read off the recorded searches."""
    raced = [run["raced"] for run in read_lines(HERE / "searches.jsonl") if run["search"] != "identity"]
    shares = {rule: statistics.mean(run[rule]["left_out"] for run in raced) for rule in ("certain", "likely")}
    return shares | {"lost": sum(run["likely"]["lost_a_best"] for run in raced), "runs": len(raced)}


def noise() -> str:
    """Show what `bo` reaches with fewer samples a trial, by the trial that is kept."""
    rows = []
    for run in read_lines(HERE / "noise.jsonl"):
        kept = ("highest score", "highest mean") if run["samples"] < grid.SAMPLES else ("highest score",)
        seconds = f"{run['evaluating'] + run['proposing']:.0f}"
        for rule in kept:
            held_out = [f"{run[rule][HELD_OUT][name]:.3f}" for name in ("greedy_f1", "log_probability")]
            where = [run["task"], str(run["seed"]), str(run["samples"]), str(run["trials"]), rule]
            rows.append([*where, f"{run[rule]['score']:.2f}", *held_out, seconds])
    header = ["task", "seed", "samples a trial", "trials", "kept trial", "of the samples", "F1", "log-probability"]
    return table([*header, "seconds"], rows)


def space_runs() -> dict[tuple[str, str, float], dict[str, dict[str, Any]]]:
    """Return the runs by search, space and bound, then by task; `bo` at the default bound is among the searches."""
    runs = read_lines(HERE / "spaces.jsonl")
    for run in read_lines(HERE / "searches.jsonl"):
        if run["search"] == "bo" and run["seed"] == grid.DEVELOPMENT_SEED:
            runs.append(run | {"bound": round(grid.BOUND, 4), "best": run["best"][str(grid.BUDGET)]})
    by_setting: dict[tuple[str, str, float], dict[str, dict[str, Any]]] = defaultdict(dict)
    for run in runs:
        by_setting[run["search"], run["space"], run["bound"]][run["task"]] = run
    return by_setting


def spaces() -> str:
    """Show held-out F1 by space and bound."""
    tasks = [cell.task for cell in grid.DEVELOPMENT]
    rows = []
    for (search, space, bound), by_task in space_runs().items():
        f1 = {task: run[HELD_OUT]["greedy_f1"] for task, run in by_task.items()}
        each = [f"{f1[task]:.3f} ({by_task[task]['best']:.2f})" if task in f1 else "" for task in tasks]
        mean = f"{statistics.mean(f1.values()):.3f}" if len(f1) == len(tasks) else ""
        columns = [
            [run[name] for run in by_task.values() if name in run] for name in ("root_mean_square", "at_the_bound")
        ]
        angles = [f"{statistics.mean(values):.2f}" if values else "" for values in columns]
        coordinates = str(max(run["coordinates"] for run in by_task.values()))
        rows.append((mean, [search, space, f"{bound / math.pi:.3g} pi", coordinates, *each, mean, *angles]))
    header = ["search", "space", "bound", "coordinates", *tasks, "mean F1", "RMS angle, radians", "share at the bound"]
    return table(header, [row for _, row in sorted(rows, reverse=True)])


def gradients() -> str:
    """Show what the default and a Gaussian process with gradients reach."""
    rows = []
    for run in read_lines(HERE / "gradients.jsonl"):
        held_out = [f"{run[HELD_OUT][name]:.3f}" for name in ("greedy_f1", "log_probability")]
        where = [run["task"], str(run["seed"]), run["arm"]]
        rows.append([*where, f"{run['base']['greedy_f1']:.3f}", *held_out, f"{run['best']:.2f}", str(run["spent"])])
    header = ["task", "seed", "search", "base F1", "F1", "log-probability", "of the samples", "evaluations"]
    return table(header, sorted(rows))


def trust_regions() -> str:
    """Show what variants of the trust region reached while the search was being chosen."""
    rows = []
    for run in read_lines(HERE / "trust_regions.jsonl"):
        best = [f"{score:.2f}" for score in run["best"].values()]
        held_out = [
            f"{run[HELD_OUT][name]:.3f}" if HELD_OUT in run else "" for name in ("greedy_f1", "log_probability")
        ]
        rows.append([run["task"], str(run["samples"]), run["gradient"], run["region"], *best, *held_out])
    header = ["task", "samples", "gradient", "search", "best after 30", "60", "120", "F1", "log-probability"]
    return table(header, rows)


def gain_share(arm: str, over: str = "default") -> tuple[float, int]:
    """Divide the mean gain in held-out F1 of one arm by another's, on the cells with both; also count these cells."""
    runs = {(run["task"], run["seed"], run["arm"]): run for run in read_lines(HERE / "gradients.jsonl")}
    cells = [(task, seed) for task, seed, name in runs if name == arm and (task, seed, over) in runs]
    gains = {
        name: [run[HELD_OUT]["greedy_f1"] - run["base"]["greedy_f1"] for cell in cells for run in [runs[*cell, name]]]
        for name in (arm, over)
    }
    return sum(gains[arm]) / sum(gains[over]), len(cells)


def classes() -> str:
    """Show held-out F1 where every sample counted alike, and where every class did."""
    rows = []
    for run in read_lines(HERE / "classes.jsonl"):
        where = [str(run[name]) for name in ("model", "task", "seed", "documents")]
        measured = [f"{run[name]:.3f}" for name in ("base", "greedy_f1", "log_probability")]
        counted = run["counted"].replace("dealt anew", "drawn anew")
        rows.append([*where, " : ".join(map(str, run["samples"])), counted, *measured, str(run["steps"])])
    header = ["model", "task", "seed", "documents", "samples by class", "weighting", "base", "F1"]
    return table([*header, "log-probability, nats", "steps"], rows)


def stopping() -> str:
    """Show held-out F1 where the training score first passes each level, for each choice of layers."""
    rows = []
    for line in sorted((HERE / "stopping.jsonl").read_text().splitlines()):
        run = json.loads(line)
        reached = [run["levels"].get(str(level)) for level in grid.STOP_LEVELS]
        where = [str(run[name]) for name in ("model", "task", "shots", "seed", "documents", "layers")]
        row = [*where, f"{run['base']['greedy_f1']:.3f}"]
        rows.append([*row, *(f"{at['greedy_f1']:.3f} ({at['steps']})" if at else "" for at in reached)])
    header = ["model", "task", "shots", "seed", "documents", "layers", "base"]
    return table([*header, *(f"at {level}" for level in grid.STOP_LEVELS)], rows)


def remedies() -> str:
    """Show held-out F1 of each remedy against overfitting, its mean, and how it was reached."""
    runs = read_lines(HERE / "overfitting.jsonl")
    rows = []
    for remedy in runs[0]["remedies"]:
        results = [run["remedies"][remedy] for run in runs]
        f1 = [f"{result['greedy_f1']:.3f}" for result in results]
        means = {name: statistics.mean(result[name] for result in results) for name in results[0]}
        mean = [f"{means[name]:.3f}" for name in ("greedy_f1", "log_probability", "train")]
        rows.append([remedy, *f1, *mean, f"{means['squares']:.1f}", f"{means['steps']:.0f}"])
    cells = [f"{run['model']} {run['task']}, {run['shots']} shots" for run in runs]
    header = ["mean F1", "log-probability, held out", "of the samples", "squared angles", "steps"]
    return table(["remedy", *cells, *header], rows)


def development() -> str:
    """Show how training score and held-out F1 moved with the budget while the search was being chosen."""
    by_method: dict[tuple[str, ...], dict[int, str]] = defaultdict(dict)
    for row in read_lines(HERE / "development.jsonl"):
        where = (row["model"], row["task"], str(row["shots"]), row["method"])
        by_method[where][row["spent"]] = f"{row['train']:.2f}, {row['greedy_f1']:.2f}"
    spent = (30, 60, 90, 120)
    rows = [[*where, *(at.get(n, "") for n in spent)] for where, at in sorted(by_method.items())]
    return table(["model", "task", "shots", "method", *(f"after {n}" for n in spent)], rows)
