"""Edits as contexts: nesting, order, errors in the body, and arguments that are refused before anything changes."""

import pytest
import torch
from edits import (
    dense_hook,
    hooks,
    logits,
    near,
    random_angles,
    refusal,
    snapshot,
    unchanged,
)
from tiny import LAYERS, tiny_model, tokens

from tarot.edit.hooks import apply_rotation
from tarot.edit.merge import merge_rotation, merge_temporarily
from tarot.edit.rotation import GIVENS, ROTARY, Rotary
from tarot.edit.sites import Site, find_sites
from tarot.errors import ShapeMismatch

pytestmark = pytest.mark.usefixtures("no_gradients")

BOTH = pytest.mark.parametrize("context", [apply_rotation, merge_temporarily])


@BOTH
def test_the_context_returns_the_model(context):
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


def test_the_outer_of_nested_hooks_acts_first():
    model, ids = tiny_model("llama"), tokens(2, 9)
    sites = find_sites(model, "heads", [0])
    outer, inner = random_angles(sites, GIVENS, seed=1), random_angles(sites, GIVENS, seed=2)
    product = GIVENS.matrix(outer[0].double(), 8) @ GIVENS.matrix(inner[0].double(), 8)
    with apply_rotation(model, outer, sites, GIVENS), apply_rotation(model, inner, sites, GIVENS):
        nested = logits(model, ids)
    matrix = torch.block_diag(*product)
    sites[0].module.register_forward_pre_hook(lambda _, args: ((args[0].double() @ matrix).float(),))
    assert near(logits(model, ids), nested)


ORDERS = {
    # How two edits of one site are opened, and whether the first one acts first: on heads, on MLPs.
    (apply_rotation, apply_rotation): (True, True),
    (merge_temporarily, merge_temporarily): (False, True),
    (merge_temporarily, apply_rotation): (False, True),
    (apply_rotation, merge_temporarily): (True, False),
}


@pytest.mark.parametrize("kind", ["heads", "mlp"])
@pytest.mark.parametrize(("contexts", "first_acts_first"), ORDERS.items())
def test_nested_edits_that_do_not_commute_act_in_the_documented_order(contexts, first_acts_first, kind):
    """A later merge is further from the weight than an earlier one, and hooks are further than every merge."""
    model, ids = tiny_model("llama"), tokens(2, 9)
    sites = find_sites(model, kind, [0])
    first, second, before = random_angles(sites, GIVENS, seed=1), random_angles(sites, GIVENS, seed=2), snapshot(model)
    with contexts[0](model, first, sites, GIVENS), contexts[1](model, second, sites, GIVENS):
        nested = logits(model, ids)
    assert unchanged(model, before)
    in_order = first_acts_first[kind == "mlp"]
    for matches, (earlier, later) in ((in_order, (first, second)), (not in_order, (second, first))):
        removers = [dense_hook(sites[0], angles[0], GIVENS) for angles in (earlier, later)]
        assert near(logits(model, ids), nested) == matches
        for remove in removers:
            remove()


@pytest.mark.parametrize("first_closed", [0, 1])
def test_hooks_and_merges_are_closed_in_any_order(first_closed):
    model, ids = tiny_model("llama"), tokens(2, 9)
    sites = find_sites(model, "heads", [0])
    angles, before, bare = random_angles(sites), snapshot(model), logits(model, ids)
    for contexts in ((apply_rotation, merge_temporarily), (merge_temporarily, apply_rotation)):
        opened = [context(model, sign * angles, sites) for context, sign in zip(contexts, (1, -2), strict=True)]
        for each in opened:
            each.__enter__()
        opened[first_closed].__exit__(None, None, None)
        assert not near(logits(model, ids), bare, 1e-2)
        opened[1 - first_closed].__exit__(None, None, None)
        assert unchanged(model, before)


@BOTH
def test_an_edit_may_be_entered_again_while_open_and_after(context):
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
def test_an_error_in_the_body_leaves_no_trace(context):
    model = tiny_model("gpt2")
    before, edit = snapshot(model), context(model, torch.ones(LAYERS, 5, 2))
    with pytest.raises(ZeroDivisionError), edit, edit:
        raise ZeroDivisionError
    assert unchanged(model, before)


