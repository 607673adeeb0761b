"""Architectures, angles and comparisons for the tests that edit a model."""

from collections.abc import Callable

import pytest
import torch
from tiny import ARCHITECTURES
from torch import nn
from transformers import PreTrainedModel

from tarot.edit.rotation import ROTARY, SCALE, Rotation
from tarot.edit.sites import Site, angle_mask
from tarot.errors import InvalidValueError

MIXTURES = ("gpt_oss", "minimax", "mixtral")
"""Architectures whose layers are mixtures of experts, which have no last projection."""
EVERY = pytest.mark.parametrize("architecture", ARCHITECTURES)
EVERY_SITE = pytest.mark.parametrize(
    "architecture, kind",
    [(name, "heads") for name in ARCHITECTURES] + [(name, "mlp") for name in ARCHITECTURES if name not in MIXTURES],
)


def random_angles(sites: tuple[Site, ...], rotation: Rotation = ROTARY, *, seed: int = 0) -> torch.Tensor:
    """Draw angles, `site x head x angle`: standard normal radians, or small log-factors for `Scale`."""
    shape = angle_mask(sites, rotation.n_angles).shape
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * (0.2 if rotation is SCALE else 1.0)


def logits(model: PreTrainedModel, ids: torch.Tensor, **inputs: torch.Tensor) -> torch.Tensor:
    return model(ids, **inputs).logits


def hooks(model: nn.Module, *, marks: bool = True) -> int:
    """Count the hooks of a model, with or without the marks of open patches, which change no activation."""
    all_hooks = [
        hook
        for module in model.modules()
        for hook in (*module._forward_pre_hooks.values(), *module._forward_hooks.values())
    ]
    return sum(marks or getattr(hook, "hook", hook) is not None for hook in all_hooks)


def snapshot(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.clone() for name, parameter in model.named_parameters()}


def same_weights(model: nn.Module, before: dict[str, torch.Tensor]) -> bool:
    """Compare the weights with a snapshot, bit for bit."""
    return all(
        torch.equal(parameter.view(torch.uint8), before[name].view(torch.uint8))
        for name, parameter in model.named_parameters()
    )


def unchanged(model: nn.Module, before: dict[str, torch.Tensor]) -> bool:
    """Return whether the model has no hooks and the weights of a snapshot."""
    return hooks(model) == 0 and same_weights(model, before)


def near(a: torch.Tensor, b: torch.Tensor, tolerance: float = 3e-5) -> bool:
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance)


def dense_hook(site: Site, angles: torch.Tensor, rotation: Rotation) -> Callable[..., object]:
    """Edit by a slow oracle, one block-diagonal matrix in float64 for all heads; return what removes it."""
    n = rotation.n_angles(site.d_head)
    blocks = [rotation.matrix(head[:n].double(), site.d_head) for head in angles[: site.n_heads]]
    matrix = torch.block_diag(*blocks)

    def edit(x: torch.Tensor) -> torch.Tensor:
        return (x.double() @ matrix).to(x.dtype)

    if site.side == "input":
        return site.module.register_forward_pre_hook(lambda _, args: (edit(args[0]),)).remove
    return site.module.register_forward_hook(lambda _, args, out: edit(out)).remove


def refusal(edit: Callable[..., object], *args: object) -> str:
    """Return the message of the InvalidValueError that the edit raises."""
    with pytest.raises(InvalidValueError) as error:
        edit(*args)
    return str(error.value)
