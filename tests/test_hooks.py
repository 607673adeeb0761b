"""Hooked edits agree with a dense matrix and with merged weights, on every architecture and rotation."""

from copy import deepcopy
from inspect import signature

import pytest
import torch
from edits import (
    EVERY,
    EVERY_SITE,
    dense_hook,
    hooks,
    logits,
    near,
    random_angles,
    snapshot,
    unchanged,
)
from hypothesis import given, settings
from strategies import rotations, tensors
from tiny import tiny_model, tokens
from transformers import PreTrainedModel
from transformers.generation import GenerateDecoderOnlyOutput

from tarot.edit.hooks import apply_rotation
from tarot.edit.merge import merge_rotation, merge_temporarily
from tarot.edit.rotation import ROTARY, ROTATIONS
from tarot.edit.sites import angle_mask, find_sites

pytestmark = pytest.mark.usefixtures("no_gradients")


@EVERY_SITE
def test_hooks_do_what_a_dense_matrix_does(architecture, kind):
    model, ids = tiny_model(architecture), tokens(2, 9)
    sites = find_sites(model, kind, 1.0)
    angles, bare = random_angles(sites), logits(model, ids)
    with apply_rotation(model, angles, sites):
        hooked = logits(model, ids)
    for site, row in zip(sites, angles, strict=True):
        dense_hook(site, row, ROTARY)
    assert near(hooked, logits(model, ids))
    assert (hooked - bare).abs().max() > 0.01


@EVERY_SITE
def test_merged_and_hooked_logits_agree_and_leave_no_trace(architecture, kind):
    model, ids = tiny_model(architecture), tokens(2, 9)
    sites = find_sites(model, kind, 1.0)
    angles, before, bare = random_angles(sites), snapshot(model), logits(model, ids)
    with apply_rotation(model, angles, sites):
        hooked = logits(model, ids)
    assert unchanged(model, before)
    with merge_temporarily(model, angles, sites):
        assert hooks(model, marks=False) == 0
        assert near(logits(model, ids), hooked)
    assert unchanged(model, before)
    assert torch.equal(logits(model, ids), bare)


@EVERY_SITE
def test_zero_angles_are_the_identity_bit_for_bit(architecture, kind):
    model, ids = tiny_model(architecture), tokens(2, 9)
    sites = find_sites(model, kind, 1.0)
    nothing, before, bare = torch.zeros_like(random_angles(sites)), snapshot(model), logits(model, ids)
    for angles in (nothing, nothing.clone().requires_grad_()):
        with apply_rotation(model, angles, sites):
            assert torch.equal(logits(model, ids), bare)
    merge_rotation(model, nothing, sites)
    assert unchanged(model, before)


@EVERY_SITE
def test_frozen_layers_are_bit_identical(architecture, kind):
    model, ids = tiny_model(architecture), tokens(2, 9)
    layer = find_sites(model, kind, 1.0)[-1].layer
    sites = find_sites(model, kind, [layer])
    bare = model(ids, output_hidden_states=True).hidden_states
    with apply_rotation(model, random_angles(sites), sites):
        edited = model(ids, output_hidden_states=True).hidden_states
    assert all(torch.equal(a, b) for a, b in zip(bare[: layer + 1], edited[: layer + 1], strict=True))
    assert (bare[layer + 1] - edited[layer + 1]).abs().max() > 1e-3


@EVERY
def test_generation_is_the_same_with_and_without_a_cache(architecture):
    model, ids = tiny_model(architecture), tokens(2, 6)
    sites = find_sites(model, "heads", 1.0)
    angles, bare = random_angles(sites), generated(model, ids, use_cache=True)
    with apply_rotation(model, angles, sites):
        cached, slow = generated(model, ids, use_cache=True), generated(model, ids, use_cache=False)
    assert torch.equal(cached.sequences, slow.sequences)
    assert near(torch.stack(cached.logits), torch.stack(slow.logits))
    with merge_temporarily(model, angles, sites):
        assert torch.equal(generated(model, ids, use_cache=True).sequences, cached.sequences)
    assert not near(torch.stack(cached.logits), torch.stack(bare.logits), 1e-2)


