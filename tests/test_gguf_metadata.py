"""GGUF metadata: every key is applied or named in an error, and scores are those of the original checkpoint."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint import byte_model, write_gguf, write_gguf_metadata
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import tokens
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    LlamaConfig,
    Phi3Config,
    PretrainedConfig,
    Qwen2Config,
    StableLmConfig,
    Starcoder2Config,
)

from tarot.errors import TarotError
from tarot.models.formats.gguf_metadata import apply_metadata
from tarot.models.load import load_model

THETA = 10000.0


def llama3_divisors(
    *, head: int, theta: float, factor: float, original: int, low: float = 1.0, high: float = 4.0
) -> list[float]:
    """Return the tensor `rope_freqs.weight` as llama.cpp's converter computes it."""
    divisors = []
    for i in range(0, head, 2):
        wave = 2 * math.pi * theta ** (i / head)
        if wave < original / high:
            divisors.append(1.0)
        elif wave > original / low:
            divisors.append(factor)
        else:
            share = (original / wave - low) / (high - low)
            divisors.append(1 / ((1 - share) / factor + share))
    return divisors


SCALINGS: dict[str, tuple[dict[str, Any], dict[str, list[float]], dict[str, Any]]] = {
    # metadata, tensors, and the equivalent rope_parameters of transformers
    "linear": (
        {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0},
        {},
        {"rope_type": "linear", "factor": 4.0},
    ),
    "linear by default": ({"llama.rope.scaling.factor": 4.0}, {}, {"rope_type": "linear", "factor": 4.0}),
    "linear by its old name": ({"llama.rope.scale_linear": 4.0}, {}, {"rope_type": "linear", "factor": 4.0}),
    "none": (
        {"llama.rope.scaling.type": "none", "llama.rope.scaling.factor": 4.0},
        {},
        {"rope_type": "default"},
    ),
    "yarn": (
        {
            "llama.rope.scaling.type": "yarn",
            "llama.rope.scaling.factor": 4.0,
            "llama.rope.scaling.original_context_length": 256,
            "llama.rope.scaling.yarn_beta_fast": 16.0,
            "llama.rope.scaling.yarn_beta_slow": 2.0,
        },
        {},
        {
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 256,
            "beta_fast": 16.0,
            "beta_slow": 2.0,
        },
    ),
    "llama3": (
        {},
        {"rope_freqs.weight": llama3_divisors(head=8, theta=THETA, factor=8.0, original=256)},
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 256,
        },
    ),
    "another base": ({"llama.rope.freq_base": 500.0}, {}, {"rope_type": "default", "rope_theta": 500.0}),
}


@pytest.mark.parametrize("name", SCALINGS)
def test_a_gguf_file_scores_as_its_scaled_checkpoint(name: str, tmp_path: Path) -> None:
    metadata, tensors, parameters = SCALINGS[name]
    path = write_gguf(byte_model(layers=2), tmp_path / "byte.gguf", metadata=metadata, tensors=tensors)
    loaded = load_model(str(path), device="cpu").model
    config = LlamaConfig(
        **byte_model(layers=2).config.to_dict() | {"rope_parameters": {"rope_theta": THETA} | parameters}
    )
    expected = AutoModelForCausalLM.from_config(config).eval()
    expected.load_state_dict(loaded.state_dict())
    ids = tokens(1, 300)
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, expected(ids).logits, rtol=1e-4, atol=1e-4)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    head=st.sampled_from([8, 64, 128]),
    theta=st.sampled_from([1e4, 5e5]),
    factor=st.floats(1.5, 64),
    original=st.sampled_from([256, 4096, 8192]),
)
def test_llama_3_divisors_give_back_their_frequencies(
    tmp_path: Path, head: int, theta: float, factor: float, original: int
) -> None:
    divisors = llama3_divisors(head=head, theta=theta, factor=factor, original=original)
    metadata = {"llama.rope.freq_base": theta, "llama.attention.key_length": head}
    path = write_gguf_metadata(tmp_path / "llama.gguf", "llama", metadata, {"rope_freqs.weight": divisors})
    config = LlamaConfig(hidden_size=4 * head, num_attention_heads=4, head_dim=head, num_hidden_layers=1, vocab_size=8)
    apply_metadata(config, path)
    parameters = {
        name: value for name, value in config.rope_parameters.items() if name not in ("rope_theta", "rope_type")
    }
    again = llama3_divisors(
        head=head,
        theta=config.rope_parameters["rope_theta"],
        factor=parameters.get("factor", 1.0),
        original=parameters.get("original_max_position_embeddings", original),
    )
    assert again == pytest.approx(divisors, rel=1e-3)


