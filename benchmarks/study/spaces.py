"""`python -m benchmarks.study.spaces`: which space a search should have, and how far its faces are from the identity.

Gaussian processes (`bo`) in every space, and nearer and farther faces for the product's two pairs of search and space.
Samples of a seed that the study does not use, and unseen documents of the training split. Declared before it was
measured; like the study it can be stopped and started at any time. By a rule written after two of the three tasks, the
half of `bo`'s spaces whose best scores have the higher mean goes on to the third; `adam`'s end at a level, and all do.

`gradient:r` is not the product's: the span of the samples' own gradients at the identity, of which each goes uphill for
one sample where `head-gradient` goes uphill for their mean in one head.
"""

import argparse
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.study import grid
from benchmarks.study.unseen import SEED, Setting, better_half, measure, recorded, whole
from tarot.models.lm_eval_model import TarotLM
from tarot.models.loaded_model import LoadedModel
from tarot.objectives.answers import ANSWER_SCORES, AnswerObjective
from tarot.search import run_search
from tarot.search.config import TaRotConfig
from tarot.search.space import START_STEPS, Space

MODEL = "smollm2"
BOUND = TaRotConfig.bound  # the product's
TASKS = ("entailed_polarity", "navigate", "ag_news")
# `bo` in `head` and `head-gradient` at the product's bound is in the table of searches.
RUNS = (
    *(("bo", space, BOUND) for space in ("full", "layer", "random:32", "gradient:20", "gradient:5")),
    *(("bo", "head-gradient", bound) for bound in (BOUND / 2, 2 * BOUND)),
    *(("adam", "full", bound) for bound in (BOUND / 2, BOUND, 2 * BOUND)),
)
RESULTS = Path(__file__).parent / "spaces.jsonl"


def gradient_span(like: Space, gradients: Tensor, r: int) -> Space:
    """The `r` principal directions, not centred, of what each sample adds to the gradient (`sample layer head angle`).

    Orthonormal, positive uphill, and as long as those of `random:r`. Like `head-gradient` it starts with steps along
    the whole gradient, the longest at the cube's face.
    """
    rows = gradients[:, like.angle_mask].double()
    basis = torch.linalg.svd(rows, full_matrices=False).Vh[:r]
    uphill = basis @ rows.sum(0)
    basis, uphill = basis * uphill.sign()[:, None], uphill.abs()
    lift = (math.sqrt(basis.shape[1] / len(basis)) * basis).T
    steps = torch.tensor(START_STEPS, dtype=torch.float64)[:, None]
    return replace(
        like,
        name=f"gradient:{r}",
        d=len(basis),
        lift=lambda u: lift.to(u) @ u,
        starts=0.5 + steps * uphill / uphill.max() / 2,
    )


def setting_of(loaded: LoadedModel, task: str, seed: int, space: str, bound: float) -> Setting:
    """With the product's space of this name, or the span of gradients."""
    kind, _, r = space.partition(":")
    if kind != "gradient":
        return Setting.of(loaded, task, seed=seed, space=space, bound=bound)
    setting = Setting.of(loaded, task, seed=seed, bound=bound)
    lm = TarotLM(loaded.model, tokenizer=loaded.tokenizer)
    each = [
        weight * AnswerObjective(loaded.model, [sample], lm.encode, sites=setting.sites).gradient()
        for sample, weight in zip(setting.samples, setting.objective._weights, strict=True)
    ]
    return replace(setting, space=gradient_span(setting.space, torch.stack(each), int(r)))


def run(loaded: LoadedModel, task: str, seed: int, search: str, space: str, bound: float) -> dict[str, object]:
    """One search from beginning to end, a gradient counting for three evaluations as everywhere."""
    setting = setting_of(loaded, task, seed, space, bound)
    result = whole(
        run_search(
            lambda x: setting.objective(setting.angles(x)),
            setting.space.d,
            search=search,
            budget=grid.BUDGET,
            seed=seed,
            starts=setting.space.starts,
            value_and_grad=setting.value_and_grad,
            target_score=ANSWER_SCORES["log_probability"].target_score,
        )
    )
    angles = setting.angles(torch.tensor(result.best.x, dtype=torch.float64))
    turned = angles[setting.space.angle_mask].abs()
    return {
        "coordinates": setting.space.d,
        "documents": len(setting.unseen),
        "trials": len(result.trials),
        "best": round(result.best.score, 4),
        "unseen": setting.unseen.answered(angles, setting.sites),
        "root_mean_square": round(float(turned.square().mean().sqrt()), 4),
        "at_the_bound": round(float((turned > 0.999 * bound).float().mean()), 4),
    }


def settings(path: Path) -> Iterator[dict[str, Any]]:
    """What is to run, the last task's by what the file says of the ones before."""
    going = [(search, space, round(bound, 4)) for search, space, bound in RUNS]
    for task in TASKS:
        if task == TASKS[-1]:
            before = [line for line in recorded(path) if line["task"] in TASKS[:-1]]
            going = better_half(
                {
                    each: [line["best"] for line in before if (line["search"], line["space"], line["bound"]) == each]
                    for each in going
                    if each[0] == "bo"
                }
            ) + [each for each in going if each[0] != "bo"]
        for search, space, bound in going:
            yield {"model": MODEL, "task": task, "seed": SEED, "search": search, "space": space, "bound": bound}


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    measure(
        RESULTS,
        settings(RESULTS),
        run,
    )


if __name__ == "__main__":
    main()
