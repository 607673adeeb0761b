"""Sites: found on every architecture, sized by their projections, refused on unsupported models."""

import math
from types import SimpleNamespace

import pytest
import torch
from tiny import ARCHITECTURES, LAYERS, tiny_model, tokens
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertLMHeadModel,
    MambaConfig,
    MambaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from tarot.edit.rotation import GIVENS, ROTARY, SCALE
from tarot.edit.sites import Site, angle_mask, find_sites, n_layers
from tarot.errors import InvalidValueError, UnknownName

O_PROJ, DOWN_PROJ = "model.layers.{}.self_attn.o_proj", "model.layers.{}.mlp.down_proj"

# architecture: (heads' projection, number of heads, head size), (MLP's projection or None, hidden size)
EXPECTED = {
    "bitnet": ((O_PROJ, 6, 8), (DOWN_PROJ, 48)),
    "bloom": (("transformer.h.{}.self_attention.dense", 5, 4), ("transformer.h.{}.mlp.dense_4h_to_h", 20)),
    "codegen": (("transformer.h.{}.attn.out_proj", 4, 8), ("transformer.h.{}.mlp.fc_out", 32)),
    "cohere": ((O_PROJ, 6, 6), (DOWN_PROJ, 36)),
    "cohere2": ((O_PROJ, 6, 8), (DOWN_PROJ, 24)),
    "deepseek_v3": ((O_PROJ, 6, 10), (DOWN_PROJ, 24)),
    "diffllama": ((O_PROJ, 6, 8), (DOWN_PROJ, 24)),
    "falcon": (("transformer.h.{}.self_attention.dense", 5, 4), ("transformer.h.{}.mlp.dense_4h_to_h", 20)),
    "gemma": ((O_PROJ, 6, 8), (DOWN_PROJ, 24)),
    "gemma2": ((O_PROJ, 6, 8), (DOWN_PROJ, 24)),
    "gemma3_text": ((O_PROJ, 6, 8), (DOWN_PROJ, 24)),
    "gemma4_text": ((O_PROJ, 6, 8), (DOWN_PROJ, 24)),
    "gpt2": (("transformer.h.{}.attn.c_proj", 5, 4), ("transformer.h.{}.mlp.c_proj", 20)),
    "gpt_bigcode": (("transformer.h.{}.attn.c_proj", 5, 4), ("transformer.h.{}.mlp.c_proj", 20)),
    "gpt_neo": (("transformer.h.{}.attn.attention.out_proj", 5, 4), ("transformer.h.{}.mlp.c_proj", 20)),
    "gpt_neox": (("gpt_neox.layers.{}.attention.dense", 3, 12), ("gpt_neox.layers.{}.mlp.dense_4h_to_h", 36)),
    "gpt_oss": ((O_PROJ, 6, 8), None),
    "gptj": (("transformer.h.{}.attn.out_proj", 5, 4), ("transformer.h.{}.mlp.fc_out", 20)),
    "granite": ((O_PROJ, 6, 6), (DOWN_PROJ, 36)),
    "llama": ((O_PROJ, 6, 8), (DOWN_PROJ, 24)),
    "llama4_text": ((O_PROJ, 6, 8), ("model.layers.{}.feed_forward.down_proj", 24)),
    "minimax": ((O_PROJ, 6, 8), None),
    "mistral": ((O_PROJ, 6, 8), (DOWN_PROJ, 24)),
    "mixtral": ((O_PROJ, 6, 8), None),
    "mpt": (("transformer.blocks.{}.attn.out_proj", 5, 4), ("transformer.blocks.{}.ffn.down_proj", 20)),
    "olmo2": ((O_PROJ, 6, 6), (DOWN_PROJ, 36)),
    "opt": (("model.decoder.layers.{}.self_attn.out_proj", 5, 4), ("model.decoder.layers.{}.fc2", 20)),
    "persimmon": (("model.layers.{}.self_attn.dense", 6, 6), ("model.layers.{}.mlp.dense_4h_to_h", 36)),
    "phi": (("model.layers.{}.self_attn.dense", 6, 6), ("model.layers.{}.mlp.fc2", 36)),
    "phi3": ((O_PROJ, 6, 6), (DOWN_PROJ, 36)),
    "qwen2": ((O_PROJ, 6, 6), (DOWN_PROJ, 36)),
    "qwen3": ((O_PROJ, 6, 8), (DOWN_PROJ, 24)),
    "qwen3_next": ((O_PROJ, 6, 8), (DOWN_PROJ, 24)),
    "stablelm": ((O_PROJ, 6, 6), (DOWN_PROJ, 36)),
    "starcoder2": ((O_PROJ, 6, 6), ("model.layers.{}.mlp.c_proj", 36)),
}
EVERY = pytest.mark.parametrize("architecture", ARCHITECTURES)


