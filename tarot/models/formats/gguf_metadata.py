"""Make a transformers configuration agree with everything that a GGUF file states, or refuse the file.

transformers reads some of a GGUF file's metadata and silently skips the rest: scaled rotary positions, rotary
dimensions, softcaps, epsilons, windows. The loaded model then differs from the file. This module compares every key of
the architecture with the configuration. A key that differs is applied if one attribute expresses it exactly. Any other
key, and any tensor that no weight of the model takes, is an error.

Sources: the keys are those of `gguf.constants.Keys`; what a missing key means follows llama.cpp's `llama-model.cpp`.
"""

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, PretrainedConfig

from tarot.edit.patch import restoring
from tarot.errors import TarotError

HARMLESS_PREFIXES = frozenset({"GGUF", "general", "tokenizer", "quantize", "imatrix", "mradermacher"})
"""Keys that describe the file or its origin, and no computation; `gguf_tokenizer` follows those of the tokenizer."""

_HINT = "load the checkpoint that the file was made from"
_HARMLESS = frozenset({"tensor_data_layout", "rope.scaling.finetuned"})

# Attributes that may hold a key's value; the first one that the configuration has counts.
_ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "vocab_size": ("vocab_size",),
    "context_length": ("max_position_embeddings", "seq_length"),
    "block_count": ("num_hidden_layers",),
    "embedding_length": ("hidden_size",),
    "feed_forward_length": ("n_inner", "ffn_hidden_size", "intermediate_size"),
    "expert_feed_forward_length": ("moe_intermediate_size", "intermediate_size"),
    "expert_shared_feed_forward_length": ("shared_expert_intermediate_size",),
    "expert_count": ("num_experts", "num_local_experts"),
    "expert_used_count": ("num_experts_per_tok",),
    "expert_weights_norm": ("norm_topk_prob",),
    "attention.head_count": ("num_attention_heads",),
    "attention.head_count_kv": ("num_kv_heads", "num_key_value_heads"),
    "attention.key_length": ("head_dim",),
    "attention.layer_norm_epsilon": ("norm_epsilon", "layer_norm_epsilon", "layer_norm_eps", "norm_eps"),
    "attention.layer_norm_rms_epsilon": ("rms_norm_eps", "norm_eps", "layer_norm_epsilon"),
    "attn_logit_softcapping": ("attn_logit_softcapping",),
    "final_logit_softcapping": ("final_logit_softcapping",),
    "use_parallel_residual": ("use_parallel_residual",),
    "shortconv.l_cache": ("conv_L_cache",),
    "ssm.conv_kernel": ("conv_kernel",),
    "ssm.state_size": ("state_size",),
    "ssm.time_step_rank": ("time_step_rank",),
    "ssm.inner_size": ("intermediate_size",),
}
# 0 switches these off or means that the model has none.
_OFF_AT_ZERO = frozenset(
    {
        "attention.clamp_kqv",
        "attention.head_count",
        "attention.head_count_kv",
        "attention.max_alibi_bias",
        "attention.scale",
        "attention.sliding_window",
        "attn_logit_softcapping",
        "embedding_scale",
        "expert_count",
        "expert_shared_count",
        "expert_used_count",
        "feed_forward_length",
        "final_logit_softcapping",
        "leading_dense_block_count",
        "logit_scale",
        "nextn_predict_layers",
        "pooling_type",
        "residual_scale",
        "ssm.dt_b_c_rms",
    }
)
# Keys that transformers reads itself under names of its own (`gguf_config_mapping`), by architecture.
_READ_BY_TRANSFORMERS = {
    "qwen35": frozenset({"full_attention_interval", "nextn_predict_layers", "block_count", "rope.dimension_sections"})
    | {f"ssm.{name}" for name in ("conv_kernel", "state_size", "group_count", "time_step_rank", "inner_size")},
    "lfm2": frozenset({"attention.head_count_kv"}),
}
_READ_BY_TRANSFORMERS["qwen35moe"] = _READ_BY_TRANSFORMERS["qwen35"]
# Model type and number of layers for which llama.cpp scales queries by hidden size / heads instead of the head size.
_SCALED_BY_HIDDEN_SIZE = {("gemma2", 46), ("gemma3_text", 62)}
_LLAMA3_BAND = (1.0, 4.0)  # low_freq_factor and high_freq_factor of every Llama 3
_DEFAULT_THETA = 10000.0  # llama.cpp's, where the file states none


