"""`python -m benchmarks.study.results`: RESULTS.md and its pictures, from the study's files and from nothing else."""

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from benchmarks.study import grid
from benchmarks.study.effects import DOCUMENTS, DRIFT, TEXTS, TOKENS, WEAKER
from benchmarks.study.grid import Cell
from benchmarks.study.stopping import LEVELS
from benchmarks.study.unseen import SEED
from tarot._files.atomic import write_atomically
from tarot.evaluation.statistics import Gain, Mean, MeanGain, accuracy_gain, f1_gain, mean_over_settings
from tarot.report import mechanism
from tarot.report.folder import write_svg
from tarot.search.config import TaRotConfig

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
Measured = dict[Cell, dict[str, dict[str, Any]]]  # what each method left in each cell
# Ways to judge the same answers: which of them, and how their gain is computed. The first is the study's own.
HEADLINE = "weighted F1 of the greedy answer"
JUDGED: dict[str, tuple[str, Callable[..., Gain]]] = {
    HEADLINE: ("greedy", f1_gain),
    "greedy answers that are right": ("greedy", accuracy_gain),
    "weighted F1 among the choices": ("predicted", f1_gain),
    "right among the choices": ("predicted", accuracy_gain),
}
INTRODUCTION = """# Results

Written by `python -m benchmarks.study.results` from the files in `benchmarks/study/cells` and `effects`, which
`python -m benchmarks.study.run` and `effects` measured. Only the last two sections, in words, are typed by hand; no
cell that was measured is left out.

Weighted F1 of the greedy answer over the whole vocabulary; the same documents for every method of a cell (the first
{documents} that the task evaluates, or all). Each method had the same {samples} labelled samples and a budget of
{budget} evaluations, a gradient counting for three. Shots are labelled samples in the prompt, of the unedited and the
edited model alike; the six in every prompt are the first of the training split, whatever the seed. Gains are means over
their settings with 95% intervals (`tarot.evaluation.statistics.mean_over_settings`). The default and prompting have three seeds a
setting, and the unedited model answers alike under each; all other methods have one: their intervals speak of documents
alone, not of what another draw of the samples would bring.

What was asked of the study was set before it. It was measured three times, the search being mended in between; by what,
and by which rule a method is given its cells, `benchmarks/study/grid.py` says. All tables are of the third time, but
where they say otherwise.
"""


STOPPING = """## Where a search should end, and which layers it should turn

On samples of seeds 100 and 101 and unseen documents of the training split, none of which the study evaluates: F1 of
those documents when the samples' mean log-probability first passes a level, after so many steps. An empty place was not
looked at. `python -m benchmarks.study.stopping` measures the lines of seed 100 that the file lacks; those that it has
were measured on unseen documents in another order.
"""

CLASSES = """## Whether classes count alike

Samples drawn at random hold classes unequally. Six shots, samples of seeds 103 and 105, which hold them very unequally,
and unseen documents of the training split, none of which the study evaluates: F1 and log-probability of those documents
at the end of the default search, when every sample counted alike and when every class did; and when, besides, each step
took other shots from the 26 labelled documents. The product counts classes alike; shots dealt anew fit the documents a
little better still, at twice to four times the time.
"""

SEARCHED = """## Searches without a gradient

For objectives that have none. SmolLM2, no shots, 20 samples of a seed that the study does not use, 120 evaluations:
the samples' best log-probability after so many, F1 and log-probability of so many unseen documents of the training
split (one is worth .01 to .04), and the seconds that went into proposing, beside other work and with some things
computed twice that a product would keep. In `head-gradient` every search, random draws too, begins with the same five
steps along one gradient. `bo, batches of 4` is what `tarot tune --batch 4` does. Differences of a few hundredths are
noise.

By a rule written after two cells, after every second one the half of the searches whose best scores have the higher
mean goes on, beside the controls; and by one written after four, `bo`, and the best of the others that is not `bo`
itself, run on two more seeds in the first cell of each space.
"""

RACED = """
Racing, read off the same runs: had each candidate been scored on 5, then 10, then 20 samples, and been dropped when
even a probability of one on the others could not make it the best, {certain:.0%} of the scorings had been left out, and
no best lost; dropped when behind by two standard errors, {likely:.0%}, and a best lost in {lost} of {runs} runs. The
product does not race: all samples share one pass, and a surrogate wants every score.
"""