def generated(model: PreTrainedModel, ids: torch.Tensor, *, use_cache: bool) -> GenerateDecoderOnlyOutput:
    return model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=8,
        min_new_tokens=8,
        do_sample=False,
        pad_token_id=0,
        use_cache=use_cache,
        return_dict_in_generate=True,
        output_logits=True,
    )


@EVERY
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_does_not_change_the_edited_tokens(architecture, side):
    model = tiny_model(architecture)
    sites = find_sites(model, "heads", 1.0)
    short, long = tokens(1, 5, seed=1), tokens(1, 8, seed=2)
    padding = torch.zeros(1, 3, dtype=torch.long)
    kept = slice(3, 8) if side == "left" else slice(0, 5)
    padded = torch.cat([padding, short] if side == "left" else [short, padding], dim=1)
    mask = torch.ones(2, 8, dtype=torch.long)
    mask[0] = 0
    mask[0, kept] = 1
    positions = dict(position_ids=(mask.cumsum(-1) - 1).clamp(min=0)) if takes_positions(model) else {}
    with apply_rotation(model, random_angles(sites), sites):
        alone = logits(model, short)
        together = logits(model, torch.cat([padded, long]), attention_mask=mask, **positions)
        assert near(together[:1, kept], alone)
        assert near(together[1:], logits(model, long))


def takes_positions(model: PreTrainedModel) -> bool:
    return "position_ids" in signature(model.forward).parameters


@pytest.mark.parametrize("rotation", ROTATIONS.values(), ids=ROTATIONS)
@pytest.mark.parametrize("kind", ["heads", "mlp"])
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3_text", "gemma4_text"])
def test_every_rotation_agrees_hooked_merged_and_dense(architecture, kind, rotation):
    model, ids = tiny_model(architecture), tokens(2, 9)
    sites = find_sites(model, kind, 1.0)
    angles = random_angles(sites, rotation)
    with apply_rotation(model, angles, sites, rotation):
        hooked = logits(model, ids)
    with merge_temporarily(model, angles, sites, rotation):
        assert near(logits(model, ids), hooked)
    merged = deepcopy(model)
    merge_rotation(merged, angles, find_sites(merged, kind, 1.0), rotation)
    assert near(logits(merged, ids), hooked)
    for site, row in zip(sites, angles, strict=True):
        dense_hook(site, row, rotation)
    assert near(logits(model, ids), hooked)


LLAMA, IDS = tiny_model("llama"), tokens(2, 9)


