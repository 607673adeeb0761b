"""Measure what a limit of divergence keeps: `python -m benchmarks.study.retention`.

Declared before it was measured. A *cell* is a model, a task, a number of shots and a seed, as in the study. An *arm* is
one way to make the edit. Each arm of each cell is one small JSON file: the answers to the own task and to every other
task, the divergence and perplexity on neutral text that no search has read, and what the search cost. The unedited
model has a file of its own for each model, task and number of shots. A task's gain, change and share of equal answers
follow from the two files (`summarize`).

Of the other tasks, two are named in the arm `named`; nobody tunes on the three synthetic ones. It can be stopped and
started at any time, and several processes may share the work.

Not every arm runs in every cell, because an arm takes up to an hour. The order, declared when half of the cells without
shots had been measured: `no limit` and `default` without shots, seed 0, in all cells of the small models; then `named`
and `lora` in the same cells, `entailed_polarity` first; then `default` and `no limit` with Qwen 0.5B on the same task;
then the rest. Whatever is measured when the time is up is reported. `tighter` was declared last: LoRA stays far below
the limit, so it is compared with an edit that stays there too, in the cells that have LoRA.
"""

import argparse
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.study import grid
from benchmarks.study.grid import Cell
from benchmarks.study.records import Record, measure_records
from benchmarks.study.run import fast_attention, make_setting, parse_numbers, tune_in
from tarot.analysis.divergence import measure_divergence
from tarot.analysis.neutral_text import neutral_text
from tarot.edit.adapter import Adapter
from tarot.evaluation.baselines.edit import BaselineEdit
from tarot.evaluation.baselines.run import make_edit
from tarot.evaluation.evaluate import evaluate
from tarot.evaluation.lm_eval_results import read_answers
from tarot.evaluation.statistics.gains import weighted_f1
from tarot.models.load import load_model
from tarot.models.loaded_model import LoadedModel
from tarot.objectives.tasks.task_loading import load_task

HERE = Path(__file__).parent
FORMAT = 1
NAMED = ("synth_navigate", "synth_color")
OTHERS = (*(f"tarot_{task}" for task in grid.TASKS), "synth_implicatives", *NAMED)
DOCUMENTS, NEUTRAL_TOKENS = 60, 5_000

# Settings of `TaRotConfig` in which an arm differs from the default, and the strength at which its edit is measured.
NO_LIMIT = "no limit"
ARMS: Mapping[str, tuple[dict[str, Any], float]] = {
    NO_LIMIT: ({"max_kl": None}, 1.0),
    "default": ({}, 1.0),
    "named": ({"retain": NAMED}, 1.0),
    "strength .5": ({"max_kl": None}, 0.5),
    "looser": ({"max_kl": 0.03}, 1.0),
    "tighter": ({"max_kl": 0.005}, 1.0),
}
# The same settings, but the method of PEFT is trained in place of the search.
TRAINED: Mapping[str, dict[str, Any]] = {"lora no limit": {"max_kl": None}, "lora": {}}
# Measured once: the default's first version, a limit of .01 on 140 prompts, and its second, which read an eighth of the
# contexts in each trial.
EARLIER = ("140 prompts", "eighths")
BASE = "base"


def cells(
    seeds: tuple[int, ...],
    shots: tuple[int, ...] = grid.SHOTS,
    models: Sequence[str] = tuple(grid.MODELS),
    tasks: Sequence[str] = grid.TASKS,
) -> Iterator[Cell]:
    """Yield the cells, those without shots first, then seed by seed."""
    return (
        Cell(model, task, n_shots, seed)
        for n_shots in shots
        for seed in seeds
        for model in models
        for task in sorted(tasks, key=lambda task: task == "ag_news")  # the longest prompts last
    )


def make_arm(loaded: LoadedModel, cell: Cell, arm: str, work: Path) -> Adapter | BaselineEdit:
    """Make the edit of an arm; LoRA is trained as `tarot compare --baseline lora` does, under the limit of the arm."""
    if arm in TRAINED:
        with fast_attention(loaded):
            return make_edit("lora", make_setting(loaded, cell.config(**TRAINED[arm])))
    settings, strength = ARMS[arm]
    adapter, _ = tune_in(work, loaded, cell.config(**settings), grid.BUDGET)
    return adapter if strength == 1 else adapter.scaled(strength)


def tasks_of(cell: Cell) -> list[str]:
    """Return the tasks of a cell, without the synthetic one that shares documents with the tuned task."""
    return [name for name in OTHERS if name != f"synth_{cell.task}"]


def shots_of(cell: Cell) -> dict[str, int]:
    """Return the shots of every task of a cell: the own one has the cell's, the others have none."""
    return {name: cell.shots if name == f"tarot_{cell.task}" else 0 for name in tasks_of(cell)}