SPACES = """## Which space, and how far its faces

Written down before it was measured (`python -m benchmarks.study.spaces`), in the setting of the table above: for every
task F1 of its unseen documents and, in brackets, the samples' best log-probability; and of that best point the root
mean square of the angles and the share of them at the bound, means over the tasks. `gradient:r` is the span of the `r`
principal directions of the samples' gradients at the identity, and starts like `head-gradient` with five steps along
the whole gradient; it is not the product's. A gradient in `full` counts for three evaluations; `--bound` scales the
steps of `adam` too. By a rule written after two tasks, the half of `bo`'s rows whose best scores have the higher mean
goes on to the third.
"""

REMEDIES = """## What else might keep samples from being learned by heart

Written down before it was measured (`python -m benchmarks.study.overfitting`): samples of seed 100 and unseen documents
of the training split. `default` ends at -0.1. `strength` scales its angles toward the identity; `mean of the last`
steps averages them; `penalty` takes so many nats a square radian from the score, and ends at -0.1 of the score itself,
or with the budget; the last two search on 15 of the samples, and end where the other five are likeliest, or at -0.1. F1
of the unseen documents in each cell; means of it, of their log-probability and that of the samples, of the sum of the
squared angles, and of the steps. On eighty documents one standard error is some .05.
"""

DEVELOPMENT = """## How the search was chosen

On seed 100, which the study does not use, and on 44 to 150 documents, some of which the study evaluates too: what was
chosen here is chosen with some knowledge of them. Training log-probability, F1 on unseen documents. These searches had
a constant rate and no end but their budget.
"""


RIVALS = """## Every rival, on the development cells

SmolLM2, no shots, seed 0. `first half`, `second half` and `every other layer` are the default search on fewer layers;
`mixed shots` is tuned on prompts of 0, 2, 4 or 6 shots; `10 labels` and `40 labels` on as many samples; `rescale`
scales heads, which is no rotation, with the default's gradients; `bo` are Gaussian processes on one coordinate a head
(`bo head-gradient` has the gradient that its coordinates follow on top of the budget); `paper` and `published` are the
paper's search on the first half of the layers, with its sign mended and as it was. One seed, three cells: differences
of a few hundredths are noise. What is not finished in all three is left out here.
"""

COSTS = """## What it costs

Medians over cells, beside other work on two cores. Labels in the evaluated prompts are not counted. Memory is the most
that the process had taken by then, in cells before this one too, so that it bounds a method's own from above.
"""

AGAIN = """Where one of the two was ahead on seed 0, it ran on the other seeds too; those cells are in no other table.
What chance had put ahead falls back in such a look, and where it was behind nobody looked again, so these say something
of their settings alone. F1 of the default and of the other search:
"""

OTHERWISE = """## The same answers, judged otherwise

F1 of the greedy answer counts an answer in another form as wrong, and a model that always says the same as worse than
accuracy does. So here are the same answers judged four ways: mean gains, and the cells in which the default is ahead
and behind. *Among the choices* the likeliest of the choices is the answer, so that the form of the answer, of which the
unedited model often knows nothing, does not count.
"""

EFFECTS = """## What else an edit changes

The default edits found without shots with seed 0, on every task (first {documents} documents, no shots): gains over
the unedited model, its own task's in bold. And on {tokens:,} tokens that the unedited model wrote: the edit's
perplexity, and KL(unedited, edited) in nats a token. Where the unedited model scores nothing, nothing can be lost: of
SmolLM2 that is so on all tasks but `navigate`, of Gemma 3 on all but `winowhy`.
"""

WEAKENED = """### Weaker edits

SmolLM2's edits with all angles scaled by a factor (`tarot effects`, `Adapter.scaled`): the gain on their own task, of
the same documents, and in brackets KL(unedited, edited) on the first {texts} of the texts. They
were searched again for it, so that a strength of 1 is not to the digit what the table above has.

![Gain on its own task against drift, by strength](benchmarks/study/strengths.svg)
"""


def load(folder: Path) -> tuple[Measured, Measured]:
    """All results, by cell and method; those of searches that were looked at again by themselves."""
    found: Measured = defaultdict(dict)
    repeated: Measured = defaultdict(dict)
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_text())
        cell = Cell(*(result[name] for name in ("model", "task", "shots", "seed")))
        again = cell.seed != grid.SEEDS[0] and result["method"] in grid.AHEAD.values()
        (repeated if again else found)[cell][result["method"]] = result
    return found, repeated


