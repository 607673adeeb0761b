"""a = softmax(q k^T / sqrt(d)): where heads look, without and with an edit.

Turning a head's output leaves its own pattern alone and moves those of the layers above it. So two kinds of heads are
worth a picture: the ones turned most, and the ones whose pattern moved most.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from tarot.edit.adapter import Adapter
from tarot.edit.patch import Patch
from tarot.edit.sites import n_layers
from tarot.errors import TarotError


@dataclass(frozen=True)
class Pattern:
    """One head's attention, a row for each token that looks, without and with the edit.

    `angle` is the norm of its angles in radians, 0 for a head that is not turned. `moved` is the mean over rows of half
    the absolute differences: 0 where nothing moved, 1 where all attention went elsewhere.
    """

    layer: int
    head: int
    angle: float
    moved: float
    base: Float[Tensor, "query key"]
    edited: Float[Tensor, "query key"]


@contextmanager
def eager(model: PreTrainedModel) -> Iterator[None]:
    """Attention as plain tensor operations, which alone hands out its weights; the model's own way afterwards."""
    own = model.config._attn_implementation
    with Patch(model) as patch:
        patch.step(model, partial(model.set_attn_implementation, "eager"), partial(model.set_attn_implementation, own))
        patch.apply()
        yield


@torch.no_grad()
def attention(model: PreTrainedModel, tokens: Sequence[int]) -> list[Float[Tensor, "head query key"]]:
    """Attention weights of each layer for one prompt; TarotError for a model with layers that have none."""
    ids = torch.tensor([list(tokens)], device=model.device)
    with eager(model):
        weights = model(input_ids=ids, output_attentions=True, use_cache=False).attentions or ()
    if len(weights) != n_layers(model) or any(each is None for each in weights):
        raise TarotError(
            f"attention weights of the {n_layers(model)} layers of {type(model).__name__}",
            f"{sum(each is not None for each in weights)}",
            "some of its layers are not softmax attention",
        )
    return [each[0].float().cpu() for each in weights]


def patterns(model: PreTrainedModel, adapter: Adapter, tokens: Sequence[int], n: int = 4) -> list[Pattern]:
    """The n heads turned most, then the n others whose pattern moved most."""
    base = attention(model, tokens)
    with adapter.apply(model):
        edited = attention(model, tokens)
    angles = adapter.angles.norm(dim=-1) if adapter.edit.sites == "heads" else torch.zeros(0, 0)
    angle_of = {
        (layer, head): float(angle)
        for layer, row in zip(adapter.edit.layers, angles, strict=False)
        for head, angle in enumerate(row)
    }
    every = [
        Pattern(
            layer,
            head,
            angle_of.get((layer, head), 0.0),
            float((after - before).abs().sum(-1).mean()) / 2,
            before,
            after,
        )
        for layer, (befores, afters) in enumerate(zip(base, edited, strict=True))
        for head, (before, after) in enumerate(zip(befores, afters, strict=True))
    ]
    turned = sorted((each for each in every if each.angle), key=lambda each: -each.angle)[:n]
    chosen = {(each.layer, each.head) for each in turned}
    others = [each for each in every if (each.layer, each.head) not in chosen]
    return turned + sorted(others, key=lambda each: -each.moved)[:n]