def config_error(model: nn.Module, *args: object) -> str:
    with pytest.raises(InvalidValueError) as error:
        find_sites(model, *args)
    return str(error.value)


# On every architecture ----------------------------------------------------------------------------


def test_every_tiny_model_is_covered_and_small():
    assert set(EXPECTED) == set(ARCHITECTURES)
    for architecture in ARCHITECTURES:
        assert sum(parameter.numel() for parameter in tiny_model(architecture).parameters()) <= 100_000


@EVERY
def test_the_first_layer_has_the_expected_sites(architecture):
    model = tiny_model(architecture)
    (path, heads, d_head), mlp = EXPECTED[architecture]
    name = path.format(0)
    assert find_sites(model, "heads", [0]) == (Site(name, model.get_submodule(name), 0, heads, d_head, "input"),)
    if mlp:
        name = mlp[0].format(0)
        assert find_sites(model, "mlp", [0]) == (Site(name, model.get_submodule(name), 0, 1, mlp[1], "output"),)


@EVERY
@pytest.mark.parametrize("kind", ["heads", "mlp"])
def test_a_forward_pass_calls_each_site_once(architecture, kind):
    model = tiny_model(architecture)
    if kind == "mlp" and not EXPECTED[architecture][1]:
        assert "a mixture of experts has no last projection; edit the heads" in config_error(model, "mlp", 1.0)
        return
    sites = find_sites(model, kind, 1.0)
    seen = []
    for site in sites:
        site.module.register_forward_hook(lambda _, args, out, site=site: seen.append((site, args[0].shape, out.shape)))
    model(tokens(2, 7))
    assert [site for site, _, _ in seen] == list(sites)
    for site, shape_in, shape_out in seen:
        shape = shape_in if site.side == "input" else shape_out
        # Some models run the MLP on the tokens of all sequences at once.
        assert math.prod(shape[:-1]) == 2 * 7 and shape[-1] == site.n_heads * site.d_head


@EVERY
def test_sites_are_in_order_one_a_layer(architecture):
    model = tiny_model(architecture)
    assert n_layers(model) == LAYERS
    layers = [site.layer for site in find_sites(model, layers=1.0)]
    assert layers == ([0, 2] if architecture == "qwen3_next" else [0, 1, 2])


def test_a_head_is_a_contiguous_slice():
    """Head h of the eager attention is slice h of the projection's input."""
    model = tiny_model("llama")
    model.set_attn_implementation("eager")
    site = find_sites(model, "heads", [0])[0]
    seen = {}
    site.module.register_forward_pre_hook(lambda _, args: seen.update(z=args[0]))
    model.model.layers[0].self_attn.v_proj.register_forward_hook(lambda _, args, out: seen.update(v=out))
    attention = model(tokens(1, 5), output_attentions=True).attentions[0]
    values = seen["v"].unflatten(-1, (2, 8)).repeat_interleave(3, dim=2)
    heads = torch.einsum("bhqk,bkhd->bqhd", attention, values)
    assert torch.allclose(seen["z"].unflatten(-1, (site.n_heads, site.d_head)), heads, atol=1e-6)


def test_the_head_size_of_the_configuration_is_ignored():
    model = tiny_model("llama")
    model.config.head_dim = 999
    assert {site.d_head for site in find_sites(model)} == {8}


def test_the_number_of_heads_of_a_layer_has_precedence():
    model = tiny_model("llama")
    model.model.layers[1].self_attn.num_heads = 12
    assert [(site.n_heads, site.d_head) for site in find_sites(model, layers=1.0)] == [(6, 8), (12, 4), (6, 8)]


