"""Time sampling texts for a policy gradient beside lm-eval's own generation, in continuations a second.

Both write four texts of each prompt at temperature 1. lm-eval gets each prompt four times: one at a time, which is its
default, and all in one batch.
"""

from typing import Any

import pytest
from alternatives import Alternatives
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from tarot.edit.rotation import ROTARY
from tarot.edit.sites import find_sites
from tarot.models.lm_eval_model import TarotLM
from tarot.models.loaded_model import LoadedModel
from tarot.objectives.policy import N_DRAWS, PolicyObjective, make_policy_objective
from tarot.objectives.tasks.prompts import get_chat_template
from tarot.objectives.tasks.samples import draw_samples
from tarot.objectives.tasks.task_loading import load_task

TASK, N_PROMPTS = "openings", 20
N_TEXTS = N_PROMPTS * N_DRAWS
OPTIONS = {"max_gen_toks": 30, "until": [], "do_sample": True, "temperature": 1.0, "top_k": 0}
BATCH_SIZES = {"lm-eval": 1, "lm-eval in one batch": N_TEXTS}
LEAST_RATIO = 5  # continuations a second over lm-eval's


@pytest.fixture(scope="module")
def policy(tarot_model: LoadedModel) -> PolicyObjective:
    """Return the policy objective of 20 openings; its reward is not used."""
    lm = TarotLM(tarot_model.model, tokenizer=tarot_model.tokenizer)
    task = load_task(TASK)
    samples = draw_samples(task, N_PROMPTS, chat_template=get_chat_template(lm, True))
    sites = find_sites(tarot_model.model, "heads", 1.0)
    return make_policy_objective(lm, task, samples, lambda p, t: [], sites=sites, rotation=ROTARY, batch_size=None)


def lm_eval_texts(model: LoadedModel, policy: PolicyObjective, batch_size: int) -> list[str]:
    """Generate the texts by lm-eval's own model."""
    lm = HFLM(pretrained=model.model, tokenizer=model.tokenizer, batch_size=batch_size)
    prompts = [prompt for prompt in policy.prompts for _ in range(N_DRAWS)]
    requests = [Instance("generate_until", {}, (prompt, dict(OPTIONS)), i) for i, prompt in enumerate(prompts)]
    return list(lm.generate_until(requests, disable_tqdm=True))


@pytest.mark.parametrize("how", [*BATCH_SIZES, "ours"])
def bench_generation(
    benchmark: Any,
    tarot_model: LoadedModel,
    bounded: bool,
    alternatives: Alternatives,
    policy: PolicyObjective,
    how: str,
) -> None:
    """Time one set of draws in one of three ways."""
    benchmark.group = f"generation {tarot_model.reference}"
    if how == "ours":
        result = benchmark.pedantic(policy.sampler.sample, args=(N_DRAWS, 0), rounds=1)
        assert sum(map(len, result)) == N_TEXTS
    else:
        result = benchmark.pedantic(lm_eval_texts, args=(tarot_model, policy, BATCH_SIZES[how]), rounds=1)
        assert len(result) == N_TEXTS
    alternatives.add(benchmark, how, result)
    benchmark.extra_info.update(model=tarot_model.reference, task=TASK, texts=N_TEXTS)
    if how != "ours":
        return
    for name in BATCH_SIZES:
        if ratio := alternatives.ratio(benchmark.group, name, "ours"):
            benchmark.extra_info[f"{name} over ours"] = round(ratio, 2)
            assert ratio > LEAST_RATIO or name != "lm-eval" or not bounded
