"""The logit lens against a model cut short."""

from contextlib import ExitStack
from copy import deepcopy

import pytest
import torch
from tiny import ARCHITECTURES, LAYERS, tiny_model, tokens
from transformers import AutoModelForCausalLM

from tarot.analysis.lens import find_final_norm, layer_probabilities
from tarot.edit.hooks import apply_rotation
from tarot.edit.rotation import ROTARY
from tarot.edit.sites import angle_mask, decoder_layers, find_sites
from tarot.errors import TarotError
from tarot.models.scoring.scorer import Request

PROMPTS = [tuple(tokens(1, length, seed=length)[0].tolist()) for length in (7, 3, 11, 7, 1)]


REQUESTS = [Request(prompt, (5 + i, 9)) for i, prompt in enumerate(PROMPTS)]


# Gemma 4's embeddings are of all layers at once, so that a model cut short cannot read them.
@pytest.mark.parametrize("architecture", sorted(set(ARCHITECTURES) - {"gemma4_text"}))
def test_the_lens_equals_the_model_cut_short(architecture: str) -> None:
    """After layer l it reads what the model would say if layer l were its last; after the last, what it says."""
    model = tiny_model(architecture)
    sites = find_sites(model, "heads", 1.0)
    angles = torch.randn(angle_mask(sites, ROTARY.n_angles).shape, generator=torch.Generator().manual_seed(1))
    with apply_rotation(model, angles, sites):
        probabilities = layer_probabilities(model, REQUESTS)
        final = torch.tensor([answer_probability(model, request) for request in REQUESTS])
    torch.testing.assert_close(probabilities[:, -1], final, atol=1e-4, rtol=0)
    for n in range(1, LAYERS):
        short = deepcopy(model)
        layers = decoder_layers(short)
        del layers[n:]
        short.config.num_hidden_layers = n
        few = find_sites(short, "heads", 1.0) if has_heads(short) else ()
        with ExitStack() as edit:
            if few:
                rows = torch.stack([row for site, row in zip(sites, angles, strict=True) if site.layer < n])
                _, heads, width = angle_mask(few, ROTARY.n_angles).shape
                edit.enter_context(apply_rotation(short, rows[:, :heads, :width], few))
            oracle = torch.tensor([answer_probability(short, request) for request in REQUESTS])
        torch.testing.assert_close(probabilities[:, n - 1], oracle, atol=1e-4, rtol=0)


def has_heads(model: torch.nn.Module) -> bool:
    try:
        return bool(find_sites(model, "heads", 1.0))
    except TarotError:
        return False


@torch.no_grad()
def answer_probability(model: torch.nn.Module, request: Request) -> float:
    logits = model(input_ids=torch.tensor([request.context]), use_cache=False).logits
    return float(logits[0, -1].softmax(-1)[request.continuation[0]])


def test_a_model_without_a_final_norm_is_rejected() -> None:
    config = tiny_model("opt").config
    config._remove_final_layer_norm = True
    model = AutoModelForCausalLM.from_config(config).eval()
    with pytest.raises(TarotError, match="norm"):
        find_final_norm(model)


def test_the_lens_removes_its_hooks() -> None:
    model = tiny_model("llama")
    layer_probabilities(model, REQUESTS)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