@settings(max_examples=30)
@given(rotations.flatmap(lambda r: tensors((2, 6, r.n_angles(8)), 3.0).map(lambda angles: (r, angles))))
def test_hooked_and_merged_logits_agree_for_any_angles(edit):
    rotation, angles = edit
    with apply_rotation(LLAMA, angles, rotation=rotation):
        hooked = logits(LLAMA, IDS)
    with merge_temporarily(LLAMA, angles, rotation=rotation):
        assert torch.allclose(logits(LLAMA, IDS), hooked, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_edits_keep_the_dtype(architecture, dtype):
    model, ids = tiny_model(architecture, dtype=dtype), tokens(2, 9)
    sites = find_sites(model, "heads", 1.0)
    angles, bare = random_angles(sites), logits(model, ids)
    seen = []
    sites[0].module.register_forward_hook(lambda _, args, out: seen.append((args[0].dtype, out.dtype)))
    with apply_rotation(model, angles, sites):
        hooked = logits(model, ids)
    merge_rotation(model, angles, sites)
    assert all(parameter.dtype == dtype for parameter in model.parameters())
    assert seen == [(dtype, dtype)] and hooked.dtype == dtype
    # The two differ by two roundings to the dtype; the edit itself is far larger.
    error, effect = (logits(model, ids) - hooked).abs().max(), (hooked - bare).abs().max()
    assert error <= 8 * torch.finfo(dtype).eps * hooked.abs().max() and error < effect / 20


def test_float32_angles_edit_a_float64_model_in_float64():
    model, ids = tiny_model("gpt2", dtype=torch.float64), tokens(2, 9)
    sites = find_sites(model, "heads", 1.0)
    angles = random_angles(sites)
    with apply_rotation(model, angles, sites):
        hooked = logits(model, ids)
    with merge_temporarily(model, angles, sites):
        assert near(logits(model, ids), hooked, 1e-12)
    for site, row in zip(sites, angles, strict=True):
        dense_hook(site, row, ROTARY)
    assert near(logits(model, ids), hooked, 1e-12)


def test_the_default_sites_are_the_heads_of_the_first_layers():
    model, ids = tiny_model("llama"), tokens(2, 9)
    angles = random_angles(find_sites(model, "heads", [0, 1]))
    with apply_rotation(model, angles):
        implied = logits(model, ids)
    with apply_rotation(model, angles, find_sites(model, "heads", [0, 1])):
        assert torch.equal(logits(model, ids), implied)


def test_heads_and_mlps_are_edited_together():
    model, ids = tiny_model("gpt2"), tokens(2, 9)
    heads, mlps = find_sites(model, "heads", 1.0), find_sites(model, "mlp", 1.0)
    with apply_rotation(model, random_angles(heads), heads), apply_rotation(model, random_angles(mlps), mlps):
        hooked = logits(model, ids)
    with merge_temporarily(model, random_angles(heads), heads), merge_temporarily(model, random_angles(mlps), mlps):
        assert near(logits(model, ids), hooked)


def test_surplus_angles_of_a_narrow_site_are_ignored():
    model, ids = tiny_model("gemma4_text"), tokens(2, 9)
    sites = find_sites(model, "heads", 1.0)
    angles = random_angles(sites)
    with apply_rotation(model, angles, sites):
        hooked = logits(model, ids)
    with apply_rotation(model, angles.masked_fill(~angle_mask(sites, ROTARY.n_angles), 5.0), sites):
        assert torch.equal(logits(model, ids), hooked)


@pytest.mark.parametrize("architecture", ["llama", "mistral", "gemma3_text", "gpt2"])
def test_left_padding_does_not_change_generation(architecture):
    model, short, long = tiny_model(architecture), tokens(1, 4, seed=1), tokens(1, 7, seed=2)
    ids = torch.cat([torch.cat([torch.zeros(1, 3, dtype=torch.long), short], dim=1), long])
    options = dict(max_new_tokens=6, min_new_tokens=6, do_sample=False, pad_token_id=0)
    with apply_rotation(model, random_angles(find_sites(model, "heads", 1.0))):
        together = model.generate(ids, attention_mask=(ids != 0).long(), **options)
        alone = model.generate(short, attention_mask=torch.ones_like(short), **options)
    assert torch.equal(together[0, 7:], alone[0, 4:])


@pytest.mark.parametrize("rotation", ROTATIONS.values(), ids=ROTATIONS)
def test_gradients_reach_the_angles_also_at_the_identity(rotation):
    # GPT-2 computes in float64 throughout; others use float32 in their norms, too coarse for finite differences.
    model, ids = tiny_model("gpt2", dtype=torch.float64), tokens(1, 4)
    sites = find_sites(model, "heads", [0, 2])
    direction = random_angles(sites, rotation, seed=3).double()
    for start in (torch.zeros_like(direction), random_angles(sites, rotation, seed=4).double()):

        def loss(angles: torch.Tensor) -> torch.Tensor:
            with apply_rotation(model, angles, sites, rotation):
                return logits(model, ids).log_softmax(-1)[..., 5].sum()

        with torch.enable_grad():
            angles = start.clone().requires_grad_()
            loss(angles).backward()
        step = 1e-5 * direction
        slope = (loss(start + step) - loss(start - step)) / 2e-5
        assert torch.allclose((angles.grad * direction).sum(), slope, rtol=1e-5) and slope.abs() > 1e-4
