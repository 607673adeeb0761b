"""Time one evaluation of the objective beside the plain loop and beside bare forward passes of the same tokens.

The plain loop is how the published code evaluates: one prompt at a time, a matrix a head, no cache, the unedited pass
beside it. The bare passes are the least that the same tokens cost without edit, padding or cache: each shared prefix
once, and each prompt's own tokens as a text of its own.
"""

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from alternatives import Alternatives

from tarot.edit.merge import merge_temporarily
from tarot.edit.rotation import ROTARY
from tarot.edit.sites import find_sites
from tarot.models.lm_eval_model import TarotLM
from tarot.models.loaded_model import LoadedModel
from tarot.models.scoring.prefix_tree import PrefixNode, Row, build_tree
from tarot.models.scoring.scorer import PASS_COST_TOKENS
from tarot.objectives.answers import AnswerObjective
from tarot.objectives.tasks.prompts import get_chat_template
from tarot.objectives.tasks.samples import draw_samples
from tarot.objectives.tasks.task_loading import load_task

TASK = "tarot_ag_news" if os.environ.get("TAROT_DATA") else "synth_implicatives"
ROUNDS = 2


def plain_loop(objective: AnswerObjective, angles: torch.Tensor) -> torch.Tensor:
    """Run the edited model as published, and return the log-probability of each answer.

    The published code also runs the unedited model and ignores the result. It scores the first token of an answer only.
    """
    model, size = objective.model, objective.sites[0].d_head

    def multiply(layer_angles: torch.Tensor) -> Callable[..., tuple[torch.Tensor]]:
        def hook(module: object, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
            heads = args[0].unflatten(-1, (-1, size))
            rotated = [heads[..., head, :] @ ROTARY.matrix(a, size) for head, a in enumerate(layer_angles)]
            return (torch.stack(rotated, -2).flatten(-2),)

        return hook

    scores = []
    for context, continuation in objective.scorer.requests:
        ids = torch.tensor([context + continuation[:-1]])
        model(ids, use_cache=False)
        handles = [
            site.module.register_forward_pre_hook(multiply(layer_angles))
            for site, layer_angles in zip(objective.sites, angles, strict=True)
        ]
        logits = model(ids, use_cache=False).logits[0, len(context) - 1 :]
        scores.append(logits.log_softmax(-1)[range(len(continuation)), continuation].sum())
        for handle in handles:
            handle.remove()
    return torch.stack(scores)


def bare_passes(objective: AnswerObjective, angles: torch.Tensor) -> None:
    """Run each shared prefix once, then what each prompt adds to it, through the layers alone."""
    layers = objective.model.model
    rows = [Row(context + answer[:-1], len(context) - 1, 0) for context, answer in objective.scorer.requests]

    def run(node: PrefixNode, depth: int) -> None:
        if node.depth > depth:
            layers(input_ids=torch.tensor([node.tokens[depth : node.depth]]), use_cache=False)
        for row in node.rows:
            layers(input_ids=torch.tensor([rows[row].tokens[node.depth :]]), use_cache=False)
        for child in node.children:
            run(child, node.depth)

    run(build_tree(rows, PASS_COST_TOKENS["cpu"], share=True), 0)


def our_evaluation(objective: AnswerObjective, angles: torch.Tensor) -> float:
    """Score the angles as a search does."""
    return objective(angles)


def log_probabilities(objective: AnswerObjective, angles: torch.Tensor) -> torch.Tensor:
    """Return what `plain_loop` does, from the scorer."""
    with torch.no_grad(), merge_temporarily(objective.model, angles, objective.sites):
        return objective.scorer.log_probabilities()[0]


@pytest.fixture(scope="module", params=[0, 6], ids="{}shot".format)
def objective(request: pytest.FixtureRequest, tarot_model: LoadedModel) -> AnswerObjective:
    """Draw 20 samples with that many shots in each prompt."""
    lm = TarotLM(tarot_model.model, tokenizer=tarot_model.tokenizer)
    samples = draw_samples(load_task(TASK), 20, num_fewshot=request.param, chat_template=get_chat_template(lm, True))
    return AnswerObjective(tarot_model.model, samples, lm.encode, sites=find_sites(tarot_model.model, "heads", 0.5))


# Rounds, after how many that are not counted. The plain loop takes minutes, so it runs once. Our first evaluation fills
# the cache of the frozen layers, which a search does once in hundreds of evaluations.
ALTERNATIVES = {"plain": (plain_loop, 1, 0), "bare": (bare_passes, ROUNDS, 0), "ours": (our_evaluation, ROUNDS, 1)}


@pytest.mark.parametrize("how", ALTERNATIVES)
def bench_objective(
    benchmark: Any,
    request: pytest.FixtureRequest,
    tarot_model: LoadedModel,
    bounded: bool,
    alternatives: Alternatives,
    objective: AnswerObjective,
    how: str,
) -> None:
    """Time one evaluation of the objective in one of three ways."""
    shots = request.node.callspec.params["objective"]
    sites = objective.sites
    generator = torch.Generator().manual_seed(0)
    angles = torch.randn(len(sites), sites[0].n_heads, sites[0].d_head // 2, generator=generator) / 3

    benchmark.group = f"objective {shots}-shot {tarot_model.reference}"
    work, rounds, warmup_rounds = ALTERNATIVES[how]
    with torch.no_grad():
        result = benchmark.pedantic(work, args=(objective, angles), rounds=rounds, warmup_rounds=warmup_rounds)
    alternatives.add(benchmark, how, result)
    benchmark.extra_info.update(model=tarot_model.reference, task=TASK, shots=shots, tokens=objective.scorer.tokens)
    if how != "ours":
        return
    if (expected := alternatives.result(benchmark.group, "plain")) is not None:
        error = float((log_probabilities(objective, angles) - expected).abs().max())
        benchmark.extra_info["log_probability_error"] = error
        assert error < 1e-4
    if ratio := alternatives.ratio(benchmark.group, "ours", "bare"):
        benchmark.extra_info["ours_over_bare"] = round(ratio, 3)
        assert ratio < 1.2 or not bounded
    if ratio := alternatives.ratio(benchmark.group, "plain", "ours"):
        benchmark.extra_info["plain_over_ours"] = round(ratio, 2)
        # The plain loop repeats the shots for every prompt; without shots there is less to save.
        assert ratio > (12 if shots else 3) or not bounded