def gain(measured: Measured, cell: Cell, method: str, over: str, scored_texts: str = HEADLINE) -> Gain | None:
    """Score of one method minus another's, on the same documents; None where one is missing."""
    new, old = (measured[cell].get(name) or shared(measured, cell, name) for name in (method, over))
    answer, gain_of = JUDGED[scored_texts]
    return gain_of(new["gold"], old[answer], new[answer], resamples=2000) if new and old else None


def shared(measured: Measured, cell: Cell, method: str) -> dict[str, Any] | None:
    """The unedited model answers alike whatever the seed: its answers stand with the first."""
    if method != "base":
        return None
    return measured.get(Cell(cell.model, cell.task, cell.shots, grid.SEEDS[0]), {}).get(method)


def gains(measured: Measured, shots: int, method: str, over: str, scored_texts: str = HEADLINE) -> list[list[Gain]]:
    """Of each model and task with so many shots, those of the seeds that have both methods."""
    settings: dict[tuple[str, str], list[Gain]] = defaultdict(list)
    for cell in measured:
        if cell.shots == shots and (found := gain(measured, cell, method, over, scored_texts)):
            settings[cell.model, cell.task].append(found)
    return list(settings.values())


def mean_gain(measured: Measured, shots: int, method: str, over: str, scored_texts: str = HEADLINE) -> MeanGain | None:
    """Over all models and tasks with so many shots that have both."""
    settings = gains(measured, shots, method, over, scored_texts)
    return mean_over_settings(settings) if settings else None


def judged_otherwise(measured: Measured) -> str:
    """Mean gains of the default by every way to judge answers, and in how many cells it is ahead."""
    pairs = [(shots, over) for over in ("base", "few-shot", "random", "paper", "lora", "oft") for shots in grid.SHOTS]
    rows = []
    for shots, over in pairs:
        row = []
        for scored_texts in JUDGED:
            settings = gains(measured, shots, "default", over, scored_texts)
            values = [each.value for seeds in settings for each in seeds]
            better, worse = sum(value > 0 for value in values), sum(value < 0 for value in values)
            row.append(f"{signed(mean_over_settings(settings))}, {better} : {worse}")
        if values:
            rows.append([over, str(shots), str(len(values)), *row])
    return table(["default minus", "shots", "cells", *JUDGED], rows)


def share(measured: Measured, shots: int, method: str, rival: str) -> str:
    """Mean gain of one method by another's, on the cells that have both; and how many those are."""
    both = [
        (ours.value, theirs.value)
        for cell in measured
        if cell.shots == shots
        and (ours := gain(measured, cell, method, "base"))
        and (theirs := gain(measured, cell, rival, "base"))
    ]
    return f"{sum(a for a, _ in both) / sum(b for _, b in both):.0%} ({len(both)} cells)" if both else ""


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def signed(found: Gain | MeanGain | None) -> str:
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]" if found else ""


def widely(measured: Measured, shots: int) -> list[str]:
    """Methods that were measured beyond the development cells."""
    there = [found for cell, found in measured.items() if cell.shots == shots and cell not in grid.DEVELOPMENT]
    return [method for method in grid.METHODS if any(method in found for found in there)]


def scores(measured: Measured, shots: int) -> str:
    """A row for each model and task: each method's mean over seeds; a mean of all where none is missing."""
    present = widely(measured, shots)
    rows, columns = [], defaultdict(list)
    for model in grid.MODELS:
        for task in grid.TASKS:
            row = [model, task]
            for method in present:
                values = [
                    found[method]["greedy_f1"]
                    for cell, found in measured.items()
                    if (cell.model, cell.task, cell.shots) == (model, task, shots) and method in found
                ]
                spread = f" ±{statistics.stdev(values):.2f}" if len(values) > 1 else ""
                row.append(f"{statistics.mean(values):.3f}{spread}" if values else "")
                if values:
                    columns[method].append(statistics.mean(values))
            rows.append(row)
    means = [f"{statistics.mean(columns[m]):.3f}" if len(columns[m]) == len(rows) else "" for m in present]
    return table(["model", "task", *present], [*rows, ["**mean**", "", *means]])


