"""Measure gated edits: `python -m benchmarks.study.gates`. Like the study, it can be stopped and started at any time.

The study's default edit of a model and task (no shots, seed 0, no limit of divergence) gets a gate. Measured are: the
gain with and without the gate on held-out documents; which prompts open it, from the task's own to neutral text; and,
on the prompts of other tasks and on neutral text, whether the gated model answers as the base does, and the KL
divergence. Where the gate is closed both are those of the base bit for bit, so only prompts that open it are run.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from benchmarks.study import grid
from benchmarks.study.gate_prompts import LOOK_ALIKES, PARAPHRASES, other_prompts, paraphrase
from benchmarks.study.grid import Cell
from benchmarks.study.records import Record, measure_records
from benchmarks.study.run import make_config, tune_in
from tarot.analysis.neutral_text import neutral_text
from tarot.analysis.next_tokens import next_log_probabilities
from tarot.edit.adapter import Adapter
from tarot.edit.gate import prompt_features
from tarot.evaluation.evaluate import evaluate
from tarot.evaluation.lm_eval_results import read_answers
from tarot.evaluation.statistics.gains import weighted_f1
from tarot.models.lm_eval_model import TarotLM
from tarot.models.load import load_model
from tarot.models.loaded_model import LoadedModel
from tarot.objectives.tasks.prompts import get_chat_template
from tarot.objectives.tasks.samples import render_evaluation_documents
from tarot.objectives.tasks.task_loading import load_task
from tarot.search.gate import fit_gate

HERE = Path(__file__).parent
DOCUMENTS, PROMPTS, NEUTRAL_TOKENS = 100, 100, 5_120
SYNTHETIC = ("synth_navigate", "synth_color", "synth_implicatives")
TASKS = (*(f"tarot_{task}" for task in grid.TASKS), *SYNTHETIC)


def measure_gain(loaded: LoadedModel, edit: Adapter, task: str) -> dict[str, float]:
    """Return the weighted F1 of base, edit and gated edit on the same held-out documents."""
    scores = {}
    for name, arm in (("base", None), ("edited", replace(edit, gate=None)), ("gated", edit)):
        options: dict[str, Any] = {"adapter": arm, "num_fewshot": 0, "limit": DOCUMENTS}
        results = evaluate(loaded.model, loaded.tokenizer, [task], **options)
        gold, answers = read_answers(load_task(task), results["samples"][task])
        scores[name] = weighted_f1(gold, answers.greedy)
    return scores


def measure_prompts(loaded: LoadedModel, edit: Adapter, prompts: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Return how many prompts open the gate, and what that changes of the next token.

    The greedy token counts as the answer. KL is KL(base || gated) of the next token, in nats, the mean over prompts.
    """
    assert edit.gate is not None
    opens = edit.gate.opens(prompt_features(loaded.model, edit.gate.layer, prompts))
    opened = [prompt for prompt, is_open in zip(prompts, opens, strict=True) if is_open]
    changed, divergence = 0, 0.0
    if opened:
        base = next_log_probabilities(loaded.model, opened)
        with edit.apply(loaded.model):
            gated = next_log_probabilities(loaded.model, opened)
        changed = int((base.argmax(-1) != gated.argmax(-1)).sum())
        divergence = float((base.exp() * (base - gated)).sum(-1).clamp(min=0).sum())
    n = len(prompts)
    return {"prompts": n, "opened": len(opened), "same_answers": 1 - changed / n, "kl": divergence / n}


def make_prompts(loaded: LoadedModel, task: str) -> Mapping[str, list[list[int]]]:
    """Return token ids of all prompts that the gate is tried on, by what they are."""
    lm = TarotLM(loaded.model, tokenizer=loaded.tokenizer)
    template = get_chat_template(lm, True)
    sets: dict[str, list[str]] = {}
    for name in TASKS:
        documents = render_evaluation_documents(load_task(name), limit=PROMPTS, chat_template=template)
        sets["own task" if name == f"tarot_{task}" else name] = [sample.pairs[0][0] for sample in documents]
    for k, wording in enumerate(PARAPHRASES[task]):
        plain = render_evaluation_documents(load_task(f"tarot_{task}"), limit=PROMPTS)
        sets[f"paraphrase {k}"] = [paraphrase(wording, sample.pairs[0][0], template) for sample in plain]
    sets |= {f"look-alike: {name}": other_prompts(make, template) for name, make in LOOK_ALIKES.items()}
    tokens = {name: [lm.tok_encode(text) for text in dict.fromkeys(texts)] for name, texts in sets.items()}
    tokens["neutral text"] = neutral_text(loaded, NEUTRAL_TOKENS).tolist()
    return tokens


def measure(loaded: LoadedModel, edit: Adapter, task: str) -> dict[str, Any]:
    """Return all figures of one gated edit."""
    sets = make_prompts(loaded, task)
    return {
        "fit": edit.provenance["gate"],
        "score": measure_gain(loaded, edit, f"tarot_{task}"),
        "sets": {name: measure_prompts(loaded, edit, prompts) for name, prompts in sets.items()},
    }


def main() -> None:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/study"), help="folder of the study's adapters")
    parser.add_argument("--output", type=Path, default=HERE / "gates", help="folder of the records")
    parser.add_argument("--models", nargs="+", default=list(grid.MODELS), choices=grid.MODELS)
    parser.add_argument("--tasks", nargs="+", default=list(grid.TASKS), choices=grid.TASKS)
    options = parser.parse_args()
    load = cache(load_model)

    def make_record(model: str, task: str) -> Record:
        loaded = load(grid.MODELS[model])
        edit, _ = tune_in(options.work, loaded, make_config(Cell(model, task, 0, 0), "default"), grid.BUDGET)
        gated = fit_gate(loaded.model, loaded.tokenizer, edit)
        return {"model": model, "task": task, "adapter": gated.fingerprint, **measure(loaded, gated, task)}

    pairs = product(options.models, options.tasks)
    torch.manual_seed(0)
    measure_records(options.output, options.work, {"-".join(pair): partial(make_record, *pair) for pair in pairs})


if __name__ == "__main__":
    main()
