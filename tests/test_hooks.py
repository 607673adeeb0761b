"""The edit on a model: an oracle beside it, hooked as merged, and gone without a trace."""

import asyncio
import gc
import pickle
from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from inspect import signature
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from accelerate import cpu_offload, disk_offload
from hypothesis import given, settings
from strategies import rotations, tensors
from tiny import ARCHITECTURES, LAYERS, tiny_model, tokens
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.generation import GenerateDecoderOnlyOutput

from tarot.edit.hooks import apply_rotation
from tarot.edit.merge import merge_rotation, merge_temporarily, unmerge_rotation
from tarot.edit.rotation import GIVENS, ROTARY, ROTATIONS, SCALE, Rotary, Rotation
from tarot.edit.sites import Site, angle_mask, find_sites
from tarot.errors import ShapeMismatch, TarotError

# Their layers are mixtures of experts, which have no last projection.
MIXTURES = ("gpt_oss", "minimax", "mixtral")
EVERY = pytest.mark.parametrize("architecture", ARCHITECTURES)
EVERY_SITE = pytest.mark.parametrize(
    "architecture, kind",
    [(name, "heads") for name in ARCHITECTURES] + [(name, "mlp") for name in ARCHITECTURES if name not in MIXTURES],
)


@pytest.fixture(autouse=True)
def _no_gradients_unless_asked_for():
    with torch.no_grad():
        yield


def random_angles(sites: tuple[Site, ...], rotation: Rotation = ROTARY, *, seed: int = 0) -> torch.Tensor:
    shape = angle_mask(sites, rotation.n_angles).shape
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * (0.2 if rotation is SCALE else 1.0)


def logits(model: PreTrainedModel, ids: torch.Tensor, **inputs: torch.Tensor) -> torch.Tensor:
    return model(ids, **inputs).logits


def hooks(model: nn.Module, *, marks: bool = True) -> int:
    """How many hooks a model has; the marks of open patches, which change no activation, may be left out."""
    found = [
        hook
        for module in model.modules()
        for hook in (*module._forward_pre_hooks.values(), *module._forward_hooks.values())
    ]
    return sum(marks or getattr(hook, "hook", hook) is not None for hook in found)


def snapshot(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.clone() for name, parameter in model.named_parameters()}


def unchanged(model: nn.Module, before: dict[str, torch.Tensor]) -> bool:
    return hooks(model) == 0 and all(
        torch.equal(parameter.view(torch.uint8), before[name].view(torch.uint8))
        for name, parameter in model.named_parameters()
    )


def near(a: torch.Tensor, b: torch.Tensor, tolerance: float = 3e-5) -> bool:
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance)


# On every architecture ----------------------------------------------------------------------------


def dense_hook(site: Site, angles: torch.Tensor, rotation: Rotation) -> Callable[..., object]:
    """The slow and obvious edit: one block-diagonal matrix for all heads, multiplied in float64."""
    n = rotation.n_angles(site.d_head)
    blocks = [rotation.matrix(head[:n].double(), site.d_head) for head in angles[: site.n_heads]]
    matrix = torch.block_diag(*blocks)

    def edit(x: torch.Tensor) -> torch.Tensor:
        return (x.double() @ matrix).to(x.dtype)

    if site.side == "input":
        return site.module.register_forward_pre_hook(lambda _, args: (edit(args[0]),)).remove
    return site.module.register_forward_hook(lambda _, args, out: edit(out)).remove


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
def test_merged_and_hooked_logits_agree_and_nothing_stays(architecture, kind):
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
def test_merging_in_place_and_back(architecture, kind):
    model, ids = tiny_model(architecture), tokens(2, 9)
    sites = find_sites(model, kind, 1.0)
    angles, before, bare = random_angles(sites), snapshot(model), logits(model, ids)
    with apply_rotation(model, angles, sites):
        hooked = logits(model, ids)
    merge_rotation(model, angles, sites)
    assert near(logits(model, ids), hooked)
    edited = {f"{site.name}.weight" for site in sites}
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    biases = {f"{site.name}.bias" for site in sites if kind == "mlp" and site.module.bias is not None}
    assert changed == edited | biases
    unmerge_rotation(model, angles, sites)
    assert all(near(parameter, before[name], 1e-6) for name, parameter in model.named_parameters())
    assert near(logits(model, ids), bare)


