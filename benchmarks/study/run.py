"""Measure what the grid declares and the folder `cells` lacks: `python -m benchmarks.study.run`.

It can be stopped and started at any time. Each finished cell and method is a small JSON file, a search that was stopped
resumes from its trials, and several processes may share the work: a cell is locked while it is measured. Searches
use PyTorch's faster products (`tarot.models.precision`), answers to documents its exact ones.

`--model wheel:qwen2.5-coder-0.5b` measures the cells of a larger model instead, into the folder `sizes`.
"""

import argparse
import resource
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.study import grid
from benchmarks.study.grid import Cell
from benchmarks.study.published_search import Published
from benchmarks.study.records import Record, measure_records
from tarot.edit.adapter import Adapter
from tarot.edit.adapter_folder import WEIGHTS
from tarot.evaluation import in_context
from tarot.evaluation.baselines.edit import BaselineEdit
from tarot.evaluation.baselines.prompting import BASELINES as PROMPTING
from tarot.evaluation.baselines.run import make_edit
from tarot.evaluation.baselines.setting import Setting
from tarot.evaluation.evaluate import evaluate
from tarot.evaluation.grid.adapter_cache import tune_cached
from tarot.evaluation.lm_eval_results import read_answers
from tarot.evaluation.options import EvaluationOptions
from tarot.evaluation.statistics.gains import weighted_f1
from tarot.models.lm_eval_model import TarotLM
from tarot.models.load import load_model
from tarot.models.loaded_model import LoadedModel
from tarot.models.precision import fast_products
from tarot.objectives.tasks.documents import Doc
from tarot.objectives.tasks.prompts import get_chat_template
from tarot.objectives.tasks.samples import MIXED_SHOTS, draw_samples
from tarot.objectives.tasks.task_loading import load_task
from tarot.search.algorithms.registry import SEARCHES
from tarot.search.config import TaRotConfig
from tarot.search.folder import read_curve
from tarot.search.provenance import library_versions

HERE = Path(__file__).parent
FORMAT = 1


@contextmanager
def fast_attention(loaded: LoadedModel) -> Iterator[None]:
    """Compute attention by plain products, and all products as searches do, which is fastest on this processor."""
    loaded.model.set_attn_implementation("eager")
    try:
        with fast_products():
            yield
    finally:
        loaded.model.set_attn_implementation("sdpa")


def make_config(cell: Cell, method: str) -> TaRotConfig:
    """Return the configuration of a method in a cell."""
    return cell.config(**{"max_kl": None} | grid.settings_of(cell, method))


def tune_in(work: Path, loaded: LoadedModel, config: TaRotConfig, budget: int) -> tuple[Adapter, Path]:
    """Return the adapter of a configuration, and its folder; a search that was stopped resumes from its trials."""
    with fast_attention(loaded):
        return tune_cached(loaded, config, work, budget=budget, include_path=None, notify=print)


def make_setting(loaded: LoadedModel, config: TaRotConfig, labelled: Sequence[Doc] = ()) -> Setting:
    """Return what the product's baselines get."""
    task = load_task(config.task)
    return Setting(loaded, config, task, labelled, grid.FEW_SHOT, grid.BUDGET, EvaluationOptions(limit=grid.DOCUMENTS))


def edit_with(loaded: LoadedModel, cell: Cell, method: str, work: Path) -> tuple[Adapter | BaselineEdit, Record]:
    """Make an edit from the labelled samples, and return it with its part of the record."""
    config = make_config(cell, method)
    if method not in grid.SEARCHES:
        setting = make_setting(loaded, config)
        objective = setting.make_objective()
        with fast_attention(loaded):
            edit = make_edit(method, setting)
            with torch.no_grad(), edit.apply(loaded.model):
                scores = {"best": float(objective.score_model())}
        return edit, {"stored_bytes": edit.stored_bytes, "scores": scores}
    adapter, folder = tune_in(work, loaded, config, grid.BUDGET)
    record = {name: adapter.provenance[name] for name in ("search", "space", "layers", "coordinates", "scores")}
    record["stored_bytes"] = (folder / WEIGHTS).stat().st_size
    record["seconds_of"] = adapter.provenance["seconds"]
    record["curve"] = [round(score, 5) for score in read_curve(folder, config.search)]
    return adapter, record