def answer_tasks(
    loaded: LoadedModel, shots: Mapping[str, int], edit: Adapter | BaselineEdit | None
) -> dict[str, dict[str, Any]]:
    """Return right and greedy answers to the first documents of tasks.

    Args:
        loaded: model and tokenizer.
        shots: number of shots by the task's name.
        edit: what changes the model.
    """
    answers = {}
    for name, n_shots in shots.items():
        results = evaluate(loaded.model, loaded.tokenizer, [name], adapter=edit, num_fewshot=n_shots, limit=DOCUMENTS)
        gold, arm = read_answers(load_task(name), results["samples"][name])
        answers[name] = {"gold": gold, "greedy": arm.greedy}
    return answers


def measure(loaded: LoadedModel, cell: Cell, arm: str, work: Path) -> Record:
    """Return the record of an arm in a cell; of the arm `base`, what the unedited model answers."""
    record: Record = {"format": FORMAT, **vars(cell), "arm": arm}
    if arm == BASE:
        return record | {"tasks": answer_tasks(loaded, shots_of(cell), None)}
    started = time.perf_counter()
    edit = make_arm(loaded, cell, arm, work)
    seconds = time.perf_counter() - started
    (divergence,) = measure_divergence(loaded.model, [edit], neutral_text(loaded, NEUTRAL_TOKENS))
    return record | {
        "edit": edit.fingerprint,
        "seconds": round(seconds, 1),
        "spent": edit.provenance.get("spent"),
        "retention": edit.provenance.get("retention"),
        "kl": vars(divergence.kl),
        "perplexity_ratio": divergence.perplexity / divergence.base_perplexity,
        "tasks": answer_tasks(loaded, shots_of(cell), edit),
    }


def summarize(record: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """Return the gain on the own task, and what `summarize_others` returns of the other tasks.

    Args:
        record: an arm's.
        base: the unedited model's, with the same number of shots on the own task.
    """
    own = f"tarot_{record['task']}"
    return {"gain": _change(own, record, base), **summarize_others(record, base, own)}


def summarize_others(record: Mapping[str, Any], base: Mapping[str, Any], own: str | None = None) -> dict[str, Any]:
    """Return the change and the share of equal answers on every task but one, the divergence and the perplexity.

    Args:
        record: of a changed model.
        base: the unedited model's.
        own: the task to leave out.
    """

    def agreement(name: str) -> float:
        pairs = zip(base["tasks"][name]["greedy"], record["tasks"][name]["greedy"], strict=True)
        return fmean(before == after for before, after in pairs)

    others = [name for name in record["tasks"] if name != own]
    return {
        "changes": {name: _change(name, record, base) for name in others},
        "agreement": {name: agreement(name) for name in others},
        "kl": record["kl"]["value"],
        "perplexity_ratio": record["perplexity_ratio"],
    }


def _change(name: str, record: Mapping[str, Any], base: Mapping[str, Any]) -> float:
    before, after = base["tasks"][name], record["tasks"][name]
    return weighted_f1(after["gold"], after["greedy"]) - weighted_f1(before["gold"], before["greedy"])


def todo(declared: Iterable[Cell], arms: Sequence[str]) -> Iterator[tuple[str, Cell, str]]:
    """Yield the name of each record's file, its cell and its arm; the unedited model has no seed."""
    bases = set()
    for cell in declared:
        if (base := f"{cell.model}-{cell.task}-{cell.shots}-{BASE}") not in bases:
            bases.add(base)
            yield base, cell, BASE
        for arm in arms:
            yield cell.record_name(arm), cell, arm


def parse_names(known: Iterable[str]) -> Callable[[str], list[str]]:
    """Return a parser of comma-separated names, each of which is known."""
    choices = list(known)

    def parse(text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in choices]:
            raise argparse.ArgumentTypeError(f"unknown name {unknown[0]!r}; choose from {', '.join(choices)}")
        return names

    return parse


def main() -> None:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/retention"), help="folder of the searches' trials")
    parser.add_argument("--output", type=Path, default=HERE / "retention-records", help="folder of the records")
    parser.add_argument("--seeds", type=parse_numbers, default=grid.SEEDS)
    parser.add_argument("--shots", type=parse_numbers, default=grid.SHOTS)
    parser.add_argument("--models", type=parse_names(grid.REFERENCES), default=[*grid.MODELS], help="default: small")
    parser.add_argument("--tasks", type=parse_names(grid.TASKS), default=[*grid.TASKS], help="default: all")
    parser.add_argument("--arms", type=parse_names((*ARMS, *TRAINED)), default=[*ARMS, *TRAINED], help="default: all")
    options = parser.parse_args()
    load = cache(load_model)

    def make_record(cell: Cell, arm: str) -> Record:
        return measure(load(grid.REFERENCES[cell.model]), cell, arm, options.work)

    requests = todo(cells(options.seeds, options.shots, options.models, options.tasks), options.arms)
    measure_records(
        options.output, options.work, {name: partial(make_record, cell, arm) for name, cell, arm in requests}
    )


if __name__ == "__main__":
    main()