@contextmanager
def cached_tensor_names() -> Iterator[None]:
    """Build gguf's table of tensor names once, instead of once for each module, which takes ten seconds."""
    import gguf

    build = gguf.get_tensor_name_map
    with restoring(functools.partial(setattr, gguf, "get_tensor_name_map", build)):
        gguf.get_tensor_name_map = functools.cache(build)
        yield


def apply_metadata(config: PretrainedConfig, path: Path) -> None:
    """Correct a configuration, as transformers reads it, to match the GGUF file.

    Raises:
        TarotError: transformers' model does not compute what a key or tensor of the file states; it is named.
    """
    from transformers.integrations.gguf.reader import read_gguf_metadata

    metadata, tensors = read_gguf_metadata(str(path))
    architecture = metadata["general.architecture"]
    if metadata.get("general.type", "model") != "model":
        _refuse(path, "general.type", metadata["general.type"])
    if metadata.get("split.count", 1) > 1:
        hint = "join its parts into one file: llama-gguf-split --merge FIRST-PART JOINED.gguf"
        raise TarotError(f"a complete model in {path}", f"one of {metadata['split.count']} parts (split.count)", hint)
    stated = {}
    for key, value in metadata.items():
        prefix, _, name = key.partition(".")
        if prefix == architecture:
            stated[name] = value
        elif prefix not in HARMLESS_PREFIXES | {"split"}:
            _refuse(path, key, value)
    _apply_rotary(config, stated, tensors, path, architecture)
    _apply_attention(config, stated, path, architecture)
    read = _READ_BY_TRANSFORMERS.get(architecture, frozenset())
    for name, value in sorted(stated.items()):  # key_length comes before value_length, which must equal it
        if name not in read and not _apply(config, name, value):
            _refuse(path, f"{architecture}.{name}", value)
    _check_tensors(config, tensors, path, architecture)


def _refuse(path: Path, name: str, value: object) -> None:
    """Raise TarotError for a key or tensor."""
    raise TarotError(f"a GGUF file whose model transformers can compute in {path}", f"{name} = {value!r}", _HINT)


def _same(left: Any, right: Any) -> bool:
    """Whether two values are equal, floats within the precision of the file."""
    if isinstance(left, float) and isinstance(right, int | float):
        return math.isclose(left, right, rel_tol=1e-6)  # GGUF holds 32 bits
    return bool(left == right)


def _apply(config: PretrainedConfig, name: str, value: Any) -> bool:
    """Set the attribute that holds a key's value; return False if the configuration cannot express it."""
    if name in _HARMLESS or (name in _OFF_AT_ZERO and not value and not getattr(config, name, None)):
        return True
    if isinstance(value, list) and value and len(set(value)) == 1:
        value = value[0]  # one number a layer
    derived = _derived(config, name)
    if derived is not None and _same(value, derived):
        return True
    attribute = next((each for each in _ATTRIBUTES.get(name, ()) if hasattr(config, each)), None)
    if attribute is None or isinstance(value, list):
        # Without an attribute for it, the length limits nothing: positions are not learned embeddings.
        return name == "context_length"
    if name.endswith("softcapping"):
        value = value or None
    if not _same(value, getattr(config, attribute)):
        setattr(config, attribute, value)
    return True


def _derived(config: PretrainedConfig, name: str) -> Any:
    """Return the value that the model uses for a key without an attribute of its own; None if unknown."""
    heads, hidden = getattr(config, "num_attention_heads", None), getattr(config, "hidden_size", None)
    if not heads or not hidden:
        return None
    if name in ("attention.key_length", "attention.value_length"):
        return getattr(config, "head_dim", None) or hidden // heads
    if name == "feed_forward_length":
        return getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * hidden
    if name == "attention.head_count_kv" and not hasattr(config, "num_key_value_heads"):
        return heads
    if name == "attention.max_alibi_bias" and config.model_type == "bloom":
        return 8.0
    return None


