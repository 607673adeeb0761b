"""Attention of heads, without and with an edit: a = softmax(q k^T / sqrt(d)).

Turning a head's output does not change its own pattern, only those of the layers above. Two kinds of heads are
therefore shown: those turned most, and those whose pattern changed most.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from tarot.analysis.results import AttentionPattern, AttentionResult
from tarot.edit.adapter import Adapter
from tarot.edit.patch import Patch
from tarot.edit.rope import initial_rope
from tarot.edit.sites import n_layers
from tarot.errors import TarotError
from tarot.models.loaded_model import LoadedModel


@contextmanager
def eager_attention(model: PreTrainedModel) -> Iterator[None]:
    """Compute attention with plain tensor operations, which alone return weights; restore the old way on exit."""
    implementation = model.config._attn_implementation
    with Patch(model) as patch:
        patch.step(
            model,
            partial(model.set_attn_implementation, "eager"),
            partial(model.set_attn_implementation, implementation),
        )
        patch.apply()
        yield


@torch.no_grad()
def attention_weights(model: PreTrainedModel, tokens: Sequence[int]) -> list[Float[Tensor, "head query key"]]:
    """Return the attention weights of each layer for one prompt.

    Raises:
        TarotError: some layers of the model have no attention weights.
    """
    ids = torch.tensor([list(tokens)], device=model.device)
    with eager_attention(model), initial_rope(model):
        weights = model(input_ids=ids, output_attentions=True, use_cache=False).attentions or ()
    n_with_weights = sum(layer is not None for layer in weights)
    if n_with_weights != n_layers(model) or len(weights) != n_layers(model):
        raise TarotError(
            f"Only {n_with_weights} of the {n_layers(model)} layers of {type(model).__name__} have attention weights; "
            "the others are not softmax attention."
        )
    return [layer[0].float().cpu() for layer in weights]


def find_patterns(
    model: PreTrainedModel, adapter: Adapter, tokens: Sequence[int], n_heads: int = 4
) -> list[AttentionPattern]:
    """Return the patterns of the `n_heads` heads turned most, then of as many others that changed most.

    Raises:
        TarotError: some layers of the model have no attention weights.
    """
    base = attention_weights(model, tokens)
    with adapter.apply(model):
        edited = attention_weights(model, tokens)
    norms = adapter.angles.norm(dim=-1) if adapter.edit.sites == "heads" else torch.zeros(0, 0)
    angle_norms = {
        (layer, head): float(norm)
        for layer, row in zip(adapter.edit.layers, norms, strict=False)
        for head, norm in enumerate(row)
    }
    patterns = [
        AttentionPattern(
            layer,
            head,
            angle_norms.get((layer, head), 0.0),
            # Half the absolute differences of two distributions is the share that moved.
            float((after - before).abs().sum(-1).mean()) / 2,
            before.numpy(),
            after.numpy(),
        )
        for layer, (layer_before, layer_after) in enumerate(zip(base, edited, strict=True))
        for head, (before, after) in enumerate(zip(layer_before, layer_after, strict=True))
    ]
    turned = sorted((pattern for pattern in patterns if pattern.angle), key=lambda pattern: -pattern.angle)[:n_heads]
    chosen = {(pattern.layer, pattern.head) for pattern in turned}
    others = [pattern for pattern in patterns if (pattern.layer, pattern.head) not in chosen]
    return turned + sorted(others, key=lambda pattern: -pattern.moved)[:n_heads]


def measure_attention(loaded: LoadedModel, adapter: Adapter, prompt: Sequence[int]) -> AttentionResult:
    """Measure where heads look in one prompt.

    Raises:
        TarotError: some layers of the model have no attention weights.
    """
    tokens = tuple(str(loaded.tokenizer.decode([token])) for token in prompt)
    return AttentionResult(tokens, tuple(find_patterns(loaded.model, adapter, prompt)))