@EVERY_SITE
def test_zero_angles_change_no_bit(architecture, kind):
    model, ids = tiny_model(architecture), tokens(2, 9)
    sites = find_sites(model, kind, 1.0)
    nothing, before, bare = torch.zeros_like(random_angles(sites)), snapshot(model), logits(model, ids)
    for angles in (nothing, nothing.clone().requires_grad_()):
        with apply_rotation(model, angles, sites):
            assert torch.equal(logits(model, ids), bare)
    merge_rotation(model, nothing, sites)
    assert unchanged(model, before)


@EVERY_SITE
def test_layers_below_the_first_edited_one_are_bit_equal(architecture, kind):
    model, ids = tiny_model(architecture), tokens(2, 9)
    layer = find_sites(model, kind, 1.0)[-1].layer
    sites = find_sites(model, kind, [layer])
    bare = model(ids, output_hidden_states=True).hidden_states
    with apply_rotation(model, random_angles(sites), sites):
        edited = model(ids, output_hidden_states=True).hidden_states
    assert all(torch.equal(a, b) for a, b in zip(bare[: layer + 1], edited[: layer + 1], strict=True))
    assert (bare[layer + 1] - edited[layer + 1]).abs().max() > 1e-3


@EVERY
def test_generation_with_its_cache_is_generation_without(architecture):
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
def test_padding_on_either_side_does_not_reach_the_edited_tokens(architecture, side):
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


# Every rotation -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rotation", ROTATIONS.values(), ids=ROTATIONS)
@pytest.mark.parametrize("kind", ["heads", "mlp"])
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3_text", "gemma4_text"])
def test_every_rotation_is_hooked_merged_and_dense(architecture, kind, rotation):
    model, ids = tiny_model(architecture), tokens(2, 9)
    sites = find_sites(model, kind, 1.0)
    angles = random_angles(sites, rotation)
    with apply_rotation(model, angles, sites, rotation):
        hooked = logits(model, ids)
    with merge_temporarily(model, angles, sites, rotation):
        assert near(logits(model, ids), hooked)
    before = snapshot(model)
    merge_rotation(model, angles, sites, rotation)
    assert near(logits(model, ids), hooked)
    unmerge_rotation(model, angles, sites, rotation)
    assert all(near(parameter, before[name], 1e-6) for name, parameter in model.named_parameters())
    for site, row in zip(sites, angles, strict=True):
        dense_hook(site, row, rotation)
    assert near(logits(model, ids), hooked)


LLAMA, IDS = tiny_model("llama"), tokens(2, 9)


