"""Merging: the weights of a hooked model, undone up to rounding, refused where a weight cannot be edited alone."""

from pathlib import Path

import pytest
import torch
from accelerate import cpu_offload, disk_offload
from edits import (
    EVERY_SITE,
    logits,
    near,
    random_angles,
    refusal,
    same_weights,
    snapshot,
    unchanged,
)
from rotations import apply
from tiny import LAYERS, tiny_model, tokens
from torch import nn
from torch.nn.utils import parametrizations

from tarot.edit.hooks import apply_rotation
from tarot.edit.merge import merge_rotation, merge_temporarily
from tarot.edit.rotation import ROTARY
from tarot.edit.sites import angle_mask, find_sites

pytestmark = pytest.mark.usefixtures("no_gradients")


@EVERY_SITE
def test_merging_in_place(architecture, kind):
    model, ids = tiny_model(architecture), tokens(2, 9)
    sites = find_sites(model, kind, 1.0)
    angles, before = random_angles(sites), snapshot(model)
    with apply_rotation(model, angles, sites):
        hooked = logits(model, ids)
    merge_rotation(model, angles, sites)
    assert near(logits(model, ids), hooked)
    edited = {f"{site.name}.weight" for site in sites}
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    biases = {f"{site.name}.bias" for site in sites if kind == "mlp" and site.module.bias is not None}
    assert changed == edited | biases


def test_the_bias_of_an_mlp_is_rotated_too():
    model = tiny_model("gpt2")
    site = find_sites(model, "mlp", [0])[0]
    angles, bias = random_angles((site,)), site.module.bias.clone()
    merge_rotation(model, angles, [site])
    assert near(site.module.bias, apply(ROTARY, bias, angles[0, 0]))


def test_the_bias_of_an_attention_projection_is_kept():
    model = tiny_model("gpt2")
    site = find_sites(model, "heads", [0])[0]
    bias = site.module.bias.clone()
    merge_rotation(model, random_angles((site,)), [site])
    assert torch.equal(site.module.bias, bias)


def test_the_original_weights_are_restored_in_place():
    model = tiny_model("llama")
    weight = model.model.layers[0].self_attn.o_proj.weight
    address = weight.data_ptr()
    with merge_temporarily(model, torch.ones(1, 6, 4)):
        assert weight.data_ptr() != address
        assert model.model.layers[0].self_attn.o_proj.weight is weight
    assert weight.data_ptr() == address


def test_merged_weights_need_no_gradient():
    model = tiny_model("gpt2")
    with torch.enable_grad():
        merge_rotation(model, torch.ones(1, 5, 2, requires_grad=True))
        with merge_temporarily(model, torch.ones(1, 5, 2, requires_grad=True)):
            assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("learns", [True, False])
@pytest.mark.parametrize("kind", ["heads", "mlp"])
def test_merging_zero_angles_keeps_the_sign_of_zero(kind, learns):
    model = tiny_model("llama")
    sites = find_sites(model, kind, [0])
    sites[0].module.weight[:2, :2] = -0.0
    before, angles = snapshot(model), torch.zeros_like(random_angles(sites), requires_grad=learns)
    with torch.enable_grad():
        with merge_temporarily(model, angles, sites):
            assert same_weights(model, before)
        merge_rotation(model, angles, sites)
    assert unchanged(model, before)


MERGES = pytest.mark.parametrize(
    "edit",
    [lambda *args: merge_temporarily(*args).__enter__(), merge_rotation],
    ids=["merged", "merge"],
)


@MERGES
@pytest.mark.parametrize("tie", [lambda weight: weight, lambda weight: nn.Parameter(weight.data, requires_grad=False)])
def test_a_tied_weight_is_refused(edit, tie):
    """Two parameters may also be one piece of memory."""
    model = tiny_model("llama")
    model.model.layers[1].self_attn.o_proj.weight = tie(model.model.layers[0].self_attn.o_proj.weight)
    before = snapshot(model)
    message = refusal(edit, model, torch.ones(LAYERS, 6, 4))
    assert "model.layers.0.self_attn.o_proj.weight is tied" in message and "apply_rotation" in message
    assert unchanged(model, before)


@MERGES
@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_a_quantised_weight_is_refused(edit, dtype):
    model = tiny_model("llama")
    projection = model.model.layers[2].self_attn.o_proj
    projection.weight = nn.Parameter(projection.weight.to(dtype), requires_grad=False)
    before = snapshot(model)
    message = refusal(edit, model, torch.ones(LAYERS, 6, 4))
    assert f"model.layers.2.self_attn.o_proj.weight, got {dtype}" in message
    assert unchanged(model, before)


class Wrapped(nn.Module):
    """Projection as an adapter library replaces it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base_layer, self.extra = base, nn.Linear(base.in_features, base.out_features, bias=False)
        self.in_features, self.out_features = base.in_features, base.out_features

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base_layer(x) + self.extra(x)


@MERGES
def test_a_wrapped_projection_is_hooked_but_not_merged(edit):
    model, ids = tiny_model("llama"), tokens(2, 9)
    model.model.layers[0].self_attn.o_proj = Wrapped(model.model.layers[0].self_attn.o_proj)
    before, bare = snapshot(model), logits(model, ids)
    message = refusal(edit, model, torch.ones(1, 6, 4))
    assert f"model.layers.0.self_attn.o_proj, got {__name__}.Wrapped" in message
    assert unchanged(model, before)
    with apply_rotation(model, torch.ones(1, 6, 4)):
        assert not near(logits(model, ids), bare, 1e-2)


@MERGES
def test_a_weight_that_is_computed_is_refused(edit):
    model = tiny_model("llama")
    parametrizations.weight_norm(model.model.layers[0].self_attn.o_proj)
    before = snapshot(model)
    assert "ParametrizedLinear" in refusal(edit, model, torch.ones(1, 6, 4))
    assert unchanged(model, before)


@pytest.mark.parametrize("place", ["memory", "disk"])
@torch.no_grad()
def test_offloaded_weights_are_edited(place: str, tmp_path: Path) -> None:
    """Offloaded and ordinary models give the same logits: hooked, merged temporarily and merged."""
    here, away = tiny_model("llama"), tiny_model("llama")
    cpu = torch.device("cpu")
    cpu_offload(away, cpu) if place == "memory" else disk_offload(away, tmp_path, cpu)
    ours, theirs = find_sites(here, "heads", 1.0), find_sites(away, "heads", 1.0)
    assert all(site.module.weight.is_meta for site in theirs)
    angles = torch.rand(angle_mask(ours, ROTARY.n_angles).shape, generator=torch.Generator().manual_seed(0))
    ids = tokens(2, 5)
    base = away(ids).logits
    torch.testing.assert_close(base, here(ids).logits, rtol=0, atol=0)
    for edit in (apply_rotation, merge_temporarily):
        with edit(here, angles, ours), edit(away, angles, theirs):
            assert not torch.equal(away(ids).logits, base)
            torch.testing.assert_close(away(ids).logits, here(ids).logits, rtol=0, atol=0)
        torch.testing.assert_close(away(ids).logits, base, rtol=0, atol=0)
    merge_rotation(here, angles, ours)
    merge_rotation(away, angles, theirs)
    torch.testing.assert_close(away(ids).logits, here(ids).logits, rtol=0, atol=0)
