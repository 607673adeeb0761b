"""Rivals that train weights with the same labels: LoRA and OFT.

The rule, fixed before any of them was measured: full batches, no weight decay, a constant learning rate, and as many
steps as the search's budget pays for when a step counts for as much as one of a search that follows gradients. The
objective is the search's own, they end where it does, with samples that are fitted well enough, and the last step is
what is kept.
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
OFT_RATE = 0.025  # of tan(angle / 2): some 0.05 radians a step, as the search `adam` does


def n_steps(budget: int) -> int:
    """Steps of a gradient that cost as much as `budget` evaluations; at least one."""
    return max(1, budget // GRADIENT_COST)


def lora(objective: AnswerObjective, budget: int, seed: int) -> WeightEdit:
    """Low-rank updates of PEFT's usual projections (Hu et al., arXiv 2106.09685), rank 8, by AdamW.

    Raises:
        TarotError: a measure without a slope, here as in `oft`.
    """
    return _trained("lora", objective, LoraConfig(r=LORA_RANK, task_type="CAUSAL_LM"), LORA_RATE, budget, seed)


def oft(objective: AnswerObjective, budget: int, seed: int) -> WeightEdit:
    """PEFT's orthogonal finetuning (Qiu et al., arXiv 2306.07280) in blocks of two: exactly our rotations.

    PEFT's own way to the edit that the search `adam` finds, in other coordinates.
    """
    targets = [site.name for site in objective.sites]
    config = OFTConfig(r=0, oft_block_size=2, target_modules=targets, use_cayley_neumann=False, task_type="CAUSAL_LM")
    return _trained("oft", objective, config, OFT_RATE, budget, seed)


def _trained(
    method: str, objective: AnswerObjective, config: PeftConfig, rate: float, budget: int, seed: int
) -> WeightEdit:
    check_differentiable(objective)
    model = objective.model
    with Patch(model) as patch:
        # PEFT changes a model in many steps, any of which may be interrupted; all of it is undone at once.
        for step in _restoring(model):
            patch.step(model, _nothing, step)
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
    """The parameters that merging changes. PEFT merges in place, so it is given copies of them."""
    before = {parameter: parameter.data for parameter in model.parameters() if not parameter.requires_grad}
    for parameter, weight in before.items():
        parameter.data = weight.clone()
    merge()
    return {
        name: parameter.data
        for name, parameter in model.named_parameters()
        if not torch.equal(parameter.data, before[parameter])
    }


def _restoring(model: PreTrainedModel) -> list[Step]:
    """What gives the model its modules, weights and attributes of now again."""
    steps: list[Step] = []
    for module in model.modules():
        steps.append(partial(module._modules.update, dict(module._modules)))
        for parameter in module.parameters(recurse=False):
            steps.append(partial(setattr, parameter, "data", parameter.data))
            steps.append(partial(setattr, parameter, "requires_grad", parameter.requires_grad))
    if not hasattr(model, "peft_config"):
        steps.append(partial(vars(model).pop, "peft_config", None))
    return steps


def _nothing() -> None:
    """Apply nothing: PEFT makes the changes."""
