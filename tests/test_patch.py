"""Patches: threads, asyncio tasks, order of closing, copies of an edited model."""

import asyncio
import gc
import pickle
from contextlib import nullcontext
from copy import deepcopy
from threading import Thread
from typing import Any

import pytest
import torch
from edits import (
    hooks,
    logits,
    snapshot,
    unchanged,
)
from tiny import tiny_model, tokens
from torch import nn
from torch.utils.checkpoint import checkpoint

from tarot.edit.hooks import apply_rotation
from tarot.edit.merge import merge_rotation, merge_temporarily
from tarot.edit.patch import Patch
from tarot.edit.sites import find_sites
from tarot.errors import TarotError

pytestmark = pytest.mark.usefixtures("no_gradients")


def both_open(model: nn.Module, first: Any, second: Any) -> Any:
    """Return what another thread gets that opens `second` while `first` is open in this thread."""
    results: list[object] = []

    def other() -> None:
        try:
            with second:
                results.append(logits(model, tokens(1, 5)))
        except TarotError as error:
            results.append(error)

    with first:
        thread = Thread(target=other)
        thread.start()
        thread.join()
    return results[0]


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


@pytest.mark.parametrize("context", [apply_rotation, merge_temporarily])
def test_an_edit_that_a_task_left_open_refuses_nothing_once_the_task_is_done(context: Any) -> None:
    model, ids = tiny_model("llama"), tokens(1, 5)
    before, bare = snapshot(model), logits(model, ids)
    edit = context(model, torch.full((2, 6, 4), 0.3))

    async def leave_open() -> None:
        edit.__enter__()

    async def run() -> torch.Tensor:
        return logits(model, ids)

    asyncio.run(leave_open())
    assert not torch.equal(asyncio.run(run()), bare)
    edit.__exit__(None, None, None)
    assert unchanged(model, before)


@pytest.mark.parametrize("n_contexts", [2, 3])
def test_merges_must_be_closed_in_reverse_order(n_contexts: int) -> None:
    """Closing another one raises, changes nothing, and can be done again in the right order."""
    model = tiny_model("llama")
    before = snapshot(model)
    opened = [merge_temporarily(model, torch.full((2, 6, 4), 0.1 * i + 0.1)) for i in range(n_contexts)]
    for each in opened:
        each.__enter__()
    with pytest.raises(TarotError, match="still open"):
        opened[0].__exit__(None, None, None)
    for each in reversed(opened):
        each.__exit__(None, None, None)
    assert unchanged(model, before) and hooks(model) == 0


def test_garbage_collected_contexts_are_undone() -> None:
    model = tiny_model("llama")
    before = snapshot(model)
    opened = [merge_temporarily(model, torch.full((2, 6, 4), angle)) for angle in (0.1, 0.2)]
    for each in opened:
        each.__enter__()
    del opened, each
    gc.collect()
    assert unchanged(model, before) and hooks(model) == 0


@pytest.mark.parametrize("context", [apply_rotation, merge_temporarily])
def test_an_edited_model_cannot_be_merged_copied_or_pickled(context: Any) -> None:
    model, angles = tiny_model("llama"), torch.full((2, 6, 4), 0.3)
    before = snapshot(model)
    with context(model, angles):
        for misuse in (lambda: merge_rotation(model, angles), lambda: deepcopy(model), lambda: pickle.dumps(model)):
            with pytest.raises(TarotError, match="open edit"):
                misuse()
    assert unchanged(model, before)
    assert hooks(deepcopy(model)) == 0


@pytest.mark.parametrize("context", [apply_rotation, merge_temporarily])
def test_an_edit_of_one_layer_keeps_others_from_being_merged(context: Any) -> None:
    model, angles = tiny_model("llama"), torch.full((1, 6, 4), 0.3)
    with context(model, angles, find_sites(model, "heads", [1])), pytest.raises(TarotError, match="open edit"):
        merge_rotation(model, angles, find_sites(model, "heads", [0]))


def test_replaced_attributes_are_restored() -> None:
    layer = nn.Linear(2, 2)
    before = dict(vars(layer))
    with Patch(layer) as patch:
        for name in ("training", "forward"):  # an attribute of the module, and one of its class
            patch.replace(layer, layer, name, None)
        patch.before(layer, lambda module, args: args)
        patch.apply()
        assert layer.training is None and layer.forward is None
    assert vars(layer) == before and hooks(layer) == 0
