"""Training of baselines: one rule for all, fixed before any of them was measured.

Each maximizes the search's own objective with full batches, AdamW, a constant learning rate and no weight decay. It
takes as many steps as the search's budget allows: a step costs as much as one of a search that follows gradients. It
stops at the score at which the search stops, and keeps the last step.

Where the compared edit was tuned under a limit of divergence, training holds the same limit in the same way
(`tarot.search.kl_limit`): the same retained contexts, multiplier and shorter steps. It then keeps the best step within
the limit.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tarot.objectives.answers import AnswerObjective
from tarot.search.algorithms.base import GRADIENT_COST
from tarot.search.kl_limit import limited_direction, multiplier, step_scale
from tarot.search.retention import Retention


def n_steps(budget: int) -> int:
    """Return how many gradient steps cost as much as `budget` evaluations; at least one.

    Example:
        >>> n_steps(120)
        40
    """
    return max(1, budget // GRADIENT_COST)


def fit(
    parameters: Sequence[Tensor],
    objective: AnswerObjective,
    rate: float,
    budget: int,
    retention: Retention | None = None,
) -> None:
    """Train parameters of the objective's model in place.

    Args:
        parameters: what is trained; nothing else of the model should require a gradient.
        objective: what is maximized.
        rate: learning rate.
        budget: evaluations of the objective; a gradient counts for three.
        retention: what the trained model must not change; None for no limit.
    """
    if retention:
        rate *= step_scale(retention.max_kl)
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    if retention:
        _ascend_within(retention, objective, optimizer, n_steps(budget))
    else:
        _ascend(objective.score_model, optimizer, n_steps(budget), objective.target_score)


def _ascend(score: Callable[[], Tensor], optimizer: torch.optim.Optimizer, steps: int, target_score: float) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        with torch.enable_grad():
            if (reached := score()) >= target_score:
                return
            (-reached).backward()
        optimizer.step()


def _ascend_within(
    retention: Retention, objective: AnswerObjective, optimizer: torch.optim.Optimizer, steps: int
) -> None:
    """Train under the limit, and leave the parameters as they were at the best step within it, the first at least."""
    parameters: list[Tensor] = optimizer.param_groups[0]["params"]
    kls: list[float] = []
    reached: list[tuple[float, list[Tensor]]] = []
    for step in range(steps):
        optimizer.zero_grad()
        with torch.enable_grad():
            score = objective.score_model()
        reached.append((float(score.detach()), [parameter.detach().to("cpu", copy=True) for parameter in parameters]))
        fitted = reached[-1][0] >= objective.target_score
        if fitted and retention.model_kl() <= retention.max_kl:
            return
        if not fitted:  # beyond the target a higher score would only overfit
            score.backward()
        gain = _flat_gradient(parameters)
        optimizer.zero_grad()
        kls.append(retention.parts[step % len(retention.parts)].backward())
        direction = limited_direction(gain, _flat_gradient(parameters), multiplier(kls, retention.max_kl))
        for parameter, part in zip(parameters, direction.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = -part.view_as(parameter).to(parameter)
        optimizer.step()
    finite = [each for each in reached if math.isfinite(each[0])]
    for _, values in [*sorted(finite, key=lambda each: -each[0]), reached[0]]:  # the first step is the unedited model
        for parameter, value in zip(parameters, values, strict=True):
            parameter.data.copy_(value)
        if retention.model_kl(stop_above=retention.max_kl) <= retention.max_kl:
            return


def _flat_gradient(parameters: list[Tensor]) -> Tensor:
    """Return the gradient of all parameters, zero where one has none, on the device of the first."""
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    return torch.cat([gradient.flatten().to(parameters[0].device) for gradient in gradients])
