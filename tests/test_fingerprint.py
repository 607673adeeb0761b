"""Fingerprints of weights: the same in types that hold the same numbers, and others after any change."""

import pytest
import torch
from checkpoint import byte_model
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from tarot.edit.fingerprint import has_other_weights, weights_fingerprint
from tarot.edit.merge import merge_temporarily
from tarot.edit.sites import find_sites


def wide_model() -> LlamaForCausalLM:
    """Return a model of one layer whose projections have many more values than are probed."""
    torch.manual_seed(0)
    shape = dict(vocab_size=8, hidden_size=256, intermediate_size=8, num_hidden_layers=1, num_attention_heads=8)
    return LlamaForCausalLM(LlamaConfig(**shape)).requires_grad_(False)


@given(st.sampled_from([torch.bfloat16, torch.float32, torch.float64]), st.integers(0, 9))
@settings(max_examples=10)
def test_a_wider_type_keeps_the_fingerprint(dtype: torch.dtype, seed: int) -> None:
    assert weights_fingerprint(byte_model(seed=seed).to(dtype)) == weights_fingerprint(byte_model(seed=seed))
    assert weights_fingerprint(byte_model(seed=seed)) != weights_fingerprint(byte_model(seed=seed + 1))


@pytest.mark.parametrize("head", range(8))
@pytest.mark.parametrize("make", [wide_model, lambda: tiny_model("gpt2")], ids=["linear", "conv1d"])
def test_an_edit_of_any_head_changes_it(make, head: int) -> None:
    model = make()
    sites = find_sites(model, "heads", [0])
    angles = torch.zeros(1, sites[0].n_heads, sites[0].d_head // 2)
    angles[0, head % sites[0].n_heads] = 0.3
    before = weights_fingerprint(model)
    with merge_temporarily(model, angles, sites):
        assert weights_fingerprint(model) != before
        assert has_other_weights(model, {before})
    assert weights_fingerprint(model) == before and not has_other_weights(model, {before})


def test_weights_that_cannot_be_compared_are_not() -> None:
    """Another rounding, quantised weights, and weights that are elsewhere say nothing about the model."""
    other = {weights_fingerprint(byte_model(seed=1))}
    model = byte_model()
    assert has_other_weights(model, other) and not has_other_weights(model, set())
    assert not has_other_weights(byte_model().half(), other)
    assert has_other_weights(byte_model().half(), {weights_fingerprint(byte_model(seed=1).half())})
    assert not has_other_weights(byte_model().to("meta"), other)
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.to(torch.int8), requires_grad=False)
    assert not has_other_weights(model, other | {weights_fingerprint(model)})
