"""Rotary embeddings whose frequencies depend on the length of the whole pass.

LongRoPE has two sets of factors, and uses the long set once the last position of a pass reaches
`original_max_position_embeddings`. Dynamic NTK scaling computes its frequencies from the length of every pass beyond
the model's own, and keeps them for later passes. With such a model, the score of a text depends on the texts that it
is padded with, and keys that a shorter pass cached do not fit a longer one.

Sources: Ding et al., "LongRoPE", arXiv 2402.13753; `transformers.modeling_rope_utils.dynamic_rope_update`.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from transformers import PreTrainedModel

# `su` is the name that Phi-3's first files have for LongRoPE.
LONGROPE = ("longrope", "su")
CACHED_LENGTH = "max_seq_len_cached"


def constant_rope_length(model: PreTrainedModel) -> float:
    """Return the most tokens of a pass up to which every pass has the same rotary frequencies.

    Infinity for most models. 0 where the frequencies depend on the length and the configuration does not say how.
    """
    lengths = [*_from_configuration(model.config.to_dict())]
    if lengths:
        # A model keeps the length that it was built with when its configuration changes.
        lengths += [vars(each).get("original_max_seq_len", math.inf) for each in model.modules()]
    return min(lengths, default=math.inf)


def pass_group(length: int, constant: float) -> int:
    """Group sequences by the rotary frequencies of a pass of their length: those of one group may share a pass.

    All sequences of up to `constant` tokens are in group 0. A longer one shares a pass with those of its own length.
    """
    return 0 if length <= constant else length


@contextmanager
def initial_rope(model: PreTrainedModel) -> Iterator[None]:
    """Run the body, which is one forward pass, with the frequencies of a model that has run no other pass before."""
    _reset(model)
    try:
        yield
    finally:
        _reset(model)


def _from_configuration(config: Mapping[str, Any]) -> Iterator[float]:
    """Yield the lengths up to which frequencies are constant, for the length-dependent ones of all parts of a model."""
    for name, value in config.items():
        for part in value if isinstance(value, list | tuple) else [value]:
            if isinstance(part, Mapping):
                yield from _from_rope(part, config) if "rope" in name else _from_configuration(part)


def _from_rope(rope: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[float]:
    """Yield the same for the parameters of one embedding, or for those of each layer type."""
    kind = str(rope.get("rope_type", rope.get("type", "")))
    # PhiMoE scales attention by `long_mscale` beyond the switch, whatever the type.
    if "dynamic" in kind or kind in LONGROPE or any(key.startswith("long_") for key in rope):
        yield min(_lengths(rope, config), default=0)
    for part in rope.values():
        if isinstance(part, Mapping):
            yield from _from_rope(part, config)


def _lengths(*parts: Mapping[str, Any]) -> Iterable[int]:
    names = ("original_max_position_embeddings", "max_position_embeddings")
    return [part[name] for part in parts for name in names if isinstance(part.get(name), int)]


def _reset(model: PreTrainedModel) -> None:
    for module in model.modules():
        for name in [name for name in vars(module) if name.endswith(CACHED_LENGTH)]:
            if getattr(module, name) != module.original_max_seq_len:
                setattr(module, name, module.original_max_seq_len)
                layer_type = name.removesuffix(CACHED_LENGTH)
                frequencies = getattr(module, f"{layer_type}inv_freq")
                original = getattr(module, f"{layer_type}original_inv_freq")
                module.register_buffer(f"{layer_type}inv_freq", original.to(frequencies.device), persistent=False)
