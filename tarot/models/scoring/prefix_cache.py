"""KV prefix cache: keys and values of a shared prefix, read by every row of a batch."""

from inspect import signature

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer
from transformers.modeling_outputs import CausalLMOutputWithPast

# Name of the cache in a model's arguments and output. transformers 5.24 renamed it and warns of the earlier name.
CACHE = "cache" if hasattr(CausalLMOutputWithPast, "cache") else "past_key_values"
# Layers whose state is keys and values alone. Their subclasses hold more.
SHAREABLE_LAYERS = (DynamicLayer, DynamicSlidingWindowLayer)


class SharedPrefixLayer(DynamicLayer):
    """One layer's keys and values of a prefix, expanded to every row of a batch.

    Args:
        prefix: the same layer's states of a shorter prefix; None for the empty one.
        keep: whether to append the states that pass through. Rows that continue a prefix do not, so that one prefix
            serves any number of batches of any size.
    """

    def __init__(self, prefix: "SharedPrefixLayer | None", keep: bool) -> None:
        super().__init__()
        self.keep = keep
        if prefix and prefix.is_initialized:
            self.dtype, self.device, self.is_initialized = prefix.dtype, prefix.device, True
            self.keys, self.values = prefix.keys, prefix.values

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Return the prefix's states followed by the rows' own, each `row x head x token x dimension`."""
        keys, values = key_states, value_states
        if self.keys is not None and self.values is not None:
            rows = (len(key_states), -1, -1, -1)
            keys = torch.cat([self.keys.expand(rows), key_states], dim=-2)
            values = torch.cat([self.values.expand(rows), value_states], dim=-2)
        if self.keep:
            self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
            self.keys, self.values = keys, values
        return keys, values


def share_prefix(prefix: Cache | None, n_layers: int, *, keep: bool) -> Cache:
    """Return a cache that begins with `prefix`; `keep` says whether it keeps the states that pass through it."""
    if prefix is None:
        return Cache(layers=[SharedPrefixLayer(None, keep) for _ in range(n_layers)])
    return Cache(
        layers=[SharedPrefixLayer(layer, keep) for layer in prefix.layers if isinstance(layer, SharedPrefixLayer)]
    )


def can_share_prefix(model: PreTrainedModel) -> bool:
    """Whether each layer's state is its own keys and values: nothing recurrent, nothing shared between layers."""
    config = model.config.get_text_config(decoder=True)
    return (
        not getattr(config, "num_kv_shared_layers", 0)
        and CACHE in signature(model.forward).parameters
        and not getattr(model, "_is_stateful", False)
        and all(type(layer) in SHAREABLE_LAYERS for layer in DynamicCache(config=model.config).layers)
    )