def configured(
    config: PretrainedConfig, path: Path, architecture: str, metadata: dict[str, Any], **tensors: Any
) -> Any:
    apply_metadata(config, write_gguf_metadata(path / "file.gguf", architecture, metadata, tensors.get("tensors", {})))
    return config


def test_gemma_3_scales_its_global_layers_alone(tmp_path: Path) -> None:
    metadata = {
        "gemma3.rope.freq_base": 1e6,
        "gemma3.rope.scaling.type": "linear",
        "gemma3.rope.scaling.factor": 8.0,
        "gemma3.rope.freq_base_swa": 20000.0,
        "gemma3.attention.key_length": 256,
        "gemma3.attention.value_length": 256,
    }
    config = configured(Gemma3TextConfig(num_hidden_layers=6), tmp_path, "gemma3", metadata)
    assert config.rope_parameters["full_attention"] == {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}
    assert config.rope_parameters["sliding_attention"] == {"rope_type": "default", "rope_theta": 20000.0}


def test_phi_3_gets_its_long_and_short_factors(tmp_path: Path) -> None:
    metadata = {"phi3.rope.scaling.original_context_length": 64, "phi3.rope.scaling.attn_factor": 1.25}
    short, long = [1.0, 1.5, 2.0, 2.5], [2.0, 3.0, 4.0, 5.0]
    tensors = {"rope_factors_short.weight": short, "rope_factors_long.weight": long}
    config = Phi3Config(hidden_size=16, num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=256)
    parameters = configured(config, tmp_path, "phi3", metadata, tensors=tensors).rope_parameters
    assert parameters["rope_type"] == "longrope"
    assert (parameters["short_factor"], parameters["long_factor"]) == (short, long)
    assert (parameters["original_max_position_embeddings"], parameters["attention_factor"]) == (64, 1.25)


@pytest.mark.parametrize(
    ("architecture", "config", "metadata", "expected"),
    [
        ("starcoder2", Starcoder2Config(), {"rope.freq_base": 5e5}, lambda c: c.rope_parameters["rope_theta"] == 5e5),
        (
            "stablelm",
            StableLmConfig(hidden_size=64, num_attention_heads=2),
            {"rope.dimension_count": 16},
            lambda c: c.rope_parameters["partial_rotary_factor"] == 0.5,
        ),
        ("gemma2", Gemma2Config(), {"attn_logit_softcapping": 20.0}, lambda c: c.attn_logit_softcapping == 20.0),
        ("gemma2", Gemma2Config(), {"final_logit_softcapping": 0.0}, lambda c: c.final_logit_softcapping is None),
        (
            "gemma2",  # 27B scales queries by hidden size / heads
            Gemma2Config(num_hidden_layers=46, hidden_size=4608, num_attention_heads=32, head_dim=128),
            {},
            lambda c: c.query_pre_attn_scalar == 144,
        ),
        ("gemma3", Gemma3TextConfig(), {"attention.sliding_window": 99}, lambda c: c.sliding_window == 99),
        (
            "gemma3",
            Gemma3TextConfig(num_hidden_layers=3),
            {"attention.sliding_window_pattern": [True, False, True]},
            lambda c: c.layer_types == ["sliding_attention", "full_attention", "sliding_attention"],
        ),
        ("phi3", Phi3Config(), {"attention.sliding_window": 2047}, lambda c: c.sliding_window == 2047),
        ("llama", LlamaConfig(), {"attention.layer_norm_rms_epsilon": 0.125}, lambda c: c.rms_norm_eps == 0.125),
        ("qwen2", Qwen2Config(), {"attention.head_count_kv": 4}, lambda c: c.num_key_value_heads == 4),
        ("llama", LlamaConfig(), {"attention.sliding_window": 10**6, "expert_count": 0}, lambda c: True),
    ],
)  # fmt: skip
def test_a_key_that_transformers_skips_is_applied(
    architecture: str, config: PretrainedConfig, metadata: dict[str, Any], expected: Any, tmp_path: Path
) -> None:
    written = {f"{architecture}.{name}": value for name, value in metadata.items()}
    changed = type(config)(**config.to_dict())
    assert expected(configured(changed, tmp_path, architecture, written))


