"""Attention patterns against a model with eager attention."""

from dataclasses import replace

import pytest
import torch
from checkpoint import byte_model
from tiny import tiny_model, tokens

from tarot.analysis.attention import attention_weights, find_patterns
from tarot.edit.adapter import Adapter, Edit
from tarot.edit.rotation import ROTARY
from tarot.edit.sites import find_sites
from tarot.errors import TarotError

PROMPTS = [tuple(tokens(1, length, seed=length)[0].tolist()) for length in (7, 3, 11, 7, 1)]


def test_weights_equal_those_of_an_eager_model() -> None:
    model, ids = byte_model(), list(range(5, 25))
    plain = byte_model()
    plain.set_attn_implementation("eager")
    with torch.no_grad():
        oracle = plain(torch.tensor([ids]), output_attentions=True).attentions
        before = model(torch.tensor([ids])).logits
        layers = attention_weights(model, ids)
        after = model(torch.tensor([ids])).logits
    assert model.config._attn_implementation != "eager" and torch.equal(before, after)
    for layer, weights in enumerate(layers):
        torch.testing.assert_close(weights, oracle[layer][0], atol=1e-6, rtol=0)
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:2]), atol=1e-5, rtol=0)


def test_only_patterns_above_the_first_edited_layer_move() -> None:
    model = byte_model()
    sites = find_sites(model, "heads", [1, 2])
    angles = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    angles[0, 1] *= 5
    edit = Adapter(angles, Edit.from_sites(model, "heads", sites, ROTARY), {})
    shown = find_patterns(model, edit, list(range(5, 25)), n_heads=6)
    assert (shown[0].layer, shown[0].head) == (1, 1)
    assert [pattern.angle > 0 for pattern in shown] == [True] * 6 + [False] * 6
    assert all((pattern.moved > 0) == (pattern.layer > 1) for pattern in shown)
    assert all(0 <= pattern.moved <= 1 for pattern in shown)
    still = find_patterns(model, replace(edit, angles=angles * 0), list(range(5, 25)))
    assert all(pattern.moved == 0 and (pattern.base == pattern.edited).all() for pattern in still)


def test_a_model_without_attention_in_all_layers_is_rejected() -> None:
    with pytest.raises(TarotError, match="attention weights"):
        attention_weights(tiny_model("qwen3_next"), PROMPTS[0])