@settings(max_examples=30)
@given(rotations.flatmap(lambda r: tensors((2, 6, r.n_angles(8)), 3.0).map(lambda angles: (r, angles))))
def test_hooked_is_merged_whatever_the_angles(edit):
    rotation, angles = edit
    with apply_rotation(LLAMA, angles, rotation=rotation):
        hooked = logits(LLAMA, IDS)
    with merge_temporarily(LLAMA, angles, rotation=rotation):
        assert torch.allclose(logits(LLAMA, IDS), hooked, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_other_dtypes_stay_what_they_are(architecture, dtype):
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
    # Two roundings to the dtype apart; the edit itself is far larger.
    error, effect = (logits(model, ids) - hooked).abs().max(), (hooked - bare).abs().max()
    assert error <= 8 * torch.finfo(dtype).eps * hooked.abs().max() and error < effect / 20


def test_a_float64_model_is_edited_to_its_own_precision_by_float32_angles():
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


def test_the_mlps_bias_is_rotated_too():
    model = tiny_model("gpt2")
    site = find_sites(model, "mlp", [0])[0]
    angles, bias = random_angles((site,)), site.module.bias.clone()
    merge_rotation(model, angles, [site])
    assert near(site.module.bias, ROTARY.apply(bias, angles[0, 0]))


def test_the_heads_projections_bias_stays():
    model = tiny_model("gpt2")
    site = find_sites(model, "heads", [0])[0]
    bias = site.module.bias.clone()
    merge_rotation(model, random_angles((site,)), [site])
    assert torch.equal(site.module.bias, bias)


# Sites --------------------------------------------------------------------------------------------


def test_without_sites_the_heads_of_the_first_layers_are_edited():
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


def test_angles_a_narrow_site_has_not_are_not_read():
    model, ids = tiny_model("gemma4_text"), tokens(2, 9)
    sites = find_sites(model, "heads", 1.0)
    angles = random_angles(sites)
    with apply_rotation(model, angles, sites):
        hooked = logits(model, ids)
    with apply_rotation(model, angles.masked_fill(~angle_mask(sites, ROTARY.n_angles), 5.0), sites):
        assert torch.equal(logits(model, ids), hooked)


@pytest.mark.parametrize("architecture", ["llama", "mistral", "gemma3_text", "gpt2"])
def test_left_padded_generation_with_its_cache_is_generation_alone(architecture):
    model, short, long = tiny_model(architecture), tokens(1, 4, seed=1), tokens(1, 7, seed=2)
    ids = torch.cat([torch.cat([torch.zeros(1, 3, dtype=torch.long), short], dim=1), long])
    options = dict(max_new_tokens=6, min_new_tokens=6, do_sample=False, pad_token_id=0)
    with apply_rotation(model, random_angles(find_sites(model, "heads", 1.0))):
        together = model.generate(ids, attention_mask=(ids != 0).long(), **options)
        alone = model.generate(short, attention_mask=torch.ones_like(short), **options)
    assert torch.equal(together[0, 7:], alone[0, 4:])


# The contexts -------------------------------------------------------------------------------------

BOTH = pytest.mark.parametrize("context", [apply_rotation, merge_temporarily])


@BOTH
def test_the_context_gives_the_model(context):
    model = tiny_model("llama")
    with context(model, torch.zeros(1, 6, 4)) as edited:
        assert edited is model


@BOTH
def test_nested_edits_add_up(context):
    model, ids = tiny_model("llama"), tokens(2, 9)
    sites = find_sites(model, "heads", 1.0)
    first, second, before = random_angles(sites, seed=1), random_angles(sites, seed=2), snapshot(model)
    with context(model, first + second, sites):
        summed = logits(model, ids)
    with context(model, first, sites):
        once = logits(model, ids)
        with context(model, second, sites):
            assert near(logits(model, ids), summed)
        assert torch.equal(logits(model, ids), once)
    assert unchanged(model, before)


def test_of_nested_edits_the_outer_acts_first():
    model, ids = tiny_model("llama"), tokens(2, 9)
    sites = find_sites(model, "heads", [0])
    outer, inner = random_angles(sites, GIVENS, seed=1), random_angles(sites, GIVENS, seed=2)
    product = GIVENS.matrix(outer[0].double(), 8) @ GIVENS.matrix(inner[0].double(), 8)
    with apply_rotation(model, outer, sites, GIVENS), apply_rotation(model, inner, sites, GIVENS):
        nested = logits(model, ids)
    matrix = torch.block_diag(*product)
    sites[0].module.register_forward_pre_hook(lambda _, args: ((args[0].double() @ matrix).float(),))
    assert near(logits(model, ids), nested)


@BOTH
def test_the_same_object_is_entered_again_while_open_and_after(context):
    model, ids = tiny_model("llama"), tokens(2, 9)
    angles, before = random_angles(find_sites(model, "heads", 1.0)), snapshot(model)
    edit = context(model, angles)
    with context(model, 2 * angles):
        twice = logits(model, ids)
    for _ in range(2):
        with edit:
            once = logits(model, ids)
            with edit:
                assert near(logits(model, ids), twice)
            assert torch.equal(logits(model, ids), once)
        assert unchanged(model, before)


@BOTH
def test_a_body_that_raises_leaves_no_trace(context):
    model = tiny_model("gpt2")
    before, edit = snapshot(model), context(model, torch.ones(LAYERS, 5, 2))
    with pytest.raises(ZeroDivisionError), edit, edit:
        raise ZeroDivisionError
    assert unchanged(model, before)


def test_an_entry_that_fails_half_way_leaves_no_trace(monkeypatch):
    model = tiny_model("gpt2")
    before = snapshot(model)
    edits = [context(model, torch.ones(LAYERS, 5, 2)) for context in (apply_rotation, merge_temporarily)]
    for edit in edits:
        turns = iter([ROTARY.turn, ROTARY.turn])
        with monkeypatch.context() as patch, pytest.raises(StopIteration):
            patch.setattr(Rotary, "turn", lambda _, angles, d, turns=turns: next(turns)(angles, d))
            edit.__enter__()
        assert unchanged(model, before)


def test_the_weights_of_before_are_the_same_memory():
    model = tiny_model("llama")
    weight = model.model.layers[0].self_attn.o_proj.weight
    address = weight.data_ptr()
    with merge_temporarily(model, torch.ones(1, 6, 4)):
        assert weight.data_ptr() != address
        assert model.model.layers[0].self_attn.o_proj.weight is weight
    assert weight.data_ptr() == address


def test_hooks_of_others_survive():
    model = tiny_model("llama")
    calls = []
    model.model.layers[0].self_attn.o_proj.register_forward_pre_hook(lambda module, args: calls.append(1))
    with apply_rotation(model, torch.ones(1, 6, 4)):
        logits(model, tokens(1, 2))
    logits(model, tokens(1, 2))
    assert calls == [1, 1] and hooks(model) == 1


def test_trigonometry_is_done_once_an_entry(monkeypatch):
    model, calls = tiny_model("llama"), []
    cosine = torch.Tensor.cos
    with apply_rotation(model, torch.ones(LAYERS, 6, 4)), monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "cos", lambda self: calls.append(tuple(self.shape)) or cosine(self))
        logits(model, tokens(1, 2))
    assert (6, 4) not in calls


