"""Evaluations of the objective against the plain loop and against bare forward passes of the same tokens: ratios in one
run.

The plain loop is how the published code evaluates: one prompt at a time, a matrix a head, no cache, the unedited pass
beside it. The bare passes are the least that the same tokens cost without edit, padding or cache: each shared prefix
once, and each prompt's own tokens as a text of its own.
"""

import os
import statistics
import time
from collections.abc import Callable

import pytest
import torch

from tarot.harness import TarotLM, chat_template
from tarot.intervention import merged
from tarot.models import LoadedModel, load_model
from tarot.objective import Objective
from tarot.rotation import ROTARY
from tarot.samples import draw, load_task
from tarot.sites import find_sites

MODELS = ("wheel:smollm2-135m", "wheel:gemma3-270m")
TASK = "tarot_ag_news" if os.environ.get("TAROT_DATA") else "synth_implicatives"
ROUNDS = 2
EVERY = (
    2  # of the prompts the plain loop runs each second one, and counts it twice: it takes them one by one, for minutes
)


def plain_loop(loaded: LoadedModel, objective: Objective, angles: torch.Tensor) -> list[torch.Tensor]:
    """Logits that predict each answer's first token, edited, as published, of every second prompt.

    The unedited pass is run and thrown away.
    """
    size = objective.sites[0].d_head

    def multiply(of_layer: torch.Tensor) -> Callable[..., tuple[torch.Tensor]]:
        def hook(module: object, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
            heads = args[0].unflatten(-1, (-1, size))
            return (
                torch.stack([heads[..., h, :] @ ROTARY.matrix(a, size) for h, a in enumerate(of_layer)], -2).flatten(
                    -2
                ),
            )

        return hook

    found = []
    for context, _ in objective.scorer.requests[::EVERY]:
        ids = torch.tensor([context])
        loaded.model(ids, use_cache=False)
        handles = [
            site.module.register_forward_pre_hook(multiply(of_layer))
            for site, of_layer in zip(objective.sites, angles, strict=True)
        ]
        found.append(loaded.model(ids, use_cache=False).logits[0, -1])
        for handle in handles:
            handle.remove()
    return found


def bare(loaded: LoadedModel, objective: Objective) -> None:
    """Each shared prefix once, then what each prompt adds to it, through the layers alone."""
    scorer = objective.scorer

    def run(node: object, depth: int) -> None:
        if node.depth > depth:
            loaded.model.model(input_ids=torch.tensor([node.tokens[depth : node.depth]]), use_cache=False)
        for row in node.rows:
            loaded.model.model(input_ids=torch.tensor([scorer._rows[row].tokens[node.depth :]]), use_cache=False)
        for child in node.children:
            run(child, node.depth)

    run(scorer._tree, 0)


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@pytest.mark.parametrize("shots", [0, 6])
@pytest.mark.parametrize("reference", MODELS)
def bench_objective(benchmark: object, reference: str, shots: int) -> None:
    loaded = load_model(reference)
    lm = TarotLM(loaded.model, tokenizer=loaded.tokenizer)
    samples = draw(load_task(TASK), 20, num_fewshot=shots, chat_template=chat_template(lm, True))
    sites = find_sites(loaded.model, "heads", 0.5)
    objective = Objective(loaded.model, samples, lm.encode, sites=sites)
    angles = (
        torch.randn(len(sites), sites[0].n_heads, sites[0].d_head // 2, generator=torch.Generator().manual_seed(0)) / 3
    )

    # In turn, so that whatever else the machine does meets each of them alike.
    times: dict[str, list[float]] = {"plain": [], "ours": [], "bare": []}
    with torch.no_grad():
        objective(angles)
        for _ in range(ROUNDS):
            times["ours"].append(seconds(lambda: objective(angles)))
            times["bare"].append(seconds(lambda: bare(loaded, objective)))
        logits: list[torch.Tensor] = []
        times["plain"].append(EVERY * seconds(lambda: logits.extend(plain_loop(loaded, objective, angles))))
        with merged(loaded.model, angles, sites):
            ours = torch.cat([found for _, found in sorted_logits(objective)])
    ours_seconds, bare_seconds, plain_seconds = (statistics.median(times[name]) for name in ("ours", "bare", "plain"))
    error = float((ours[::EVERY] - torch.stack(logits)).abs().max())
    benchmark.extra_info.update(
        model=reference,
        task=TASK,
        shots=shots,
        tokens=objective.scorer.tokens,
        plain_over_ours=round(plain_seconds / ours_seconds, 2),
        ours_over_bare=round(ours_seconds / bare_seconds, 3),
        logits_error=error,
        seconds=round(ours_seconds, 3),
    )
    benchmark.pedantic(objective, args=(angles,), rounds=1)
    assert error < 1e-4
    assert ours_seconds / bare_seconds < 1.2
    # The plain loop repeats the shots for every prompt; without shots there is less to save.
    assert plain_seconds / ours_seconds > (12 if shots else 3)


def sorted_logits(objective: Objective) -> list[tuple[int, torch.Tensor]]:
    """First predicted position of every request, in the requests' order."""
    found = []
    for requests, logits in objective.scorer._run(objective.scorer._tree, 0, None):
        begin = 0
        for request in requests:
            found.append((request, logits[begin : begin + 1]))
            begin += len(objective.scorer.requests[request].continuation)
    return sorted(found, key=lambda pair: pair[0])