def test_the_text_model_of_a_multimodal_model():
    layers = dict(intermediate_size=28, num_hidden_layers=2)
    text = dict(vocab_size=300, hidden_size=24, num_attention_heads=6, num_key_value_heads=2, head_dim=8, **layers)
    vision = dict(hidden_size=12, num_attention_heads=3, image_size=28, patch_size=14, **layers)
    config = AutoConfig.for_model(
        "gemma3", text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=262
    )
    names = [site.name for site in find_sites(AutoModelForCausalLM.from_config(config), "heads", 1.0)]
    assert names == ["model.language_model.layers.0.self_attn.o_proj", "model.language_model.layers.1.self_attn.o_proj"]


def test_a_model_without_its_head_is_supported():
    assert find_sites(tiny_model("llama").model)[0].name == "layers.0.self_attn.o_proj"


def test_linear_attention_is_skipped():
    model = tiny_model("qwen3_next")
    assert [site.layer for site in find_sites(model, "heads", [0, 1])] == [0]
    message = config_error(model, "heads", [1])
    assert "Qwen3NextForCausalLM" in message and "in the selected layers" in message


# Mask -------------------------------------------------------------------------------


def test_the_mask_is_true_for_equal_sites():
    sites = find_sites(tiny_model("llama"), layers=1.0)
    for rotation, shape in ((ROTARY, (3, 6, 4)), (GIVENS, (3, 6, 7)), (SCALE, (3, 6, 1))):
        mask = angle_mask(sites, rotation.n_angles)
        assert mask.shape == shape and mask.all()


def test_gemma4_has_smaller_heads_in_sliding_layers():
    mask = angle_mask(find_sites(tiny_model("gemma4_text"), layers=1.0), ROTARY.n_angles)
    assert mask.shape == (3, 6, 6)
    assert mask.sum(dim=(1, 2)).tolist() == [6 * 4, 6 * 4, 6 * 6]
    assert not mask[0, :, 4:].any()


# Refusals -----------------------------------------------------------------------------------------

SMALL = dict(vocab_size=11, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
BART = dict(vocab_size=11, d_model=8, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=8, decoder_ffn_dim=8)


@pytest.mark.parametrize(
    "model",
    [
        lambda: MambaForCausalLM(MambaConfig(vocab_size=11, hidden_size=8, num_hidden_layers=1)),
        lambda: BertLMHeadModel(BertConfig(is_decoder=True, **SMALL)),
        lambda: T5ForConditionalGeneration(T5Config(vocab_size=11, d_model=8, d_ff=8, d_kv=4, num_layers=1)),
        lambda: BartForConditionalGeneration(BartConfig(encoder_attention_heads=2, decoder_attention_heads=2, **BART)),
        lambda: nn.Linear(2, 2),
    ],
    ids=["mamba", "bert", "t5", "bart", "linear"],
)
def test_an_unsupported_model_is_named(model):
    model = model()
    for kind in ("heads", "mlp"):
        assert type(model).__name__ in config_error(model, kind)
    with pytest.raises(InvalidValueError, match=type(model).__name__):
        n_layers(model)


def test_an_unknown_kind_is_refused():
    with pytest.raises(UnknownName) as error:
        find_sites(tiny_model("llama"), "head")
    assert error.value.hint == "did you mean 'heads'?"


def test_heads_must_divide_the_projection():
    model = tiny_model("llama")
    model.config.num_attention_heads = 7
    expected = "expected a number of heads that divides the 48 inputs of model.layers.0.self_attn.o_proj, got 7"
    assert config_error(model) == expected


def test_a_model_without_a_number_of_heads_is_refused():
    model = tiny_model("llama")
    model.config = SimpleNamespace(get_text_config=SimpleNamespace)
    assert config_error(model) == (
        "expected a number of heads (num_heads, num_attention_heads, n_heads, n_head) in LlamaAttention, got none"
    )


def test_a_bypassed_projection_is_refused():
    model = tiny_model("bloom")
    model.transformer.h[0].self_attention.slow_but_exact = True
    model.transformer.h[0].self_attention.pretraining_tp = 2
    assert config_error(model) == (
        "expected a projection that is called, got transformer.h.0.self_attention.dense, bypassed; "
        "set slow_but_exact=False"
    )
