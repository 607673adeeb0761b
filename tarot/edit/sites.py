"""Sites: where a model can be edited, found in the model itself.

A *site* is a projection and the side of it that is edited. `heads` is the input of an attention output projection: the
concatenated head outputs. `mlp` is the output of an MLP's last projection, which is added to the residual stream.

Some models have a norm (bitnet, diffllama, minimax) or a gate (qwen3_next) between heads and projection. They are
edited after it, at the projection's input, because only there can the edit be merged into the weight. The linear
attention of hybrid models (`linear_attn`) is no site.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from tarot.arguments import Registry
from tarot.edit.layers import select_layers
from tarot.errors import InvalidValueError

_LAYER_LISTS = ("layers", "h", "blocks")
SITE_KINDS: Registry[tuple[str, ...]] = Registry(
    "kind of site",
    {
        "heads": (
            "self_attn.o_proj",
            "self_attn.out_proj",
            "self_attn.dense",
            "self_attention.dense",
            "attention.dense",
            "attn.c_proj",
            "attn.out_proj",
            "attn.attention.out_proj",
        ),
        "mlp": (
            "mlp.down_proj",
            "mlp.c_proj",
            "mlp.fc2",
            "mlp.fc_out",
            "mlp.dense_4h_to_h",
            "ffn.down_proj",
            "feed_forward.down_proj",
            "feed_forward.w2",
            "fc2",
        ),
    },
)
_HEAD_COUNTS = ("num_heads", "num_attention_heads", "n_heads", "n_head")


@dataclass(frozen=True)
class Site:
    """A projection and the side of it that is edited: `n_heads` runs of `d_head` numbers."""

    name: str
    """Path in the model, such as `model.layers.3.self_attn.o_proj`."""
    module: nn.Module
    layer: int
    n_heads: int
    """1 for an MLP."""
    d_head: int
    side: Literal["input", "output"]


def n_layers(model: nn.Module) -> int:
    """Return the number of layers of a language model; errors as for `decoder_layers`."""
    return len(decoder_layers(model))


def find_sites(model: nn.Module, kind: str = "heads", layers: float | Iterable[int] = 0.5) -> tuple[Site, ...]:
    """Return the sites of a kind in the selected layers, in order, at most one a layer.

    Sizes are read off the projections themselves, never `config.head_dim`. A layer without such a projection is
    skipped: a mixture of experts has no last projection, and linear attention no heads.

    Args:
        model: a causal language model of transformers.
        kind: `heads` or `mlp`.
        layers: a fraction of the layers, from the first, or their indices; see `select_layers`.

    Raises:
        UnknownName: there is no such kind.
        InvalidValueError: no selected layer has such a projection, the heads do not divide its inputs, or the model's
            layers are not of a known architecture.

    Example:
        >>> [site.name for site in find_sites(model, "heads", [0, 1])]
        ['model.layers.0.self_attn.o_proj', 'model.layers.1.self_attn.o_proj']
    """
    projections = SITE_KINDS[kind]
    stack = decoder_layers(model)
    names = {module: name for name, module in model.named_modules()}
    sites = []
    for layer in select_layers(layers, len(stack)):
        if (match := _first_of(stack[layer], projections)) is None:
            continue
        owner, projection, n_in, n_out = match
        name = names[projection]
        if getattr(owner, "slow_but_exact", False) and getattr(owner, "pretraining_tp", 1) > 1:
            raise InvalidValueError("a projection that is called", f"{name}, bypassed", "set slow_but_exact=False")
        if kind == "mlp":
            sites.append(Site(name, projection, layer, 1, n_out, "output"))
            continue
        heads = _n_heads(owner, model)
        if n_in % heads:
            raise InvalidValueError(f"a number of heads that divides the {n_in} inputs of {name}", str(heads))
        sites.append(Site(name, projection, layer, heads, n_in // heads, "input"))
    if not sites:
        hint = "a mixture of experts has no last projection; edit the heads" if kind == "mlp" else ""
        raise _unsupported(model, "|".join(projections), "in the selected layers", hint)
    return tuple(sites)


def angle_mask(sites: Iterable[Site], n_angles: Callable[[int], int]) -> Bool[Tensor, "layer head angle"]:
    """Return where a tensor of angles is used: true at [i, h, a] if site i has a head h with an angle a.

    The angles of all sites are one tensor, as wide as the widest site. The mask is all true if the sites are alike.

    Args:
        sites: sites, one for each row of the mask.
        n_angles: number of angles for a head of a size, such as `ROTARY.n_angles`.
    """
    sizes = [(site.n_heads, n_angles(site.d_head)) for site in sites]
    mask = torch.zeros(len(sizes), *map(max, zip(*sizes, strict=True)), dtype=torch.bool)
    for row, (heads, n) in zip(mask, sizes, strict=True):
        row[:heads, :n] = True
    return mask


class _Projection(NamedTuple):
    owner: nn.Module
    projection: nn.Module
    n_in: int
    n_out: int


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """Return the layers of a language model, in order.

    Raises:
        InvalidValueError: the model is not a decoder of a known architecture.
    """
    get_decoder = getattr(model, "get_decoder", None)
    decoder = get_decoder() if callable(get_decoder) else model
    if not getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        for owner, name in product((decoder, getattr(decoder, "model", None)), _LAYER_LISTS):
            layers = getattr(owner, name, None)
            if isinstance(layers, nn.ModuleList) and any(_first_of(each, SITE_KINDS["heads"]) for each in layers):
                return layers
    raise _unsupported(model, f"{'|'.join(_LAYER_LISTS)}.N.({'|'.join(SITE_KINDS['heads'])})", "in its decoder")


def _unsupported(model: nn.Module, looked_for: str, where: str, hint: str = "") -> InvalidValueError:
    return InvalidValueError(f"{type(model).__name__} has no {looked_for} {where}.", hint=hint)


def _first_of(layer: nn.Module, paths: Iterable[str]) -> _Projection | None:
    """Return the first of the projections that exists: a linear layer, transformers' Conv1D, or a wrapper of either."""
    for path in paths:
        owner_path, _, name = path.rpartition(".")
        try:
            owner = layer.get_submodule(owner_path)
            projection = owner.get_submodule(name)
        except AttributeError:
            continue
        for n_in, n_out in (("in_features", "out_features"), ("nx", "nf")):
            if hasattr(projection, n_in):
                return _Projection(owner, projection, int(getattr(projection, n_in)), int(getattr(projection, n_out)))
    return None


def _n_heads(attention: nn.Module, model: nn.Module) -> int:
    config: Any = model.config
    for owner in (attention, config.get_text_config()):
        for name in _HEAD_COUNTS:
            if isinstance(count := getattr(owner, name, None), int):
                return count
    raise InvalidValueError(f"a number of heads ({', '.join(_HEAD_COUNTS)}) in {type(attention).__name__}", "none")
