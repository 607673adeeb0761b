"""FIXME: one sentence on this module."""

from inspect import signature

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer
from transformers.modeling_outputs import CausalLMOutputWithPast

# What a pass takes its cache by, and gives it back as: transformers 5.24 renamed it, and warns of the name before.
CACHE = "cache" if hasattr(CausalLMOutputWithPast, "cache") else "past_key_values"


SHAREABLE_LAYERS = (DynamicLayer, DynamicSlidingWindowLayer)


class SharedPrefixLayer(DynamicLayer):
    """Keys and values of a prefix, lent to every row of a batch.

    A row's own states pass through and are not kept, so one prefix serves any number of batches of any size.
    """

    def __init__(self, lender: "SharedPrefixLayer | None", keep: bool) -> None:
        super().__init__()
        self.keep = keep
        if lender and lender.is_initialized:
            self.dtype, self.device, self.is_initialized = lender.dtype, lender.device, True
            self.keys, self.values = lender.keys, lender.values

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
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
    """A cache that starts with `prefix`, keeping what passes through it or not."""
    if prefix is None:
        return Cache(layers=[SharedPrefixLayer(None, keep) for _ in range(n_layers)])
    return Cache(
        layers=[SharedPrefixLayer(layer, keep) for layer in prefix.layers if isinstance(layer, SharedPrefixLayer)]
    )


def can_share_prefix(model: PreTrainedModel) -> bool:
    """Whether every layer's state is keys and values alone, each layer with its own (nothing recurrent or shared)."""
    config = model.config.get_text_config(decoder=True)
    return (
        not getattr(config, "num_kv_shared_layers", 0)
        and CACHE in signature(model.forward).parameters
        and not getattr(model, "_is_stateful", False)
        # Not their subclasses, which keep more than that.
        and all(type(layer) in SHAREABLE_LAYERS for layer in DynamicCache(config=model.config).layers)
    )
