"""Tiny random models of many architectures: real transformers code, with sizes that differ between dimensions."""

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

VOCABULARY = 61
LAYERS = 3

# Head sizes are even, so that every rotation fits. Where an architecture allows it, heads do not add up to the hidden
# size.
_GROUPED: dict[str, Any] = dict(
    vocab_size=VOCABULARY,
    hidden_size=24,
    intermediate_size=28,
    num_hidden_layers=LAYERS,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=64,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
_HIDDEN_SIZE = {key: value for key, value in _GROUPED.items() if key != "head_dim"} | dict(
    hidden_size=36, num_attention_heads=6, num_key_value_heads=3
)
_MULTI_HEAD = _HIDDEN_SIZE | dict(num_key_value_heads=6)
_SLIDING = dict(sliding_window=4, layer_types=["sliding_attention", "sliding_attention", "full_attention"])
_GPT: dict[str, Any] = dict(
    vocab_size=VOCABULARY,
    n_embd=20,
    n_layer=LAYERS,
    n_head=5,
    n_positions=64,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)

_CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "bitnet": _GROUPED | dict(hidden_size=48),
    "bloom": dict(vocab_size=VOCABULARY, hidden_size=20, n_layer=LAYERS, n_head=5, pad_token_id=0),
    "codegen": _GPT | dict(n_embd=32, n_head=4, rotary_dim=4, n_ctx=64),
    "cohere": _MULTI_HEAD | dict(num_key_value_heads=2),
    "cohere2": _GROUPED | _SLIDING,
    "deepseek_v3": _GROUPED
    | dict(
        num_key_value_heads=6,
        head_dim=4,
        q_lora_rank=None,
        kv_lora_rank=8,
        qk_rope_head_dim=4,
        qk_nope_head_dim=4,
        v_head_dim=10,
        first_k_dense_replace=1,
        n_routed_experts=4,
        n_group=1,
        topk_group=1,
        num_experts_per_tok=2,
        moe_intermediate_size=8,
    ),
    "diffllama": _GROUPED,
    "falcon": dict(
        vocab_size=VOCABULARY,
        hidden_size=20,
        num_hidden_layers=LAYERS,
        num_attention_heads=5,
        pad_token_id=0,
        bos_token_id=1,
    ),
    "gemma": _GROUPED,
    "gemma2": _GROUPED | _SLIDING,
    "gemma3_text": _GROUPED | _SLIDING,
    "gemma4_text": _GROUPED
    | _SLIDING
    | dict(
        global_head_dim=12, vocab_size_per_layer_input=VOCABULARY, hidden_size_per_layer_input=4, num_kv_shared_layers=0
    ),
    "gpt2": _GPT,
    "gpt_bigcode": _GPT,
    "gpt_neo": dict(
        vocab_size=VOCABULARY,
        hidden_size=20,
        num_layers=LAYERS,
        num_heads=5,
        attention_types=[[["global", "local", "global"], 1]],
        window_size=4,
        max_position_embeddings=64,
        bos_token_id=1,
        eos_token_id=2,
    ),
    "gpt_neox": _MULTI_HEAD | dict(num_attention_heads=3),
    "gpt_oss": _GROUPED | _SLIDING | dict(num_local_experts=3, num_experts_per_tok=2),
    "gptj": _GPT | dict(rotary_dim=4),
    "granite": _HIDDEN_SIZE,
    "llama": _GROUPED,
    "llama4_text": _GROUPED
    | dict(num_local_experts=2, intermediate_size_mlp=28, interleave_moe_layer_step=2, attention_chunk_size=4),
    "minimax": _GROUPED
    | dict(num_local_experts=3, block_size=4, layer_types=["full_attention", "linear_attention", "full_attention"]),
    "mistral": _GROUPED | dict(sliding_window=4),
    "mixtral": _GROUPED | dict(num_local_experts=3),
    "mpt": dict(vocab_size=VOCABULARY, d_model=20, n_layers=LAYERS, n_heads=5, max_seq_len=64),
    "olmo2": _HIDDEN_SIZE,
    "opt": dict(
        vocab_size=VOCABULARY,
        hidden_size=20,
        ffn_dim=28,
        num_hidden_layers=LAYERS,
        num_attention_heads=5,
        max_position_embeddings=64,
        word_embed_proj_dim=20,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    ),
    "persimmon": _MULTI_HEAD | dict(partial_rotary_factor=1.0),
    "phi": _HIDDEN_SIZE | dict(partial_rotary_factor=1.0),
    "phi3": _HIDDEN_SIZE,
    "qwen2": _HIDDEN_SIZE,
    "qwen3": _GROUPED,
    "qwen3_next": _GROUPED
    | dict(
        layer_types=["full_attention", "linear_attention", "full_attention"],
        linear_key_head_dim=4,
        linear_value_head_dim=4,
        linear_num_key_heads=2,
        linear_num_value_heads=2,
        num_experts=3,
        num_experts_per_tok=2,
        moe_intermediate_size=8,
        shared_expert_intermediate_size=8,
        mlp_only_layers=[0],
    ),
    "stablelm": _HIDDEN_SIZE | dict(partial_rotary_factor=1.0),
    "starcoder2": _HIDDEN_SIZE | dict(sliding_window=4),
}
ARCHITECTURES = tuple(_CONFIGURATIONS)


def tiny_model(
    architecture: str, *, seed: int = 0, dtype: torch.dtype = torch.float32, **config: Any
) -> PreTrainedModel:
    """Return a model of that architecture in evaluation mode, without gradients, of at most 100,000 parameters.

    Args:
        architecture: a name in `ARCHITECTURES`.
        seed: decides all weights.
        dtype: type of the weights.
        config: replaces entries of the architecture's configuration.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        configuration = AutoConfig.for_model(architecture, **_CONFIGURATIONS[architecture] | config)
        model = AutoModelForCausalLM.from_config(configuration).to(dtype).eval().requires_grad_(False)
        for parameter in model.parameters():
            # Initial biases and norms are zeros and ones, which would hide mistakes; and heads must matter.
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def tokens(batch: int, length: int, *, seed: int = 0) -> torch.Tensor:
    """Return `batch x length` random token ids without special tokens."""
    return torch.randint(3, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed))