def _apply_attention(config: PretrainedConfig, stated: dict[str, Any], path: Path, architecture: str) -> None:
    """Apply the keys of causality, sliding windows and scale, and remove them from `stated`."""
    if not stated.pop("attention.causal", True):
        raise TarotError("a causal language model", f"{architecture}.attention.causal = False in {path}")
    if pattern := stated.pop("attention.sliding_window_pattern", None):
        layers = config.num_hidden_layers
        sliding = pattern if isinstance(pattern, list) else [(i + 1) % pattern != 0 for i in range(layers)]
        types = ["sliding_attention" if each else "full_attention" for each in sliding]
        if getattr(config, "layer_types", None) is None or len(types) != layers:
            _refuse(path, f"{architecture}.attention.sliding_window_pattern", pattern)
        config.layer_types = types
    if window := stated.pop("attention.sliding_window", 0):
        if hasattr(config, "sliding_window") and "sliding_attention" in (
            getattr(config, "layer_types", None) or ["sliding_attention"]
        ):
            config.sliding_window = window
        elif window < getattr(config, "max_position_embeddings", math.inf):
            _refuse(path, f"{architecture}.attention.sliding_window", window)
    scale = stated.pop("attention.scale", 0.0)
    if hasattr(config, "query_pre_attn_scalar"):
        by_hidden_size = (config.model_type, config.num_hidden_layers) in _SCALED_BY_HIDDEN_SIZE
        head = stated.get("attention.key_length", config.head_dim)
        scalar = config.hidden_size // config.num_attention_heads if by_hidden_size else head
        config.query_pre_attn_scalar = round(scale**-2, 3) if scale else scalar
    elif scale and not math.isclose(scale, _derived(config, "attention.key_length") ** -0.5, rel_tol=1e-5):
        _refuse(path, f"{architecture}.attention.scale", scale)


def _apply_rotary(
    config: PretrainedConfig, stated: dict[str, Any], tensors: Sequence[str], path: Path, architecture: str
) -> None:
    """Apply the keys and tensors of rotary positions as `rope_parameters`, and remove them from `stated`."""
    keys = {name: stated.pop(name) for name in list(stated) if name.startswith("rope.")}
    keys.pop("rope.scaling.finetuned", None)
    factors = {name: _tensor(path, name) for name in tensors if name.startswith("rope_f")}
    parameters = getattr(config, "rope_parameters", None)
    if not parameters:
        for name, value in (keys | factors).items():
            if np.any(np.asarray(value) != 0):
                _refuse(path, f"{architecture}.{name}" if name in keys else name, value)
        return
    # Sliding-window layers have frequencies of their own, which no scaling changes.
    layered = "full_attention" in parameters
    main = parameters["full_attention"] if layered else parameters
    main["rope_theta"] = float(keys.pop("rope.freq_base", _DEFAULT_THETA))
    if (local := keys.pop("rope.freq_base_swa", None)) is not None:
        if layered:
            parameters["sliding_attention"]["rope_theta"] = float(local)
        elif not _same(float(local), main["rope_theta"]):
            _refuse(path, f"{architecture}.rope.freq_base_swa", local)
    head = stated.get("attention.key_length") or _derived(config, "attention.key_length")
    rotated = keys.pop("rope.dimension_count", None) or head
    if "partial_rotary_factor" in main and not layered:
        main["partial_rotary_factor"] = rotated / head
    sections = [each for each in keys.pop("rope.dimension_sections", []) if each]
    if sections and sections != list(main.get("mrope_section", [])):
        _refuse(path, f"{architecture}.rope.dimension_sections", sections)
    if int(head * main.get("partial_rotary_factor", 1.0)) != rotated:
        _refuse(path, f"{architecture}.rope.dimension_count", rotated)
    kind, scaling = _scaling(keys, factors, main["rope_theta"], rotated, config.max_position_embeddings)
    for name in factors.keys() & _USED_FACTORS.get(kind, frozenset()):
        del factors[name]
    # `rope_freqs` of ones changes nothing.
    left = {name: value for name, value in factors.items() if not np.allclose(value, 1)}
    for name, value in (left | keys).items():
        _refuse(path, name if name in left else f"{architecture}.{name}", value)
    if kind == main.get("rope_type", "default") == "default":
        return
    known = {"llama3", "linear", "yarn"} if not layered else {"linear"}
    known = {"longrope"} if config.model_type == "phi3" else known
    if config.model_type == "gpt_oss" or kind not in known | {"default"}:
        key = f"{architecture}.rope.scaling.type"
        name = next((each for each in tensors if each in _USED_FACTORS.get(kind, ())), key)
        _refuse(path, name, kind)
    main.update({"rope_type": kind} | scaling)
    if hasattr(config, "original_max_position_embeddings"):  # it overrides the one in `rope_parameters`
        config.original_max_position_embeddings = scaling.get("original_max_position_embeddings")


_USED_FACTORS: Mapping[str, frozenset[str]] = {
    "llama3": frozenset({"rope_freqs.weight"}),
    "longrope": frozenset({"rope_factors_long.weight", "rope_factors_short.weight"}),
}
# Values with which these keys change nothing.
_NEUTRAL: Mapping[str, float] = {
    "rope.scaling.alpha": 0.0,
    "rope.scaling.attn_factor": 1.0,
    "rope.scaling.yarn_attn_factor": 1.0,
    "rope.scaling.yarn_ext_factor": 1.0,
    "rope.scaling.yarn_log_multiplier": 0.0,
}