def compared(measured: Measured, shots: int) -> str:
    """The default against each other method, on the cells that have both."""
    rows = []
    for method in widely(measured, shots):
        if method == "default":
            continue
        found = mean_gain(measured, shots, "default", method)
        pairs = [
            (mine["default"], mine.get(method) or shared(measured, cell, method))
            for cell, mine in measured.items()
            if cell.shots == shots and "default" in mine
        ]
        both = [(ours["greedy_f1"], theirs["greedy_f1"]) for ours, theirs in pairs if theirs]
        if found and both:
            better, worse = sum(a > b for a, b in both), sum(a < b for a, b in both)
            rows.append([method, str(len(both)), signed(found), f"{better} : {worse}"])
    return table(["default minus", "cells", "mean gain", "better : worse"], rows)


def rivals(measured: Measured) -> str:
    """Every method on the development cells, the best mean first."""
    rows = []
    for method in grid.METHODS:
        found = [measured[cell][method]["greedy_f1"] for cell in grid.DEVELOPMENT if method in measured.get(cell, {})]
        if len(found) == len(grid.DEVELOPMENT):
            gains = [gain(measured, cell, "default", method) for cell in grid.DEVELOPMENT]
            apart = signed(mean_over_settings([[each] for each in gains if each])) if method != "default" else ""
            mean = statistics.mean(found)
            rows.append((mean, [method, *(f"{value:.3f}" for value in found), f"{mean:.3f}", apart]))
    header = ["method", *(cell.task for cell in grid.DEVELOPMENT), "mean", "default minus it"]
    return table(header, [row for _, row in sorted(rows, key=lambda each: -each[0])])


def costs(measured: Measured) -> str:
    """Of every method: labels, seconds, memory, bytes, and what it costs at inference."""
    rows = [["few-shot", str(grid.FEW_SHOT), "", "0", "", "0", "its shots in every prompt"]]
    for method in grid.METHODS:
        results = [found[method] for found in measured.values() if method in found]
        if not results or method in grid.UNEDITED:
            continue
        labels = str(results[0]["labels"] - results[0]["shots"])

        def middle(of: Callable[[dict[str, Any]], float], results: list[dict[str, Any]] = results) -> str:
            return f"{statistics.median(map(of, results)):,.0f}"

        row = (
            # The last process' seconds, and of a search that several processes had a hand in, all of theirs.
            middle(lambda r: max(r["seconds"], sum(r.get("seconds_of", {}).values()))),
            middle(lambda r: r["peak_memory_mib"]),
            middle(lambda r: r["stored_bytes"]),
        )
        rows.append([method, labels, str(len(results)), *row, "none, merged"])
    return table(["method", "labels", "cells", "seconds", "peak memory, MiB", "stored bytes", "at inference"], rows)


def overfitting(measured: Measured) -> str:
    """Training score against what it brought on unseen documents, and the same of the default in those cells."""

    def score(result: dict[str, Any]) -> float:
        return float(result["scores"]["best"])

    rows = []
    for method in grid.METHODS:
        both = [
            (score(each[method]), each[method]["greedy_f1"], score(each["default"]), each["default"]["greedy_f1"])
            for each in measured.values()
            if "scores" in each.get(method, {}) and "default" in each
        ]
        if both:
            means = [f"{statistics.mean(column):.3f}" for column in zip(*both, strict=True)]
            rows.append([method, str(len(both)), *means])
    header = ["training log-probability, nats", "F1 on unseen documents"]
    return table(["method", "cells", *header, *(f"{words}: default's" for words in header)], rows)