@BOTH
def test_inference_mode_inside_and_outside(context):
    model, ids = tiny_model("llama"), tokens(2, 9)
    before, bare = snapshot(model), logits(model, ids)
    with torch.inference_mode(), context(model, torch.ones(LAYERS, 6, 4)):
        inside = logits(model, ids)
    with context(model, torch.ones(LAYERS, 6, 4)), torch.inference_mode():
        assert torch.equal(logits(model, ids), inside)
    assert unchanged(model, before) and torch.equal(logits(model, ids), bare)


# Gradients ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rotation", ROTATIONS.values(), ids=ROTATIONS)
def test_gradients_reach_the_angles_from_the_identity_too(rotation):
    # GPT-2 keeps float64 all the way; others drop to float32 in their norms, too coarse for finite differences.
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
        value_and_grad = (loss(start + step) - loss(start - step)) / 2e-5
        assert (
            torch.allclose((angles.grad * direction).sum(), value_and_grad, rtol=1e-5) and value_and_grad.abs() > 1e-4
        )


def test_an_entry_reads_angles_that_an_optimiser_has_moved():
    model, ids = tiny_model("llama"), tokens(1, 4)
    angles = torch.zeros(LAYERS, 6, 4, requires_grad=True)
    edit, losses = apply_rotation(model, angles), []
    optimiser = torch.optim.SGD([angles], lr=0.05)
    for _ in range(3):
        with torch.enable_grad(), edit:
            loss = -logits(model, ids).log_softmax(-1)[0, -1, 5]
            loss.backward()
        losses.append(loss.item())
        optimiser.step()
        optimiser.zero_grad()
    assert losses[0] > losses[1] > losses[2]


def test_merging_angles_that_learn_leaves_plain_weights():
    model = tiny_model("gpt2")
    with torch.enable_grad():
        merge_rotation(model, torch.ones(1, 5, 2, requires_grad=True))
        with merge_temporarily(model, torch.ones(1, 5, 2, requires_grad=True)):
            assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("learns", [True, False])
@pytest.mark.parametrize("kind", ["heads", "mlp"])
def test_merging_zero_angles_keeps_the_sign_of_a_zero(kind, learns):
    model = tiny_model("llama")
    sites = find_sites(model, kind, [0])
    sites[0].module.weight[:2, :2] = -0.0
    before, angles = snapshot(model), torch.zeros_like(random_angles(sites), requires_grad=learns)
    with torch.enable_grad():
        with merge_temporarily(model, angles, sites):
            assert unchanged(model, before)
        merge_rotation(model, angles, sites)
    assert unchanged(model, before)


# Refusals -----------------------------------------------------------------------------------------

EDITS = pytest.mark.parametrize("edit", [apply_rotation, merge_temporarily, merge_rotation, unmerge_rotation])
MERGES = pytest.mark.parametrize(
    "edit",
    [lambda *args: merge_temporarily(*args).__enter__(), merge_rotation, unmerge_rotation],
    ids=["merged", "merge", "unmerge"],
)


def refusal(edit: Callable[..., object], *args: object) -> str:
    with pytest.raises(TarotError) as error:
        edit(*args)
    return str(error.value)


@EDITS
@pytest.mark.parametrize("shape", [(2, 6, 5), (2, 5, 4), (4, 6, 4), (0, 6, 4)])
def test_angles_of_another_shape(edit, shape):
    model = tiny_model("llama")
    before = snapshot(model)
    rows = min(max(shape[0], 1), LAYERS)
    message = refusal(edit, model, torch.zeros(shape))
    assert message == (
        f"expected angles of shape ({rows}, 6, 4), got shape {shape}; {rows} sites from "
        f"model.layers.0.self_attn.o_proj to model.layers.{rows - 1}.self_attn.o_proj, rotation 'rotary'"
    )
    assert unchanged(model, before)


