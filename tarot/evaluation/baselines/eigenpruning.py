"""Eigenpruning, the paper's third baseline: drop singular values of attention matrices that lower the score.

    A = U S V^T,    estimated gain of dropping s_i:  -s_i u_i^T (d score / d A) v_i

Source: Vergara-Browne, Soto and Aizawa, Eigenpruning: an Interpretability-Inspired PEFT Method, arXiv 2404.03147.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tarot.edit.patch import Patch
from tarot.errors import TarotError
from tarot.evaluation.baselines.weights import WeightEdit, check_differentiable
from tarot.objectives.answers import AnswerObjective
from tarot.search.algorithms.base import GRADIENT_COST

INDEX_BYTES = 4
"""A dropped singular value is stored as its index."""


class _FactoredWeight(NamedTuple):
    """A weight matrix: its name, U, S, V^T, and the estimated gain of dropping each singular value."""

    name: str
    u: Float[Tensor, "out rank"]
    s: Float[Tensor, "rank"]
    vh: Float[Tensor, "rank in"]
    gains: Float[Tensor, "rank"]


def eigenpruning(objective: AnswerObjective, budget: int, seed: int) -> WeightEdit:
    """Drop the singular values with the best estimated gains, among those of all attention matrices.

    The objective chooses their number among 0, 1, 2, 4, ..., up to the budget or the number of positive estimates.

    Args:
        objective: what is maximized; its model is unchanged afterwards.
        budget: evaluations of the objective; the gradient counts for three.
        seed: unused, since nothing is random; the other baselines have it.

    Raises:
        TarotError: the objective has no gradient, or attention has no nn.Linear (GPT-2 has another class).

    Example:
        >>> edit = eigenpruning(objective, budget=120, seed=0)
        >>> with edit.apply(objective.model):
        ...     score = objective.score_model()
    """
    check_differentiable(objective)
    factored = _factorize(objective)
    estimates = ((float(gain), k, i) for k, each in enumerate(factored) for i, gain in enumerate(each.gains))
    ranked = sorted((estimate for estimate in estimates if estimate[0] > 0), reverse=True)
    best_score, best = float("-inf"), WeightEdit({}, 0, {"method": "eigenpruning"})
    for n in _counts(len(ranked), budget - GRADIENT_COST):
        candidate = _pruned(factored, ranked[:n])
        with torch.no_grad(), candidate.apply(objective.model):
            score = float(objective.score_model())
        if score > best_score:
            best_score, best = score, candidate
    return best


def _counts(most: int, evaluations: int) -> Iterator[int]:
    """Return 0, 1, 2, 4, ... and `most`, as many of them as can be evaluated."""
    counts = [0, *(2**i for i in range(most.bit_length()) if 2**i < most), *([most] if most else [])]
    return iter(counts[: max(1, evaluations)])


def _factorize(objective: AnswerObjective) -> list[_FactoredWeight]:
    weights = dict(_attention_weights(objective))
    if not weights:
        raise TarotError("attention of nn.Linear layers", f"none in {type(objective.model).__name__}")
    with Patch(objective.model) as patch, torch.enable_grad():
        for weight in weights.values():
            patch.replace(objective.model, weight, "requires_grad", True)
        patch.apply()
        gradients = torch.autograd.grad(objective.score_model(), list(weights.values()))
    factored = []
    for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
        if not weight.isfinite().all():  # it has no singular values
            continue
        u, s, vh = torch.linalg.svd(weight.detach().float(), full_matrices=False)
        factored.append(_FactoredWeight(name, u, s, vh, -s * ((u.T @ gradient.float()) * vh).sum(1)))
    return factored


def _attention_weights(objective: AnswerObjective) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights of the linear layers beside each edited output projection, itself included."""
    modules = dict(objective.model.named_modules())
    for site in objective.sites:
        owner = site.name.rpartition(".")[0]
        for name, module in modules[owner].named_modules(prefix=owner):
            if isinstance(module, nn.Linear):
                yield f"{name}.weight", module.weight


def _pruned(factored: list[_FactoredWeight], dropped: list[tuple[float, int, int]]) -> WeightEdit:
    places: dict[int, list[int]] = {}
    for _, which, i in dropped:
        places.setdefault(which, []).append(i)
    weights = {}
    for which, indices in places.items():
        each = factored[which]
        kept = each.s.clone()
        kept[indices] = 0
        weights[each.name] = (each.u * kept) @ each.vh
    return WeightEdit(weights, INDEX_BYTES * len(dropped), {"method": "eigenpruning"})


BASELINES = {"eigenpruning": eigenpruning}
