"""Time one step of the default search as labels, shots and edited layers grow, and what the limit of divergence adds.

A step is a score with its gradient. Each group has 20 labels, no shots and all layers but for what it varies.
"""

import os
from typing import Any

import pytest
import torch
from alternatives import Alternatives

from tarot.models.loaded_model import LoadedModel
from tarot.objectives.answers import AnswerObjective
from tarot.search.config import TaRotConfig
from tarot.search.problem import Problem
from tarot.search.retention import Retention

TASK = "tarot_ag_news" if os.environ.get("TAROT_DATA") else "synth_implicatives"
ROUNDS = 2
USUAL = {"labels": 20, "shots": 0, "layers": 1.0}
VARIED = {"labels": (10, 20, 40, 80, 160), "shots": (0, 3, 6, 12, 20), "layers": (1.0, 0.5, 0.25)}
CASES = [(name, value) for name, values in VARIED.items() for value in values]


def make_problem(loaded: LoadedModel, *, labels: int, shots: int, layers: float) -> Problem:
    """Return the problem of a search with these settings under the default limit."""
    return Problem.from_config(
        loaded, TaRotConfig(TASK, num_samples=labels, num_fewshot=shots, layers=-layers if layers < 1 else layers)
    )


def no_angles(objective: Any) -> torch.Tensor:
    """Return the angles of the identity."""
    site = objective.sites[0]
    return torch.zeros(len(objective.sites), site.n_heads, site.d_head // 2)


@pytest.mark.parametrize(("name", "value"), CASES, ids=[f"{value} {name}" for name, value in CASES])
def bench_scaling(
    benchmark: Any, tarot_model: LoadedModel, alternatives: Alternatives, name: str, value: float
) -> None:
    """Time a step with one setting changed."""
    objective = make_problem(tarot_model, **{**USUAL, name: value}).objective
    assert isinstance(objective, AnswerObjective)
    benchmark.group = f"a step by {name} {tarot_model.reference}"
    benchmark.pedantic(objective.value_and_grad, args=(no_angles(objective),), rounds=ROUNDS, warmup_rounds=1)
    alternatives.add(benchmark, str(value))
    benchmark.extra_info.update(
        model=tarot_model.reference, task=TASK, varied=name, value=value, tokens=objective.scorer.tokens
    )
    ratio = alternatives.ratio(benchmark.group, str(value), str(USUAL[name]))
    if ratio is not None:
        benchmark.extra_info["over_usual"] = round(ratio, 3)


@pytest.mark.parametrize("what", ["samples", "retained"])
def bench_limit(benchmark: Any, tarot_model: LoadedModel, alternatives: Alternatives, what: str) -> None:
    """Time the two halves of a step under the default limit: the samples, and a part of the retained contexts."""
    problem = make_problem(tarot_model, **USUAL)
    objective, retention = problem.objective, Retention.from_problem(tarot_model, problem)
    work = {"samples": objective.value_and_grad, "retained": lambda angles: retention.value_and_grad(angles, 0)}
    benchmark.group = f"a step under the limit {tarot_model.reference}"
    benchmark.pedantic(work[what], args=(no_angles(objective),), rounds=ROUNDS, warmup_rounds=1)
    alternatives.add(benchmark, what)
    benchmark.extra_info.update(model=tarot_model.reference, task=TASK)
    ratio = alternatives.ratio(benchmark.group, "retained", "samples")
    if ratio is not None:
        benchmark.extra_info["retained_over_samples"] = round(ratio, 3)