def test_a_wrong_shape_is_a_shape_mismatch_with_sites_too():
    model = tiny_model("llama")
    with pytest.raises(ShapeMismatch):
        apply_rotation(model, torch.zeros(2, 6, 4), find_sites(model, "heads", 1.0))


@EDITS
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_angles_that_are_not_finite(edit, bad):
    model, angles = tiny_model("llama"), torch.zeros(2, 6, 4)
    angles[1, 2, 3] = angles[0, 0, 0] = bad
    before = snapshot(model)
    assert refusal(edit, model, angles) == "expected finite angles, got 2 that are not"
    assert unchanged(model, before)


@EDITS
def test_sites_of_another_model(edit):
    sites = find_sites(tiny_model("llama"), "heads", [1])
    assert refusal(edit, tiny_model("llama"), torch.zeros(1, 6, 4), sites) == (
        "expected sites of this model, got model.layers.1.self_attn.o_proj of another; find_sites(model) finds them"
    )


@EDITS
def test_no_sites(edit):
    assert refusal(edit, tiny_model("llama"), torch.zeros(0, 6, 4), ()) == "expected at least one site, got none"


def test_odd_heads_are_for_givens():
    model = tiny_model("llama")
    sites = [Site("model.layers.0.self_attn.o_proj", model.model.layers[0].self_attn.o_proj, 0, 16, 3, "input")]
    assert refusal(apply_rotation, model, torch.zeros(1, 16, 1), sites) == (
        "expected an even size for the rotation 'rotary', got 3; 'givens' turns any size"
    )
    with apply_rotation(model, torch.ones(1, 16, 2), sites, GIVENS):
        logits(model, tokens(1, 3))


@MERGES
def test_a_tied_weight_is_not_merged_into(edit):
    model = tiny_model("llama")
    model.model.layers[1].self_attn.o_proj.weight = model.model.layers[0].self_attn.o_proj.weight
    before = snapshot(model)
    assert refusal(edit, model, torch.ones(LAYERS, 6, 4)) == (
        "expected model.layers.0.self_attn.o_proj.weight to be used once in the model, got a weight tied to another; "
        "rotated(model, angles) edits without merging"
    )
    assert unchanged(model, before)


@MERGES
@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_a_quantised_weight_is_not_merged_into(edit, dtype):
    model = tiny_model("llama")
    projection = model.model.layers[2].self_attn.o_proj
    projection.weight = nn.Parameter(projection.weight.to(dtype), requires_grad=False)
    before = snapshot(model)
    assert refusal(edit, model, torch.ones(LAYERS, 6, 4)) == (
        f"expected floating-point numbers to merge into at model.layers.2.self_attn.o_proj.weight, got {dtype}, "
        "which is quantised; rotated(model, angles) edits without merging"
    )
    assert unchanged(model, before)


