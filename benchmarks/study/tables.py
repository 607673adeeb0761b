"""Tables of the study's recorded cells."""

import statistics
from collections import defaultdict
from collections.abc import Callable

from benchmarks.study import grid
from benchmarks.study.grid import Cell
from benchmarks.study.markdown import signed, table
from benchmarks.study.recorded import HEADLINE, Record, RecordedCells, paired_gain
from tarot.evaluation.results.metrics import METRICS
from tarot.evaluation.statistics.seeds import mean_over_settings

# In the order of the table; the first is the study's own.
JUDGED_BY = (HEADLINE, "greedy_acc", "f1", "acc")
# Of methods that cannot be merged.
AT_INFERENCE = {
    **dict.fromkeys(grid.PROMPTING, "its shots in every prompt"),
    "batch-calibration": "its shots in every prompt, and a batch of documents",
    "prompt-tuning": "20 vectors in front of every prompt",
    **dict.fromkeys(("caa", "iti"), "vectors added to every token"),
}


def summary(cells: RecordedCells) -> str:
    """Show base, six-shot and edited F1 of each model and task, means over seeds."""
    columns = (("base", 0), ("few-shot", 0), ("default", 0), ("base", 6), ("default", 6))
    rows, means = [], [[] for _ in columns]
    for model in grid.MODELS:
        for task in grid.TASKS:
            values = [statistics.mean(cells.scores(model, task, shots, method)) for method, shots in columns]
            for column, value in zip(means, values, strict=True):
                column.append(value)
            rows.append([model, f"`{task}`", *(f"{value:.3f}" for value in values)])
    rows.append(["**mean**", "", *(f"**{statistics.mean(column):.3f}**" for column in means)])
    header = ["base, no shots", "base, six shots of the same labels", "edited, no shots"]
    return table(["model", "task", *header, "base, six-shot prompts", "edited, six-shot prompts"], rows)


def goals(cells: RecordedCells) -> str:
    """Compare what was measured with the goals that were set before."""
    zero, six = (cells.mean_gain(shots, "default", "base") for shots in grid.SHOTS)
    pairs = [
        (
            statistics.mean(cells.scores(model, task, 0, "default")),
            statistics.mean(cells.scores(model, task, 0, "few-shot")),
        )
        for model in grid.MODELS
        for task in grid.TASKS
    ]
    shares = [cells.share_of_gain(shots, "default", "oft") for shots in grid.SHOTS]
    ahead, of = ahead_of_searches(cells)
    rows = [
        ["mean gain over zero-shot prompts", "at least +.40", signed(zero)],
        ["mean gain of the edit under six-shot prompts, over the same prompts unedited", "at least +.20", signed(six)],
        [
            "model-task pairs in which the edit without shots beats six shots of the same labels",
            "8 of 10",
            f"{sum(edited > few_shot for edited, few_shot in pairs)} of {len(pairs)}",
        ],
        [
            "share of the gain of Adam on the same angles in PEFT (`oft`), zero-shot; six-shot",
            "at least 90%",
            "; ".join(f"{share:.0%} ({n} cells)" for share, n in shares),
        ],
        [
            "against LoRA, zero-shot; six-shot",
            "level",
            "; ".join(signed(cells.mean_gain(shots, "default", "lora")) for shots in grid.SHOTS),
        ],
        [
            "cells in which it beats random search or the paper's, of those in which either gains anything",
            "all",
            f"{ahead} of {of}",
        ],
    ]
    return table(["measure", "goal", "measured"], rows)


def ahead_of_searches(cells: RecordedCells) -> tuple[int, int]:
    """Count the cells in which the default beats random search or the paper's, and those where either gains."""
    pairs = [
        (methods["default"]["greedy_f1"], methods[search]["greedy_f1"])
        for search in ("random", "paper")
        for cell, methods in cells.records.items()
        if {"default", search} <= methods.keys()
        and max(gain.value for name in ("default", search) if (gain := cells.gain(cell, name, "base"))) > 0
    ]
    return sum(ours > theirs for ours, theirs in pairs), len(pairs)


def repeated(cells: RecordedCells) -> str:
    """Show all seeds of the settings in which another search was ahead of the default on seed 0."""
    rows = []
    for setting, method in grid.AHEAD.items():
        row, gains = [], []
        for cell in (Cell(*setting, seed) for seed in grid.SEEDS):
            ours, theirs = cells.records[cell]["default"], (cells.records[cell] | cells.repeated[cell])[method]
            gains.append(paired_gain(ours, theirs))
            row.append(f"{ours['greedy_f1']:.3f} : {theirs['greedy_f1']:.3f}")
        rows.append([*map(str, setting), method, *row, signed(mean_over_settings([gains]))])
    seeds = [f"seed {seed}" for seed in grid.SEEDS]
    return table(["model", "task", "shots", "search", *seeds, "default minus the search"], rows)


