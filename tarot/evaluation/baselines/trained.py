"""Baselines that train weights with the same labels: LoRA and OFT.

The rule was fixed before any of them was measured. Both maximize the search's own objective with full batches, a
constant learning rate and no weight decay. They take as many steps as the search's budget allows: a step costs as much
as one of a search that follows gradients. They stop at the score at which the search stops, and keep the last step.
"""

from collections.abc import Callable
from functools import partial

import torch
from peft import LoraConfig, OFTConfig, PeftConfig, get_peft_model
from torch import Tensor
from transformers import PreTrainedModel

from tarot.edit.patch import Patch, Step
from tarot.evaluation.baselines.weights import WeightEdit, check_differentiable
from tarot.objectives.answers import AnswerObjective
from tarot.search.registry import GRADIENT_COST

LORA_RANK, LORA_RATE = 8, 1e-3
OFT_RATE = 0.025
"""In tan(angle / 2): about 0.05 radians a step, as in the search `adam`."""


def n_steps(budget: int) -> int:
    """Return how many gradient steps cost as much as `budget` evaluations; at least one.

    Example:
        >>> n_steps(120)
        40
    """
    return max(1, budget // GRADIENT_COST)


def lora(objective: AnswerObjective, budget: int, seed: int) -> WeightEdit:
    """Train LoRA of rank 8 on PEFT's default projections with AdamW (Hu et al., arXiv 2106.09685).

    Args:
        objective: what is maximized; its model is unchanged afterwards.
        budget: evaluations of the objective; a gradient counts for three.
        seed: seed of the initial weights.

    Raises:
        TarotError: the objective has no gradient.

    Example:
        >>> edit = lora(objective, budget=120, seed=0)
        >>> with edit.apply(objective.model):
        ...     score = objective.score_model()
    """
    return _train("lora", objective, LoraConfig(r=LORA_RANK, task_type="CAUSAL_LM"), LORA_RATE, budget, seed)


def oft(objective: AnswerObjective, budget: int, seed: int) -> WeightEdit:
    """Train PEFT's orthogonal finetuning in blocks of two with AdamW (Qiu et al., arXiv 2306.07280).

    The edits are exactly the rotations that the search `adam` finds, in other coordinates. Arguments and errors as for
    `lora`.

    Example:
        >>> edit = oft(objective, budget=120, seed=0)
        >>> with edit.apply(objective.model):
        ...     score = objective.score_model()
    """
    targets = [site.name for site in objective.sites]
    config = OFTConfig(r=0, oft_block_size=2, target_modules=targets, use_cayley_neumann=False, task_type="CAUSAL_LM")
    return _train("oft", objective, config, OFT_RATE, budget, seed)


def _train(
    method: str, objective: AnswerObjective, config: PeftConfig, rate: float, budget: int, seed: int
) -> WeightEdit:
    check_differentiable(objective)
    model = objective.model
    with Patch(model) as patch:
        # PEFT changes a model in many steps, any of which may be interrupted. The patch undoes them all at once.
        for step in _restoring_steps(model):
            patch.step(model, _do_nothing, step)
        patch.apply()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            wrapped = get_peft_model(model, config)
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        n_bytes = sum(parameter.numel() * parameter.element_size() for parameter in trainable)
        optimizer = torch.optim.AdamW(trainable, lr=rate, weight_decay=0.0)
        _descend(objective.score_model, optimizer, n_steps(budget), objective.target_score)
        changed = _merged(wrapped.merge_and_unload, model)  # type: ignore[arg-type]  # PEFT hides its methods
    return WeightEdit(changed, n_bytes, {"method": method})


def _descend(score: Callable[[], Tensor], optimizer: torch.optim.Optimizer, steps: int, target_score: float) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        with torch.enable_grad():
            if (reached := score()) >= target_score:
                return
            (-reached).backward()
        optimizer.step()


def _merged(merge: Callable[[], PreTrainedModel], model: PreTrainedModel) -> dict[str, Tensor]:
    """Return the parameters that merging changes. PEFT merges in place, so give it copies."""
    before = {parameter: parameter.data for parameter in model.parameters() if not parameter.requires_grad}
    for parameter, weight in before.items():
        parameter.data = weight.clone()
    merge()
    return {
        name: parameter.data
        for name, parameter in model.named_parameters()
        if not torch.equal(parameter.data, before[parameter])
    }


def _restoring_steps(model: PreTrainedModel) -> list[Step]:
    """Return the steps that restore the model's present modules, weights and attributes."""
    steps: list[Step] = []
    for module in model.modules():
        steps.append(partial(module._modules.update, dict(module._modules)))
        for parameter in module.parameters(recurse=False):
            steps.append(partial(setattr, parameter, "data", parameter.data))
            steps.append(partial(setattr, parameter, "requires_grad", parameter.requires_grad))
    if not hasattr(model, "peft_config"):
        steps.append(partial(vars(model).pop, "peft_config", None))
    return steps


def _do_nothing() -> None:
    """Do nothing: PEFT makes the changes."""
