"""Measure what the study's edits change elsewhere: `python -m benchmarks.study.effects`.

The study's default edit of every model and task (no shots, seed 0, no limit of divergence) answers every task and is
measured on neutral text. SmolLM2's edits are also measured at smaller strengths, on their own task and on the first of
these texts. An edit that the study's working folder lacks is searched again, as the study did. Like the study, it can
be stopped and started at any time, and several processes may share the work.
"""

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

from benchmarks.study import grid
from benchmarks.study.grid import NEUTRAL_TEXT, WEAKER, Cell
from benchmarks.study.records import Record, measure_records
from benchmarks.study.run import make_config, tune_in
from tarot.analysis.divergence import measure_divergence
from tarot.analysis.neutral_text import neutral_text
from tarot.analysis.trade_off import measure_trade_off
from tarot.edit.adapter import Adapter
from tarot.evaluation.evaluate import evaluate
from tarot.evaluation.lm_eval_results import read_answers
from tarot.evaluation.options import EvaluationOptions
from tarot.models.load import load_model
from tarot.models.loaded_model import LoadedModel
from tarot.objectives.tasks.task_loading import load_task

HERE = Path(__file__).parent


def measure_task(loaded: LoadedModel, edit: Adapter, task: str) -> dict[str, Any]:
    """Return the right answers of a task's documents, and the edited model's."""
    name = f"tarot_{task}"
    options = {"adapter": edit, "num_fewshot": 0, "limit": grid.EFFECT_DOCUMENTS}
    results = evaluate(loaded.model, loaded.tokenizer, [name], **options)
    gold, arm = read_answers(load_task(name), results["samples"][name])
    return {"gold": gold, "greedy": arm.greedy}


def measure_neutral_text(loaded: LoadedModel, edit: Adapter) -> dict[str, Any]:
    """Return perplexity and KL divergence on neutral text."""
    (divergence,) = measure_divergence(loaded.model, [edit], neutral_text(loaded, grid.NEUTRAL_TOKENS))
    return asdict(divergence)


def measure_strengths(loaded: LoadedModel, edit: Adapter) -> dict[str, Any]:
    """Return gain on the edit's own task and divergence on a part of the text, at each strength."""
    text = neutral_text(loaded, grid.NEUTRAL_TOKENS)[: grid.STRENGTH_TEXTS]
    points = measure_trade_off(loaded, edit, text, grid.STRENGTHS, EvaluationOptions(limit=grid.EFFECT_DOCUMENTS))
    return {"strengths": [asdict(point) for point in points]}


def parts() -> Iterator[tuple[str, str, str]]:
    """Yield the model, the task tuned on, and what is measured."""
    for model in grid.MODELS:
        for tuned in grid.TASKS:
            yield from ((model, tuned, task) for task in (*grid.TASKS, NEUTRAL_TEXT))
    yield from (("smollm2", tuned, WEAKER) for tuned in grid.TASKS)


def main() -> None:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/study"), help="folder of the study's adapters")
    parser.add_argument("--output", type=Path, default=HERE / "effects", help="folder of the records")
    options = parser.parse_args()
    load = cache(load_model)
    others = {NEUTRAL_TEXT: measure_neutral_text, WEAKER: measure_strengths}

    @cache
    def find_edit(model: str, tuned: str) -> Adapter:
        config = make_config(Cell(model, tuned, 0, 0), "default")
        return tune_in(options.work, load(grid.MODELS[model]), config, grid.BUDGET)[0]

    def measure(model: str, tuned: str, task: str) -> Record:
        loaded, edit = load(grid.MODELS[model]), find_edit(model, tuned)
        measured = others[task](loaded, edit) if task in others else measure_task(loaded, edit, task)
        return {"model": model, "tuned": tuned, "task": task, "adapter": edit.fingerprint, **measured}

    measure_records(options.output, options.work, {"-".join(part): partial(measure, *part) for part in parts()})


if __name__ == "__main__":
    main()
