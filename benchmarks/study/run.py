"""`python -m benchmarks.study.run`: measure what the grid declares and the folder `cells` lacks.

It can be stopped and started at any time. Each finished cell and method is a small JSON file, and several processes may
share the work: each leaves alone what another has begun. Searches multiply in bfloat16 where the processor can (twice
as fast here); every document is answered in float32.
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from benchmarks.study import grid
from benchmarks.study.grid import Cell
from tarot._files.atomic import write_atomically
from tarot.edit.layers import parse_layers
from tarot.edit.sites import find_sites
from tarot.evaluation import in_context as icl
from tarot.evaluation.baselines.eigenpruning import eigenpruning
from tarot.evaluation.baselines.trained import lora, oft
from tarot.evaluation.evaluate import evaluate
from tarot.evaluation.lm_eval_results import read_answers
from tarot.evaluation.statistics.gains import weighted_f1
from tarot.models.lm_eval_model import TarotLM
from tarot.models.load import load_model
from tarot.models.loaded_model import LoadedModel
from tarot.objectives.answers import AnswerObjective
from tarot.objectives.prompts import get_chat_template
from tarot.objectives.samples import MIXED_SHOTS, draw_samples
from tarot.objectives.task_loading import load_task
from tarot.search.config import TaRotConfig
from tarot.search.folder import read_curve
from tarot.search.provenance import LIBRARIES
from tarot.search.tune import tune

HERE = Path(__file__).parent
FORMAT = 1
RIVALS = {"lora": lora, "oft": oft, "eigenpruning": eigenpruning}


@contextmanager
def quick(loaded: LoadedModel) -> Iterator[None]:
    """Products in bfloat16, sums in float32, and attention as plain products, which the processor is quickest at."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    loaded.model.set_attn_implementation("eager")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        loaded.model.set_attn_implementation("sdpa")


def edited(loaded: LoadedModel, cell: Cell, method: str, work: Path) -> tuple[Any, dict[str, Any]]:
    """What a method makes of the labelled samples, used as an adapter is, and what is to be said of it."""
    usual = {"num_fewshot": cell.shots, "samples": grid.SAMPLES, "seed": cell.seed}
    config = TaRotConfig(f"tarot_{cell.task}", **usual | grid.fields(cell, method))
    if method in grid.SEARCHES:
        adapter = tune(loaded.model, loaded.tokenizer, config, output_dir=work, budget=grid.BUDGET, resume=True)
        if adapter.provenance["interrupted"]:  # it has an edit, but not this cell's
            raise KeyboardInterrupt
        said = {name: adapter.provenance[name] for name in ("search", "space", "layers", "coordinates", "scores")}
        said["stored_bytes"] = (work / "adapter.safetensors").stat().st_size
        said["seconds_of"] = adapter.provenance["seconds"]
        return adapter, said | {"curve": [round(score, 5) for score in read_curve(work, config.search)]}
    task = load_task(config.task)
    lm = TarotLM(loaded.model, tokenizer=loaded.tokenizer)
    template = get_chat_template(lm, config.apply_chat_template)
    samples = draw_samples(task, config.num_samples, num_fewshot=cell.shots, seed=cell.seed, chat_template=template)
    sites = find_sites(loaded.model, "heads", parse_layers(config.layers))
    objective = AnswerObjective(loaded.model, samples, lm.encode, sites=sites)
    weights = RIVALS[method](objective, grid.BUDGET, cell.seed)
    weights.provenance["samples_drawn"] = [{"key": sample.key} for sample in samples]
    with torch.no_grad(), weights.apply(loaded.model):
        scores = {"best": float(objective.score_model())}
    return weights, {"stored_bytes": weights.stored_bytes, "scores": scores}


def answered(loaded: LoadedModel, cell: Cell, method: str, work: Path) -> dict[str, Any]:
    """The documents' right answers and the method's, with what it took."""
    name = f"tarot_{cell.task}"
    said: dict[str, Any] = {}
    started, edit = time.perf_counter(), None
    if method not in grid.UNEDITED:
        with quick(loaded):
            edit, said = edited(loaded, cell, method, work)
    seconds = round(time.perf_counter() - started, 1)
    task = load_task(name)
    if method == "few-shot":
        template = get_chat_template(TarotLM(loaded.model, tokenizer=loaded.tokenizer), True)
        drawn = draw_samples(task, grid.SAMPLES, seed=cell.seed, chat_template=template)
        shots = icl.labelled_documents(task, [vars(sample) for sample in drawn])[: grid.FEW_SHOT]
        results = icl.evaluate_with_shots(loaded, name, shots, limit=grid.DOCUMENTS)
    else:
        results = evaluate(
            loaded.model, loaded.tokenizer, [name], adapter=edit, num_fewshot=cell.shots, limit=grid.DOCUMENTS
        )
    gold, arm = read_answers(task, results["samples"][name])
    changed = {"samples": grid.SAMPLES, "num_fewshot": cell.shots} | grid.fields(cell, method)
    shots = max(MIXED_SHOTS) if changed["num_fewshot"] == "mix" else changed["num_fewshot"]
    labels = {"base": cell.shots, "few-shot": grid.FEW_SHOT}.get(method, changed["samples"] + shots)
    return {
        "format": FORMAT,
        **vars(cell),
        "method": method,
        "labels": labels,
        "greedy_f1": round(weighted_f1(gold, arm.greedy), 4),
        "seconds": seconds,
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        **said,
        "gold": gold,
        "greedy": arm.greedy,
        "predicted": arm.predicted,
        "versions": {library: version(library) for library in LIBRARIES},
    }


def known(text: str) -> list[str]:
    """Methods by name."""
    names = text.split(",")
    if strangers := [name for name in names if name not in grid.METHODS]:
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(grid.METHODS)}, got {strangers[0]!r}")
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/study"), help="folder of the searches' trials")
    parser.add_argument("--cells", type=Path, default=HERE / "cells", help="folder of the results")
    parser.add_argument("--seeds", type=lambda text: tuple(map(int, text.split(","))), default=grid.SEEDS)
    parser.add_argument("--methods", type=known, default=list(grid.METHODS), help="all, if left out")
    options = parser.parse_args()
    models: dict[str, LoadedModel] = {}
    # Method by method within a seed: what everybody wants to know first is done first.
    todo = [
        (method, cell, options.cells / f"{cell.name}-{method.replace(' ', '_')}.json")
        for seed in options.seeds
        for method in options.methods
        for cell in grid.cells((seed,))
        if method in grid.methods(cell)
    ]
    there = sum(path.exists() for *_, path in todo)
    print(f"{there} of {len(todo)} are in {options.cells} already", file=sys.stderr, flush=True)
    options.work.mkdir(parents=True, exist_ok=True)
    for method, cell, path in todo:
        name = path.stem
        with suppress(Timeout), FileLock(options.work / f"{name}.lock", timeout=0):
            if path.exists():
                continue
            if cell.model not in models:
                models[cell.model] = load_model(grid.MODELS[cell.model])
            result = answered(models[cell.model], cell, method, options.work / name)
            write_atomically(path, (json.dumps(result) + "\n").encode())
            print(f"{name}: {result['greedy_f1']:.3f} in {result['seconds']} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
