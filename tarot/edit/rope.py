"""Rotary embeddings whose frequencies depend on the length of the pass.

LongRoPE has two sets of factors, and uses the long set once the last position of a pass reaches
`original_max_position_embeddings`. Dynamic NTK scaling computes its frequencies from the length of every pass beyond
the model's own, and keeps them for later passes. With such a model, the score of a text depends on the texts that it
is padded with, and keys that a shorter pass cached are wrong in a longer one.

Sources: Ding et al., "LongRoPE", arXiv 2402.13753; `transformers.modeling_rope_utils.dynamic_rope_update`.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from transformers import PreTrainedModel

from tarot.edit.patch import restoring

# `su` is the name that Phi-3's first files have for LongRoPE.
LONGROPE = ("longrope", "su")
CACHED_LENGTH = "max_seq_len_cached"


def constant_rope_length(model: PreTrainedModel) -> float:
    """Return the number of tokens up to which all passes have the same rotary frequencies.

    Returns:
        Infinity for most models; 0 where the frequencies depend on the length and the configuration does not say how.
    """
    lengths: list[float] = [*_from_configuration(model.config.to_dict())]
    if lengths:
        # A model keeps the length that it was built with when its configuration changes.
        lengths += [vars(each).get("original_max_seq_len", math.inf) for each in model.modules()]
    return float(min(lengths, default=math.inf))


def pass_group(length: int, constant: float) -> int:
    """Return the group of a sequence: sequences of one group have the same rotary frequencies and may share a pass.

    Args:
        length: tokens of the sequence.
        constant: what `constant_rope_length` returns. Sequences up to it are in group 0, longer ones in a group of
            their own length.
    """
    return 0 if length <= constant else length


@contextmanager
def initial_rope(model: PreTrainedModel) -> Iterator[None]:
    """Run the body, one forward pass, with the rotary frequencies of a newly loaded model; restore them on exit."""
    with restoring(partial(_reset, model)):
        _reset(model)
        yield


def _from_configuration(config: Mapping[str, Any]) -> Iterator[float]:
    """Yield, for each length-dependent embedding of all parts of a model, the length up to which it is constant."""
    for name, value in config.items():
        for part in value if isinstance(value, list | tuple) else [value]:
            if isinstance(part, Mapping):
                yield from _from_rope(part, config) if "rope" in name else _from_configuration(part)


def _from_rope(rope: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[float]:
    """Yield that length for the parameters of one embedding, or of each layer type's."""
    kind = str(rope.get("rope_type", rope.get("type", "")))
    # PhiMoE scales attention by `long_mscale` beyond the switch, whatever the type.
    if "dynamic" in kind or kind in LONGROPE or any(key.startswith("long_") for key in rope):
        yield min(_stated_lengths(rope, config), default=0)
    for part in rope.values():
        if isinstance(part, Mapping):
            yield from _from_rope(part, config)


def _stated_lengths(*parts: Mapping[str, Any]) -> Iterable[int]:
    names = ("original_max_position_embeddings", "max_position_embeddings")
    return [part[name] for part in parts for name in names if isinstance(part.get(name), int)]


def _reset(model: PreTrainedModel) -> None:
    """Undo what earlier passes changed in the model's rotary embeddings."""
    for module in model.modules():
        for name in [name for name in vars(module) if name.endswith(CACHED_LENGTH)]:
            if getattr(module, name) != module.original_max_seq_len:
                layer_type = name.removesuffix(CACHED_LENGTH)
                frequencies = getattr(module, f"{layer_type}inv_freq")
                original = getattr(module, f"{layer_type}original_inv_freq")
                module.register_buffer(f"{layer_type}inv_freq", original.to(frequencies.device), persistent=False)
                # Last: it marks the frequencies as reset, also for the call after an interrupt.
                setattr(module, name, module.original_max_seq_len)