class Wrapped(nn.Module):
    """What an adapter library puts in a projection's place."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base_layer, self.extra = base, nn.Linear(base.in_features, base.out_features, bias=False)
        self.in_features, self.out_features = base.in_features, base.out_features

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base_layer(x) + self.extra(x)


@MERGES
def test_a_wrapped_projection_is_hooked_but_not_merged_into(edit):
    model, ids = tiny_model("llama"), tokens(2, 9)
    model.model.layers[0].self_attn.o_proj = Wrapped(model.model.layers[0].self_attn.o_proj)
    before, bare = snapshot(model), logits(model, ids)
    assert refusal(edit, model, torch.ones(1, 6, 4)) == (
        "expected a plain Linear or Conv1D to merge into at model.layers.0.self_attn.o_proj, "
        f"got {__name__}.Wrapped; rotated(model, angles) edits without merging"
    )
    assert unchanged(model, before)
    with apply_rotation(model, torch.ones(1, 6, 4)):
        assert not near(logits(model, ids), bare, 1e-2)


# Elsewhere


@pytest.mark.parametrize("place", ["memory", "disk"])
@torch.no_grad()
def test_weights_that_accelerate_keeps_elsewhere_are_edited_there(place: str, tmp_path: Path) -> None:
    """Hooked, merged for a while and merged for good: the logits of a model that is here; and taken back."""
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
    for write in (merge_rotation, unmerge_rotation):
        write(here, angles, ours)
        write(away, angles, theirs)
        torch.testing.assert_close(away(ids).logits, here(ids).logits, rtol=0, atol=0)


# Threads, tasks and order


def both_open(model: nn.Module, first: Any, second: Any) -> Any:
    """What another thread gets that opens `second` while `first` is open here."""
    found: list[object] = []

    def other() -> None:
        try:
            with second:
                found.append(logits(model, tokens(1, 5)))
        except TarotError as error:
            found.append(error)

    with first:
        thread = Thread(target=other)
        thread.start()
        thread.join()
    return found[0]


@pytest.mark.parametrize("second", [apply_rotation, merge_temporarily])
@pytest.mark.parametrize("first", [apply_rotation, merge_temporarily])
def test_a_second_thread_is_refused_and_leaves_no_trace(first: Any, second: Any) -> None:
    model, ids = tiny_model("llama"), tokens(1, 5)
    before, bare = snapshot(model), logits(model, ids)
    angles = torch.full((2, 6, 4), 0.3)
    assert isinstance(both_open(model, first(model, angles), second(model, -angles)), TarotError)
    assert unchanged(model, before) and hooks(model) == 0 and torch.equal(logits(model, ids), bare)


@pytest.mark.parametrize("context", [apply_rotation, merge_temporarily])
def test_a_pass_in_another_thread_is_refused(context: Any) -> None:
    model = tiny_model("llama")
    assert isinstance(both_open(model, context(model, torch.ones(2, 6, 4)), nullcontext()), TarotError)


def test_a_backward_pass_may_run_the_model_again_in_another_thread() -> None:
    model, angles = tiny_model("llama"), torch.full((1, 6, 4), 0.3, requires_grad=True)
    site = find_sites(model, "heads", [0])
    x = torch.ones(1, 2, 48)
    with torch.enable_grad(), apply_rotation(model, angles, site):
        out = checkpoint(site[0].module, x, use_reentrant=False)
        thread = Thread(target=out.sum().backward)
        thread.start()
        thread.join()
    assert angles.grad is not None


@pytest.mark.parametrize("context", [apply_rotation, merge_temporarily])
def test_a_second_task_is_refused_while_the_first_is_not_done(context: Any) -> None:
    model = tiny_model("llama")

    async def edit(angle: float) -> None:
        with context(model, torch.full((2, 6, 4), angle)):
            await asyncio.sleep(0)

    async def both() -> list[object]:
        return await asyncio.gather(edit(0.3), edit(-0.7), return_exceptions=True)

    first, second = asyncio.run(both())
    assert first is None and isinstance(second, TarotError) and hooks(model) == 0


@pytest.mark.parametrize(
    "contexts", [(merge_temporarily, merge_temporarily), (merge_temporarily, merge_temporarily, merge_temporarily)]
)
def test_merged_contexts_are_closed_in_reverse_order(contexts: Any) -> None:
    model = tiny_model("llama")
    before = snapshot(model)
    opened = [context(model, torch.full((2, 6, 4), 0.1 * i + 0.1)) for i, context in enumerate(contexts)]
    for each in opened:
        each.__enter__()
    with pytest.raises(TarotError, match="reverse order"):
        opened[0].__exit__(None, None, None)
    for each in reversed(opened):
        each.__exit__(None, None, None)
    assert unchanged(model, before) and hooks(model) == 0


def test_contexts_that_are_dropped_open_are_undone() -> None:
    model = tiny_model("llama")
    before = snapshot(model)
    opened = [merge_temporarily(model, torch.full((2, 6, 4), angle)) for angle in (0.1, 0.2)]
    for each in opened:
        each.__enter__()
    del opened, each
    gc.collect()
    assert unchanged(model, before) and hooks(model) == 0


@pytest.mark.parametrize("change", [merge_rotation, unmerge_rotation])
@pytest.mark.parametrize("context", [apply_rotation, merge_temporarily])
def test_an_edited_model_is_not_merged_copied_or_pickled(context: Any, change: Any) -> None:
    model, angles = tiny_model("llama"), torch.full((2, 6, 4), 0.3)
    before = snapshot(model)
    with context(model, angles):
        for misuse in (lambda: change(model, angles), lambda: deepcopy(model), lambda: pickle.dumps(model)):
            with pytest.raises(TarotError, match="without open edits"):
                misuse()
    assert unchanged(model, before)
    assert hooks(deepcopy(model)) == 0