def measure_cell(loaded: LoadedModel, cell: Cell, method: str, work: Path) -> Record:
    """Return the record of a method: the right answers, its answers, and what it cost."""
    name = f"tarot_{cell.task}"
    edit_record: Record = {}
    started, edit = time.perf_counter(), None
    if method not in (*grid.UNEDITED, *grid.PROMPTING):
        edit, edit_record = edit_with(loaded, cell, method, work)
    seconds = round(time.perf_counter() - started, 1)
    task = load_task(name)
    if method in ("few-shot", *grid.PROMPTING):
        template = get_chat_template(TarotLM(loaded.model, tokenizer=loaded.tokenizer), True)
        drawn = draw_samples(task, grid.SAMPLES, seed=cell.seed, chat_template=template)
        labelled = in_context.labelled_documents(task, [vars(sample) for sample in drawn])
        setting = make_setting(loaded, make_config(cell, method), labelled)
        if method == "few-shot":
            documents = setting.answer_with(labelled[: grid.FEW_SHOT])["samples"][name]
        else:
            documents = PROMPTING[method](setting).documents
    else:
        options: dict[str, Any] = {"adapter": edit, "num_fewshot": cell.shots, "limit": grid.DOCUMENTS}
        documents = evaluate(loaded.model, loaded.tokenizer, [name], **options)["samples"][name]
    gold, arm = read_answers(task, documents)
    return {
        "format": FORMAT,
        **vars(cell),
        "method": method,
        "labels": labels_of(cell, method),
        "greedy_f1": round(weighted_f1(gold, arm.greedy), 4),
        "seconds": seconds,
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        **edit_record,
        "gold": gold,
        "greedy": arm.greedy,
        "predicted": arm.predicted,
        "versions": library_versions(),
    }


def labels_of(cell: Cell, method: str) -> int:
    """Return the number of labelled documents that a method sees, shots included."""
    if method in grid.PROMPTING:
        return grid.SAMPLES
    if method in grid.UNEDITED:
        return grid.FEW_SHOT if method == "few-shot" else cell.shots
    config = make_config(cell, method)  # its tasks show the same first documents in every prompt
    return config.num_samples + (max(MIXED_SHOTS) if config.num_fewshot == "mix" else int(config.num_fewshot))


def parse_methods(text: str) -> list[str]:
    """Parse a comma-separated list of methods."""
    names = text.split(",")
    if unknown := [name for name in names if name not in grid.METHODS]:
        raise argparse.ArgumentTypeError(f"unknown method {unknown[0]!r}; choose from {', '.join(grid.METHODS)}")
    return names


def parse_numbers(text: str) -> tuple[int, ...]:
    """Parse a comma-separated list of numbers."""
    return tuple(map(int, text.split(",")))


def declared(
    reference: str | None, shots: tuple[int, ...], seeds: tuple[int, ...], methods: list[str]
) -> list[tuple[str, Cell]]:
    """Return the methods and cells to measure, in order: of the larger model with this reference, or of the others."""
    if reference:
        (model,) = (name for name, each in grid.LARGER.items() if each == reference)
        return [
            (method, cell)
            for cell in grid.size_cells(model, shots)
            for method in grid.methods(cell)
            if method in methods
        ]
    # Method by method within a seed, so that the most important results come first.
    return [
        (method, cell)
        for seed in seeds
        for method in methods
        for cell in grid.cells((seed,))
        if method in grid.methods(cell)
    ]


def main() -> None:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/study"), help="folder of the searches' trials")
    parser.add_argument("--cells", type=Path, help="folder of the records; default: cells, or sizes with --model")
    parser.add_argument("--model", choices=list(grid.LARGER.values()), help="a larger model, seed 0 alone")
    parser.add_argument("--shots", type=parse_numbers, default=grid.SHOTS, help="of a larger model; default: 0,6")
    parser.add_argument("--seeds", type=parse_numbers, default=grid.SEEDS)
    parser.add_argument("--methods", type=parse_methods, default=list(grid.METHODS), help="default: all")
    options = parser.parse_args()
    SEARCHES["published"] = Published
    load = cache(load_model)
    folder = options.cells or HERE / ("sizes" if options.model else "cells")

    def measure(cell: Cell, method: str) -> Record:
        return measure_cell(load(grid.REFERENCES[cell.model]), cell, method, options.work)

    requests = declared(options.model, options.shots, options.seeds, options.methods)
    measure_records(
        folder,
        options.work,
        {cell.record_name(method): partial(measure, cell, method) for method, cell in requests},
    )


if __name__ == "__main__":
    main()