def test_an_error_during_entry_leaves_no_trace(monkeypatch):
    model = tiny_model("gpt2")
    before = snapshot(model)
    edits = [context(model, torch.ones(LAYERS, 5, 2)) for context in (apply_rotation, merge_temporarily)]
    for edit in edits:
        turns = iter([ROTARY.turn, ROTARY.turn])
        with monkeypatch.context() as patch, pytest.raises(StopIteration):
            patch.setattr(Rotary, "turn", lambda _, angles, d, turns=turns: next(turns)(angles, d))
            edit.__enter__()
        assert unchanged(model, before)


@BOTH
def test_hooks_of_the_user_are_kept(context):
    model = tiny_model("llama")
    projection, calls = model.model.layers[0].self_attn.o_proj, []
    projection.register_forward_pre_hook(lambda module, args: calls.append("before"))
    with context(model, torch.ones(1, 6, 4)):
        projection.register_forward_pre_hook(lambda module, args: calls.append("inside"))
        logits(model, tokens(1, 2))
    logits(model, tokens(1, 2))
    assert calls == ["before", "inside"] * 2 and hooks(model) == 2


def test_sines_and_cosines_are_computed_once_an_entry(monkeypatch):
    model, calls = tiny_model("llama"), []
    cosine = torch.Tensor.cos
    with apply_rotation(model, torch.ones(LAYERS, 6, 4)), monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "cos", lambda self: calls.append(tuple(self.shape)) or cosine(self))
        logits(model, tokens(1, 2))
    assert (6, 4) not in calls


@BOTH
def test_inference_mode_may_be_inside_or_outside(context):
    model, ids = tiny_model("llama"), tokens(2, 9)
    before, bare = snapshot(model), logits(model, ids)
    with torch.inference_mode(), context(model, torch.ones(LAYERS, 6, 4)):
        inside = logits(model, ids)
    with context(model, torch.ones(LAYERS, 6, 4)), torch.inference_mode():
        assert torch.equal(logits(model, ids), inside)
    assert unchanged(model, before) and torch.equal(logits(model, ids), bare)


def test_each_entry_reads_the_angles_of_the_optimiser():
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


EDITS = pytest.mark.parametrize("edit", [apply_rotation, merge_temporarily, merge_rotation])


@EDITS
@pytest.mark.parametrize("shape", [(2, 6, 5), (2, 5, 4), (4, 6, 4), (0, 6, 4)])
def test_wrong_shape_is_refused(edit, shape):
    model = tiny_model("llama")
    before = snapshot(model)
    rows = min(max(shape[0], 1), LAYERS)
    message = refusal(edit, model, torch.zeros(shape))
    assert f"shape ({rows}, 6, 4), got shape {shape}" in message and "model.layers.0.self_attn.o_proj" in message
    assert unchanged(model, before)


def test_wrong_shape_with_sites_is_a_shape_mismatch():
    model = tiny_model("llama")
    with pytest.raises(ShapeMismatch):
        apply_rotation(model, torch.zeros(2, 6, 4), find_sites(model, "heads", 1.0))


@EDITS
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_angles_must_be_finite(edit, bad):
    model, angles = tiny_model("llama"), torch.zeros(2, 6, 4)
    angles[1, 2, 3] = angles[0, 0, 0] = bad
    before = snapshot(model)
    assert "finite angles, got 2" in refusal(edit, model, angles)
    assert unchanged(model, before)


@EDITS
def test_sites_of_another_model_are_refused(edit):
    sites = find_sites(tiny_model("llama"), "heads", [1])
    message = refusal(edit, tiny_model("llama"), torch.zeros(1, 6, 4), sites)
    assert "model.layers.1.self_attn.o_proj" in message and "another model" in message


@EDITS
def test_an_empty_list_of_sites_is_refused(edit):
    assert "at least one site" in refusal(edit, tiny_model("llama"), torch.zeros(0, 6, 4), ())


def test_heads_of_odd_size_need_givens():
    model = tiny_model("llama")
    sites = [Site("model.layers.0.self_attn.o_proj", model.model.layers[0].self_attn.o_proj, 0, 16, 3, "input")]
    assert "even size" in refusal(apply_rotation, model, torch.zeros(1, 16, 1), sites)
    with apply_rotation(model, torch.ones(1, 16, 2), sites, GIVENS):
        logits(model, tokens(1, 3))
