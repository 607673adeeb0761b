"""Baselines that train weights with the same labels, by PEFT's own methods.

Settings are PEFT's defaults with a rank of 8 for LoRA and DoRA. The rate is .001 for these two, and ten times that for
IA3, RoAd and VeRA, which train few numbers that each scale many weights. `tarot.evaluation.baselines.training` has the
rest of the rule, which was fixed before any of them was measured.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from peft import IA3Config, LoraConfig, OFTConfig, PeftConfig, PeftModel, RoadConfig, VeraConfig, get_peft_model
from torch import Tensor
from transformers import PreTrainedModel

from tarot.edit.patch import Patch, Step
from tarot.errors import TarotError
from tarot.evaluation.baselines.training import fit
from tarot.evaluation.baselines.weights import WeightEdit, check_differentiable
from tarot.objectives.answers import AnswerObjective
from tarot.search.retention import Retention

RANK = 8
RATE, VECTOR_RATE = 1e-3, 1e-2
OFT_RATE = 0.025
"""In tan(angle / 2): about 0.05 radians a step, as in the search `adam`."""
ROAD_GROUP = 2
"""Numbers that RoAd pairs with each other; PEFT's default of 64 divides few small models."""


@dataclass(frozen=True)
class PeftMethod:
    """A method of PEFT.

    Attributes:
        make_config: returns PEFT's configuration for the names of the edited projections.
        rate: learning rate.
    """

    make_config: Callable[[list[str]], PeftConfig]
    rate: float


def _oft(targets: list[str]) -> PeftConfig:
    # The edits are exactly the rotations that the search `adam` finds, in other coordinates.
    return OFTConfig(r=0, oft_block_size=2, target_modules=targets, use_cayley_neumann=False, task_type="CAUSAL_LM")


METHODS: Mapping[str, PeftMethod] = MappingProxyType(
    {
        # Hu et al., arXiv 2106.09685.
        "lora": PeftMethod(lambda targets: LoraConfig(r=RANK, task_type="CAUSAL_LM"), RATE),
        # Liu et al., arXiv 2402.09353.
        "dora": PeftMethod(lambda targets: LoraConfig(r=RANK, use_dora=True, task_type="CAUSAL_LM"), RATE),
        # Liu et al., arXiv 2205.05638.
        "ia3": PeftMethod(lambda targets: IA3Config(task_type="CAUSAL_LM"), VECTOR_RATE),
        # Qiu et al., arXiv 2306.07280.
        "oft": PeftMethod(_oft, OFT_RATE),
        # Liao and Monz, arXiv 2409.00119.
        "road": PeftMethod(lambda targets: RoadConfig(group_size=ROAD_GROUP, task_type="CAUSAL_LM"), VECTOR_RATE),
        # Kopiczko et al., arXiv 2310.11454.
        "vera": PeftMethod(lambda targets: VeraConfig(task_type="CAUSAL_LM"), VECTOR_RATE),
    }
)


def train(
    method: str, objective: AnswerObjective, budget: int, seed: int, retention: Retention | None = None
) -> WeightEdit:
    """Train a method of PEFT, and merge what it trained.

    Args:
        method: a name in `METHODS`.
        objective: what is maximized; its model is unchanged afterwards.
        budget: evaluations of the objective; a gradient counts for three.
        seed: seed of the initial weights.
        retention: what the trained model must not change; None for no limit.

    Raises:
        TarotError: the objective has no gradient, or PEFT has no such method for this model.

    Example:
        >>> edit = train("lora", objective, budget=30, seed=0)
        >>> with edit.apply(objective.model):
        ...     score = objective.score_model()
    """
    check_differentiable(objective)
    with peft_layers(method, objective.model, [site.name for site in objective.sites], seed) as (wrapped, parameters):
        fit(parameters, objective, METHODS[method].rate, budget, retention)
        return merge_layers(wrapped, objective.model, parameters, {"method": method})


@contextmanager
def peft_layers(
    method: str, model: PreTrainedModel, projections: list[str], seed: int
) -> Iterator[tuple[PeftModel, list[Tensor]]]:
    """Give a model a method's layers for the body, and take all of them away after it.

    Args:
        method: a name in `METHODS`.
        model: a causal language model.
        projections: names of the edited projections, for methods that train these only.
        seed: seed of the initial weights.

    Yields:
        The model as PEFT wraps it, and the parameters to train.

    Raises:
        TarotError: PEFT has no such method for this model.
    """
    config = METHODS[method].make_config(projections)
    with Patch(model) as patch:
        # PEFT changes a model in many steps, any of which may be interrupted. The patch undoes them all at once.
        for step in _restoring_steps(model):
            patch.step(model, _do_nothing, step)
        patch.apply()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            try:
                wrapped: Any = get_peft_model(model, config)
            except (ValueError, TypeError) as error:
                raise TarotError(f"PEFT cannot train {type(model).__name__} with {method}: {error}") from error
        yield wrapped, [parameter for parameter in model.parameters() if parameter.requires_grad]


def merge_layers(
    wrapped: Any, model: PreTrainedModel, trained: Sequence[Tensor], provenance: Mapping[str, object]
) -> WeightEdit:
    """Return what merging PEFT's layers changes of a model. PEFT merges in place, so give it copies."""
    n_bytes = sum(parameter.numel() * parameter.element_size() for parameter in trained)
    before = {parameter: parameter.data for parameter in model.parameters() if not parameter.requires_grad}
    for parameter, weight in before.items():
        parameter.data = weight.clone()
    wrapped.merge_and_unload()
    changed = {
        name: parameter.data
        for name, parameter in model.named_parameters()
        if not torch.equal(parameter.data, before[parameter])
    }
    return WeightEdit(changed, n_bytes, provenance)


BASELINES: Mapping[str, Callable[..., WeightEdit]] = MappingProxyType(
    {method: partial(train, method) for method in METHODS}
)


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