@pytest.mark.parametrize(
    "metadata",
    [
        {"llama.attention.causal": False},
        {"llama.attention.clamp_kqv": 8.0},
        {"llama.attention.scale": 0.5},
        {"llama.attention.sliding_window": 16},
        {"llama.attention.temperature_scale": 0.1},
        {"llama.attention.value_length": 4},
        {"llama.attn_logit_softcapping": 50.0},
        {"llama.diffusion_steps": 4},
        {"llama.embedding_scale": 12.0},
        {"llama.expert_count": 4},
        {"llama.final_logit_softcapping": 30.0},
        {"llama.logit_scale": 0.0625},
        {"llama.residual_scale": 0.22},
        {"llama.rope.dimension_count": 4, "llama.attention.key_length": 8},
        {"llama.rope.dimension_sections": [1, 1, 2, 0]},
        {"llama.rope.freq_base_swa": 500.0},
        {"llama.rope.scaling.alpha": 1000.0},
        {"llama.rope.scaling.attn_factor": 2.0},
        {"llama.rope.scaling.type": "longrope", "llama.rope.scaling.factor": 4.0},
        {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.yarn_log_multiplier": 0.1},
        {"llama.some_new_key": 1},
        {"diffusion.shift_logits": True},
        {"general.type": "adapter"},
        {"split.count": 2},
    ],
    ids=lambda metadata: next(iter(metadata)),
)
def test_a_key_that_cannot_be_applied_is_named(metadata: dict[str, Any], tmp_path: Path) -> None:
    path = write_gguf_metadata(tmp_path / "byte.gguf", "llama", metadata)
    with pytest.raises(TarotError) as error:
        apply_metadata(byte_model(layers=1).config, path)
    assert any(key in str(error.value) for key in metadata)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("rope_freqs.weight", [1.0, 3.0, 2.0, 9.0]),
        ("rope_factors_long.weight", [2.0, 2.0, 2.0, 2.0]),
        ("blk.0.attn_q.bias", [0.0] * 24),
        ("blk.0.attn_q_norm.weight", [1.0] * 8),
        ("cls.weight", [1.0]),
    ],
)
def test_a_tensor_without_a_weight_is_named(name: str, values: list[float], tmp_path: Path) -> None:
    path = write_gguf_metadata(tmp_path / "byte.gguf", "llama", {}, {name: values})
    with pytest.raises(TarotError, match=name):
        apply_metadata(byte_model(layers=1).config, path)


def test_keys_that_describe_the_file_change_nothing(tmp_path: Path) -> None:
    metadata = {
        "general.name": "any",
        "general.sampling.temp": 0.5,
        "quantize.imatrix.entries_count": 3,
        "mradermacher.quantized_by": "x",
        "llama.tensor_data_layout": "Meta AI original pth",
        "llama.rope.scaling.finetuned": True,
        "llama.attention.causal": True,
    }
    path = write_gguf(byte_model(layers=1), tmp_path / "byte.gguf", metadata=metadata)
    config = AutoConfig.from_pretrained(tmp_path, gguf_file=path.name)
    before = config.to_dict()
    apply_metadata(config, path)
    assert config.to_dict() == before