def picture(measured: Measured, path: Path) -> None:
    """Best score so far by evaluations spent, means over development cells, of searches on the same samples."""
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "tarot"})
    figure = Figure(figsize=(7.2, 3.6), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    for method, changes in grid.SEARCHES.items():
        if {"samples", "num_fewshot"} & changes.keys():
            continue
        curves = [measured[cell][method]["curve"] for cell in grid.DEVELOPMENT if method in measured.get(cell, {})]
        if len(curves) == len(grid.DEVELOPMENT):
            best = [[max(curve[: i + 1]) for i in range(grid.BUDGET)] for curve in curves]
            axes.plot(range(1, grid.BUDGET + 1), [statistics.mean(at) for at in zip(*best, strict=True)], label=method)
    axes.set_xlabel("evaluations spent")
    axes.set_ylabel("best log-probability so far, nats")
    axes.spines[["top", "right"]].set_visible(False)
    if axes.lines:
        figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def development(path: Path) -> str:
    """How training score and F1 on unseen documents moved with the budget, while the search was being chosen."""
    found: dict[tuple[str, ...], dict[int, str]] = defaultdict(dict)
    for line in path.read_text().splitlines():
        row = json.loads(line)
        where = (row["model"], row["task"], str(row["shots"]), row["method"])
        found[where][row["spent"]] = f"{row['train']:.2f}, {row['greedy_f1']:.2f}"
    spent = (30, 60, 90, 120)
    rows = [[*where, *(at.get(evaluations, "") for evaluations in spent)] for where, at in sorted(found.items())]
    return table(["model", "task", "shots", "method", *(f"after {evaluations}" for evaluations in spent)], rows)


def classes(path: Path) -> str:
    """F1 of unseen documents after searches in which every sample counted alike, or every class."""
    rows = []
    for run in map(json.loads, path.read_text().splitlines()):
        where = [str(run[name]) for name in ("model", "task", "seed", "documents")]
        measured = [f"{run[name]:.3f}" for name in ("base", "greedy_f1", "log_probability")]
        rows.append([*where, " : ".join(map(str, run["samples"])), run["counted"], *measured, str(run["steps"])])
    header = ["model", "task", "seed", "documents", "samples by class", "counted", "base", "F1"]
    return table([*header, "log-probability, nats", "steps"], rows)


def remedied(path: Path) -> str:
    """F1 of unseen documents for each remedy against learning by heart, its mean, and how it got there."""
    runs = [json.loads(line) for line in path.read_text().splitlines()]
    rows = []
    for remedy in runs[0]["remedies"]:
        found = [run["remedies"][remedy] for run in runs]
        f1 = [f"{each['greedy_f1']:.3f}" for each in found]
        means = {name: statistics.mean(each[name] for each in found) for name in found[0]}
        mean = [f"{means[name]:.3f}" for name in ("greedy_f1", "log_probability", "train")]
        rows.append([remedy, *f1, *mean, f"{means['squares']:.1f}", f"{means['steps']:.0f}"])
    cells = [f"{run['model']} {run['task']}, {run['shots']} shots" for run in runs]
    return table(["remedy", *cells, "mean F1", "log-probability", "of the samples", "squares", "steps"], rows)


def searched(path: Path) -> str:
    """What searches without a gradient find, and what racing would save them."""
    runs = [json.loads(line) for line in path.read_text().splitlines()]
    rows = []
    for run in runs:
        best = [f"{score:.2f}" for score in run["best"].values()]
        unseen = [f"{run['unseen'][name]:.3f}" for name in ("greedy_f1", "log_probability")]
        where = [run["space"], run["task"], str(run["seed"]), run["search"]]
        rows.append([*where, *best, str(run["documents"]), *unseen, f"{run['proposing']:.0f}"])
    header = ["space", "task", "seed", "search", "30", "60", "120", "documents", "F1", "log-probability"]
    runs = [run for run in runs if run["search"] != "identity"]
    raced = {rule: [run["raced"][rule] for run in runs] for rule in ("certain", "likely")}
    shares = {rule: statistics.mean(each["left_out"] for each in found) for rule, found in raced.items()}
    lost = sum(each["lost_a_best"] for each in raced["likely"])
    return table([*header, "proposing, s"], rows) + RACED.format(**shares, lost=lost, runs=len(runs))


def spaces(path: Path, searches: Path) -> str:
    """F1 of unseen documents by space and bound; of two of them another file has the searches."""
    runs = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    for run in map(json.loads, searches.read_text().splitlines()):
        if run["search"] == "bo" and run["seed"] == SEED:
            runs.append(run | {"bound": round(TaRotConfig.bound, 4), "best": run["best"][str(grid.BUDGET)]})
    found: dict[tuple[str, str, float], dict[str, dict[str, Any]]] = defaultdict(dict)
    for run in runs:
        found[run["search"], run["space"], run["bound"]][run["task"]] = run
    tasks = [cell.task for cell in grid.DEVELOPMENT]
    rows = []
    for (search, space, bound), by_task in found.items():
        f1 = {task: run["unseen"]["greedy_f1"] for task, run in by_task.items()}
        each = [f"{f1[task]:.3f} ({by_task[task]['best']:.2f})" if task in f1 else "" for task in tasks]
        mean = f"{statistics.mean(f1.values()):.3f}" if len(f1) == len(tasks) else ""
        turned = [
            [run[name] for run in by_task.values() if name in run] for name in ("root_mean_square", "at_the_bound")
        ]
        angles = [f"{statistics.mean(values):.2f}" if values else "" for values in turned]
        coordinates = str(max(run["coordinates"] for run in by_task.values()))
        rows.append((mean, [search, space, f"{bound / math.pi:.3g} pi", coordinates, *each, mean, *angles]))
    header = ["search", "space", "bound", "coordinates", *tasks, "mean F1", "angles, radians", "at the bound"]
    return table(header, [row for _, row in sorted(rows, reverse=True)])


def stopping(path: Path) -> str:
    """F1 of unseen documents at each level of the training score, for each choice of layers."""
    rows = []
    for line in sorted(path.read_text().splitlines()):
        run = json.loads(line)
        reached = [run["levels"].get(str(level)) for level in LEVELS]
        where = [str(run[name]) for name in ("model", "task", "shots", "seed", "documents", "layers")]
        row = [*where, f"{run['base']['greedy_f1']:.3f}"]
        rows.append([*row, *(f"{at['greedy_f1']:.3f} ({at['steps']})" if at else "" for at in reached)])
    header = ["model", "task", "shots", "seed", "documents", "layers", "base"]
    return table([*header, *(f"at {level}" for level in LEVELS)], rows)


def asked(measured: Measured) -> str:
    """The measures that the study was to reach."""
    zero, six = (mean_gain(measured, shots, "default", "base") for shots in grid.SHOTS)
    wins = total = 0
    for model in grid.MODELS:
        for task in grid.TASKS:
            pairs = [
                (found["default"]["greedy_f1"], found["few-shot"]["greedy_f1"])
                for cell, found in measured.items()
                if (cell.model, cell.task, cell.shots) == (model, task, 0) and {"default", "few-shot"} <= found.keys()
            ]
            if pairs:
                total += 1
                wins += statistics.mean(a for a, _ in pairs) > statistics.mean(b for _, b in pairs)
    lora = [mean_gain(measured, shots, "default", "lora") for shots in grid.SHOTS]
    oft = [share(measured, shots, "default", "oft") for shots in grid.SHOTS]
    pairs = [
        (cell, rival)
        for rival in ("random", "paper")
        for cell, found in measured.items()
        if {"default", rival} <= found.keys()
        and max(mine.value for name in ("default", rival) if (mine := gain(measured, cell, name, "base"))) > 0
    ]
    ahead = sum(measured[cell]["default"]["greedy_f1"] > measured[cell][rival]["greedy_f1"] for cell, rival in pairs)
    rows = [
        ["mean gain over zero-shot prompts", "at least +.40", signed(zero)],
        ["mean gain of the edit under six-shot prompts, over the same unedited", "at least +.20", signed(six)],
        [
            "model-task pairs in which the edit without shots beats six shots of the same labels",
            "8 of 10",
            f"{wins} of {total}",
        ],
        [
            "of what Adam gains on the same angles by itself (`oft`), zero-shot; six-shot",
            "at least 90%",
            "; ".join(oft),
        ],
        ["against LoRA, zero-shot; six-shot", "level", "; ".join(map(signed, lora))],
        [
            "times that it beats random search or the paper's, of the cells in which either gains anything",
            "all",
            f"{ahead} of {len(pairs)}",
        ],
    ]
    return table(["measure", "asked", "measured"], rows)


def looked_at_again(measured: Measured, repeated: Measured) -> list[str]:
    """Settings in which a search was ahead of the default on seed 0, on all seeds; empty where not measured."""
    rows = []
    for setting, method in grid.AHEAD.items():
        row, over = [], []
        for cell in (Cell(*setting, seed) for seed in grid.SEEDS):
            rival, ours = (measured[cell] | repeated[cell]).get(method), measured[cell]["default"]
            if rival:
                over.append(f1_gain(ours["gold"], rival["greedy"], ours["greedy"], resamples=2000))
            row.append(f"{ours['greedy_f1']:.3f} : {rival['greedy_f1']:.3f}" if rival else "")
        if len(over) > 1:
            rows.append([*map(str, setting), method, *row, signed(mean_over_settings([over]))])
    header = ["model", "task", "shots", "search", *(f"seed {seed}" for seed in grid.SEEDS), "default minus it"]
    return [AGAIN, table(header, rows)] if rows else []


def side_effects(measured: Measured, folder: Path) -> list[str]:
    """The matrix of every edit on every task, and what each changes on neutral text; empty where not measured."""
    files = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    found = {(each["model"], each["tuned"], each["task"]): each for each in files}
    rows = []
    for model, tuned in ((model, tuned) for model in grid.MODELS for tuned in grid.TASKS):
        gains: dict[str, Gain] = {}
        for task in grid.TASKS:
            base, edited = measured[Cell(model, task, 0, 0)].get("base"), found.get((model, tuned, task))
            if base and edited:
                right = edited["gold"]
                gains[task] = f1_gain(right, base["greedy"][: len(right)], edited["greedy"], resamples=2000)
        if not gains:
            continue
        others = [[gain] for task, gain in gains.items() if task != tuned]
        columns = [signed(gains.get(task)) for task in grid.TASKS]
        columns[grid.TASKS.index(tuned)] = f"**{signed(gains.get(tuned))}**"
        neutral = ["", ""]
        if text := found.get((model, tuned, DRIFT)):
            kl = text["kl"]
            neutral = [
                f"{text['perplexity'] / text['base_perplexity']:.2f}",
                f"{kl['value']:.3f} [{kl['low']:.3f}, {kl['high']:.3f}]",
            ]
        rows.append([model, tuned, *columns, signed(mean_over_settings(others)) if others else "", *neutral])
    header = ["model", "tuned on", *grid.TASKS, "the others, mean", "perplexity, times the base's", "KL"]
    return [EFFECTS.format(documents=DOCUMENTS, tokens=TOKENS), table(header, rows)] if rows else []


def weakened(folder: Path) -> dict[str, list[tuple[float, Gain, Mean]]]:
    """Strength, gain and KL divergence of each edit that was scaled, by the task that it was tuned on."""
    found = {}
    for task in grid.TASKS:
        if (path := folder / f"smollm2-{task}-{WEAKER}.json").exists():
            points = json.loads(path.read_text())["strengths"]
            found[task] = [
                (point["strength"], Gain(**point["change"]["gain"]), Mean(**point["drift"]["kl"])) for point in points
            ]
    return found


def strengths(folder: Path) -> list[str]:
    """What weaker edits gain, and what they change; empty where not measured."""
    curves = weakened(folder)
    if not curves:
        return []
    rows = [[task, *(f"{signed(gain)} ({kl.value:.3f})" for _, gain, kl in curve)] for task, curve in curves.items()]
    header = ["tuned on", *(f"{strength:g}" for strength, *_ in next(iter(curves.values())))]
    return [WEAKENED.format(texts=TEXTS), table(header, rows)]


def text(measured: Measured, repeated: Measured) -> str:
    """RESULTS.md."""
    parts = [INTRODUCTION.format(documents=grid.DOCUMENTS, samples=grid.SAMPLES, budget=grid.BUDGET)]
    parts += ["## What was asked\n", asked(measured), *looked_at_again(measured, repeated)]
    for shots in grid.SHOTS:
        parts += [f"## {shots or 'No'} shots in every prompt\n", scores(measured, shots), compared(measured, shots)]
    parts += [OTHERWISE, judged_otherwise(measured)]
    parts += [RIVALS, rivals(measured), COSTS, costs(measured)]
    parts += ["## Training against unseen documents\n", overfitting(measured)]
    parts += side_effects(measured, HERE / "effects") + strengths(HERE / "effects")
    parts += [
        "## How fast each search climbs\n",
        "![Best score so far by evaluations spent](benchmarks/study/curves.svg)\n",
    ]
    parts += [SEARCHED, searched(HERE / "searches.jsonl")]
    parts += [SPACES, spaces(HERE / "spaces.jsonl", HERE / "searches.jsonl")]
    parts += [CLASSES, classes(HERE / "classes.jsonl"), STOPPING, stopping(HERE / "stopping.jsonl")]
    parts += [REMEDIES, remedied(HERE / "overfitting.jsonl")]
    parts += [DEVELOPMENT, development(HERE / "development.jsonl"), (HERE / "notes.md").read_text()]
    return "\n".join(parts)


def main() -> None:
    measured, repeated = load(HERE / "cells")
    picture(measured, HERE / "curves.svg")
    if curves := weakened(HERE / "effects"):
        write_svg(HERE / "strengths.svg", mechanism.trade_off("strengths", curves))
    write_atomically(ROOT / "RESULTS.md", text(measured, repeated).encode())


if __name__ == "__main__":
    main()