def _scaling(
    keys: dict[str, Any], factors: Mapping[str, np.ndarray], theta: float, rotated: int, context: int
) -> tuple[str, dict[str, Any]]:
    """Return type and parameters of the scaling in transformers' names; remove the keys that it uses."""
    kind = keys.pop("rope.scaling.type", None)
    legacy = keys.pop("rope.scale_linear", 0)
    factor = keys.pop("rope.scaling.factor", 0) or legacy or 1.0
    original = int(keys.pop("rope.scaling.original_context_length", 0) or context)
    for name, neutral in _NEUTRAL.items():
        if name in keys and keys[name] == neutral:
            del keys[name]
    if _USED_FACTORS["longrope"] <= factors.keys():
        longrope = {
            "short_factor": factors["rope_factors_short.weight"].tolist(),
            "long_factor": factors["rope_factors_long.weight"].tolist(),
            "original_max_position_embeddings": original,
            "factor": context / original,
        }
        if "rope.scaling.attn_factor" in keys:
            longrope["attention_factor"] = keys.pop("rope.scaling.attn_factor")
        return "longrope", longrope
    if kind == "yarn":
        betas = {
            name: float(keys.pop(f"rope.scaling.yarn_{name}", default))
            for name, default in (("beta_fast", 32.0), ("beta_slow", 1.0))
        }
        return "yarn", {"factor": float(factor), "original_max_position_embeddings": original} | betas
    if kind in (None, "linear") and factor != 1:
        return "linear", {"factor": float(factor)}  # llama.cpp's default kind
    if kind not in (None, "none", "linear"):
        return str(kind), {}
    divisors = factors.get("rope_freqs.weight")
    if divisors is not None and not np.allclose(divisors, 1) and (llama3 := _fit_llama3(divisors, theta, rotated)):
        return "llama3", llama3
    return "default", {}


def _fit_llama3(divisors: np.ndarray, theta: float, rotated: int) -> dict[str, Any] | None:
    """Find the parameters of Llama 3's scaling that give these divisors of the frequencies; None if none do.

    The frequency of wavelength w is divided by `1 / ((1 - s) / factor + s)`, where
    `s = (original / w - low) / (high - low)`, clipped to [0, 1]. Any `original` that agrees with all divisors gives the
    same model.
    """
    low, high = _LLAMA3_BAND
    factor = float(divisors.max())
    waves = 2 * math.pi * theta ** (np.arange(0, rotated, 2) / rotated)
    if len(waves) != len(divisors) or factor <= 1:
        return None
    shares = (1 / divisors - 1 / factor) / (1 - 1 / factor)
    between = (shares > 1e-6) & (shares < 1 - 1e-6)
    if between.any():
        original = float(np.median(waves[between] * (low + shares[between] * (high - low))))
    else:
        unscaled, scaled = waves[shares >= 1 - 1e-6], waves[shares <= 1e-6]
        least = high * unscaled.max(initial=0.0)
        original = math.sqrt(max(least, 1.0) * low * scaled.min())
    for candidate in (round(original), original):
        share = np.clip((candidate / waves - low) / (high - low), 0, 1)
        if np.allclose(1 / ((1 - share) / factor + share), divisors, rtol=1e-4):
            bands = {"low_freq_factor": low, "high_freq_factor": high}
            return {"factor": factor, "original_max_position_embeddings": candidate} | bands
    return None


def _tensor(path: Path, name: str) -> np.ndarray:
    """Return one small tensor of the file, flat and in 64 bits."""
    import gguf

    tensor = next(each for each in gguf.GGUFReader(path).tensors if each.name == name)
    return np.asarray(gguf.dequantize(tensor.data, tensor.tensor_type), dtype=np.float64).reshape(-1)


def _check_tensors(config: PretrainedConfig, tensors: Sequence[str], path: Path, architecture: str) -> None:
    """Raise TarotError for a tensor that transformers would skip."""
    from transformers.integrations.gguf.utils import is_gguf_arch_supported
    from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor, get_gguf_hf_weights_map

    if is_gguf_arch_supported(architecture) or not tensors:
        return  # those loaders report the tensors that they skip
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    processor = TENSOR_PROCESSORS.get(architecture, TensorProcessor)(config=config.to_dict())
    with cached_tensor_names():
        taken = get_gguf_hf_weights_map(model, processor)
    for name in tensors:
        if not {name, name.removesuffix(".weight")} & taken.keys() and not name.startswith("rope_f"):
            expected = f"only tensors that {type(model).__name__} has in {path}"
            raise TarotError(expected, name, _HINT)
