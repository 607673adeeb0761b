"""Time a six-shot lm-eval task through `tarot` and through the stock `hf` model, which give the same answers."""

import os
from typing import Any

import pytest
from alternatives import Alternatives
from lm_eval.api.task import Task
from lm_eval.models.huggingface import HFLM

from tarot.models.lm_eval_model import TarotLM
from tarot.models.loaded_model import LoadedModel
from tarot.objectives.tasks.prompts import get_chat_template
from tarot.objectives.tasks.task_loading import load_task

TASK = "tarot_ag_news" if os.environ.get("TAROT_DATA") else "synth_implicatives"
DOCUMENTS = 32
BATCH = 8
KINDS = {"stock": HFLM, "tarot": TarotLM}


@pytest.fixture(scope="module")
def task(tarot_model: LoadedModel) -> Task:
    """Build the requests of 32 documents, each after six shots."""
    lm = TarotLM(tarot_model.model, tokenizer=tarot_model.tokenizer)
    task = load_task(TASK)
    task.set_config("num_fewshot", 6)
    task.build_all_requests(
        limit=DOCUMENTS,
        apply_chat_template=get_chat_template(lm, True) is not None,
        fewshot_as_multiturn=True,
        chat_template=lm.apply_chat_template,
    )
    return task


@pytest.mark.parametrize("kind", KINDS)
def bench_harness(
    benchmark: Any,
    tarot_model: LoadedModel,
    bounded: bool,
    alternatives: Alternatives,
    task: Task,
    kind: str,
) -> None:
    """Time the answers of one model class; check that both classes agree."""
    lm = KINDS[kind](pretrained=tarot_model.model, tokenizer=tarot_model.tokenizer, batch_size=BATCH)
    benchmark.group = f"six-shot task {tarot_model.reference}"
    answers = benchmark.pedantic(lm.loglikelihood, args=(task.instances,), kwargs={"disable_tqdm": True})
    alternatives.add(benchmark, kind, answers)
    benchmark.extra_info.update(model=tarot_model.reference, task=TASK, documents=DOCUMENTS)
    stock = alternatives.result(benchmark.group, "stock")
    if kind == "stock" or stock is None:
        return
    error = max(abs(a - b) for (a, _), (b, _) in zip(answers, stock, strict=True))
    benchmark.extra_info["log_probability_error"] = error
    assert [greedy for _, greedy in answers] == [greedy for _, greedy in stock]
    assert error < 1e-3
    ratio = alternatives.ratio(benchmark.group, "stock", "tarot")
    if ratio is not None:
        benchmark.extra_info["stock_over_tarot"] = round(ratio, 2)
        assert ratio > 3 or not bounded