def scores(cells: RecordedCells, shots: int) -> str:
    """Show a row for each model and task: the mean of each method over seeds."""
    methods = cells.beyond_development(shots)
    rows, columns = [], defaultdict(list)
    for model in grid.MODELS:
        for task in grid.TASKS:
            row = [model, task]
            for method in methods:
                values = cells.scores(model, task, shots, method)
                spread = f" ±{statistics.stdev(values):.2f}" if len(values) > 1 else ""
                row.append(f"{statistics.mean(values):.3f}{spread}" if values else "")
                if values:
                    columns[method].append(statistics.mean(values))
            rows.append(row)
    means = [f"{statistics.mean(columns[m]):.3f}" if len(columns[m]) == len(rows) else "" for m in methods]
    return table(["model", "task", *methods], [*rows, ["**mean**", "", *means]])


def against(cells: RecordedCells, shots: int) -> str:
    """Compare the default with each other method, on the cells that have both."""
    rows = []
    for method in cells.beyond_development(shots):
        if method == "default":
            continue
        pairs = [
            (methods["default"]["greedy_f1"], other["greedy_f1"])
            for cell, methods in cells.records.items()
            if cell.shots == shots and "default" in methods and (other := cells.record(cell, method))
        ]
        better, worse = sum(a > b for a, b in pairs), sum(a < b for a, b in pairs)
        gain = signed(cells.mean_gain(shots, "default", method))
        rows.append([method, str(len(pairs)), gain, f"{better} : {worse}"])
    return table(["default minus", "cells", "mean gain", "better : worse"], rows)


def by_metric(cells: RecordedCells) -> str:
    """Show the default's mean gains by each metric, and in how many cells it is ahead and behind."""
    rows = []
    for over in ("base", "few-shot", "random", "paper", "lora", "oft"):
        for shots in grid.SHOTS:
            row = []
            for metric in JUDGED_BY:
                settings = cells.gains(shots, "default", over, metric)
                values = [gain.value for seeds in settings for gain in seeds]
                if values:
                    better, worse = sum(value > 0 for value in values), sum(value < 0 for value in values)
                    row.append(f"{signed(mean_over_settings(settings))}, {better} : {worse}")
            if row:
                rows.append([over, str(shots), str(len(values)), *row])
    return table(["default minus", "shots", "cells", *(METRICS[name].title for name in JUDGED_BY)], rows)


def ablations(cells: RecordedCells) -> str:
    """Show every method on the development cells, the best mean first."""
    rows = []
    for method in grid.METHODS:
        records = [methods[method] for cell in grid.DEVELOPMENT if method in (methods := cells.records[cell])]
        if len(records) < len(grid.DEVELOPMENT):
            continue
        gains = [[gain] for cell in grid.DEVELOPMENT if (gain := cells.gain(cell, "default", method))]
        difference = signed(mean_over_settings(gains)) if method != "default" else ""
        values = [record["greedy_f1"] for record in records]
        mean = statistics.mean(values)
        rows.append((mean, [method, *(f"{value:.3f}" for value in values), f"{mean:.3f}", difference]))
    header = ["method", *(cell.task for cell in grid.DEVELOPMENT), "mean", "default minus it"]
    return table(header, [row for _, row in sorted(rows, key=lambda row: -row[0])])


def costs(cells: RecordedCells) -> str:
    """Show labels, seconds, memory, stored bytes and cost at inference of each method."""
    rows = [["few-shot", str(grid.FEW_SHOT), "", "0", "", "0", "its shots in every prompt"]]
    for method in grid.METHODS:
        records = cells.of_method(method)
        if not records or method in grid.UNEDITED:
            continue
        row = [median(records, value) for value in (search_seconds, peak_memory, stored_bytes)]
        labels = str(records[0]["labels"] - records[0]["shots"])
        at_inference = AT_INFERENCE.get(method, "none, merged")
        rows.append([method, labels, str(len(records)), *(f"{value:,.0f}" for value in row), at_inference])
    return table(["method", "labels", "cells", "seconds", "peak memory, MiB", "stored bytes", "at inference"], rows)


def median(records: list[Record], value: Callable[[Record], float]) -> float:
    """Return the median of a value over records."""
    return statistics.median(map(value, records))


def search_seconds(record: Record) -> float:
    """Return the seconds of a search; where several processes shared it, the sum of all of them."""
    return max(record["seconds"], sum(record.get("seconds_of", {}).values()))


def peak_memory(record: Record) -> float:
    """Return the process's peak memory in MiB."""
    return record["peak_memory_mib"]


def stored_bytes(record: Record) -> float:
    """Return the size of the stored edit."""
    return record.get("stored_bytes", 0)


def fit(cells: RecordedCells) -> str:
    """Compare training score and held-out F1 of each method, beside those of the default in the same cells."""
    rows = []
    for method in grid.METHODS:
        pairs = [
            [*fit_of(methods[method]), *fit_of(methods["default"])]
            for methods in cells.records.values()
            if "scores" in methods.get(method, {}) and "default" in methods
        ]
        if pairs:
            means = [f"{statistics.mean(column):.3f}" for column in zip(*pairs, strict=True)]
            rows.append([method, str(len(pairs)), *means])
    header = ["training log-probability, nats", "held-out F1"]
    return table(["method", "cells", *header, *(f"{name}: default" for name in header)], rows)


def fit_of(record: Record) -> tuple[float, float]:
    """Return the best training score of a record, in nats, and its held-out F1."""
    return float(record["scores"]["best"]), record["greedy_f1"]
