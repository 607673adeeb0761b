"""z = the numbers an edit turns: where a model can be edited, found in the model itself.

A *site* is a projection and the side of it that is edited. `heads`: the input of an attention output projection,
which is the concatenated head outputs. `mlp`: the output of an MLP's last projection, on its way to the residual
stream.

Some models put something between heads and projection: bitnet, diffllama and minimax a norm, qwen3_next a gate. The
edit is at the projection's input all the same, since only there can it be merged into the weight: `d_head` numbers in
a row, of one head, after the norm or the gate. The linear attention of hybrid models (`linear_attn`) is no site.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from tarot.edit.layers import select_layers
from tarot.errors import TarotError, UnknownName

_LAYER_LISTS = ("layers", "h", "blocks")
_PROJECTIONS = {
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
}
_HEAD_COUNTS = ("num_heads", "num_attention_heads", "n_heads", "n_head")


@dataclass(frozen=True)
class Site:
    """One projection and the side of it that is edited: `n_heads` runs of `d_head` numbers."""

    name: str
    """Path in the model, such as `model.layers.3.self_attn.o_proj`."""
    module: nn.Module
    layer: int
    n_heads: int
    """1 for an MLP."""
    d_head: int
    side: Literal["input", "output"]


def n_layers(model: nn.Module) -> int:
    """How many layers the language model has; TarotError when it has no layers as they are known here."""
    return len(decoder_layers(model))


def check_site_kind(kind: str) -> None:
    """Raise UnknownName unless there are sites of this kind."""
    if kind not in _PROJECTIONS:
        raise UnknownName("kind of site", kind, _PROJECTIONS)


def find_sites(model: nn.Module, kind: str = "heads", layers: float | Iterable[int] = 0.5) -> tuple[Site, ...]:
    """The sites of a kind in the selected layers, one a layer, from the first layer on.

    Args:
        model: a causal language model of transformers.
        kind: `heads` or `mlp`.
        layers: a fraction of the layers, from the first, or their indices.

    Sizes are those of the projections themselves, never `config.head_dim`. A selected layer without such a projection
    (a mixture of experts has no last one, linear attention no heads) is passed over; TarotError when none is left,
    when heads do not divide a projection, or for a model without layers as they are known here.
    """
    check_site_kind(kind)
    stack = decoder_layers(model)
    names = {module: name for name, module in model.named_modules()}
    sites = []
    for layer in select_layers(layers, len(stack)):
        found = _first_of(stack[layer], _PROJECTIONS[kind])
        if found is None:
            continue
        owner, projection, n_in, n_out = found
        name = names[projection]
        if getattr(owner, "slow_but_exact", False) and getattr(owner, "pretraining_tp", 1) > 1:
            raise TarotError("a projection that is called", f"{name}, bypassed", "set slow_but_exact=False")
        if kind == "mlp":
            sites.append(Site(name, projection, layer, 1, n_out, "output"))
            continue
        heads = _n_heads(owner, model)
        if n_in % heads:
            raise TarotError(f"a number of heads that divides the {n_in} inputs of {name}", str(heads))
        sites.append(Site(name, projection, layer, heads, n_in // heads, "input"))
    if not sites:
        hint = "a mixture of experts has no last projection; edit the heads" if kind == "mlp" else ""
        raise _unsupported(model, "|".join(_PROJECTIONS[kind]), "in the selected layers", hint)
    return tuple(sites)


def angle_mask(sites: Iterable[Site], n_angles: Callable[[int], int]) -> Bool[Tensor, "layer head angle"]:
    """alive[i, h, a] = site i has a head h with an angle a.

    The angles of all sites are one tensor, as wide as the widest site; where the sites are alike, all is alive.
    """
    sizes = [(site.n_heads, n_angles(site.d_head)) for site in sites]
    mask = torch.zeros(len(sizes), *map(max, zip(*sizes, strict=True)), dtype=torch.bool)
    for row, (heads, n) in zip(mask, sizes, strict=True):
        row[:heads, :n] = True
    return mask


class _Found(NamedTuple):
    owner: nn.Module
    projection: nn.Module
    n_in: int
    n_out: int


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The layers of the language model, in order; TarotError when it has none as they are known here."""
    get_decoder = getattr(model, "get_decoder", None)
    decoder = get_decoder() if callable(get_decoder) else model
    if not getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        for owner, name in product((decoder, getattr(decoder, "model", None)), _LAYER_LISTS):
            layers = getattr(owner, name, None)
            if isinstance(layers, nn.ModuleList) and any(_first_of(each, _PROJECTIONS["heads"]) for each in layers):
                return layers
    raise _unsupported(model, f"{'|'.join(_LAYER_LISTS)}.N.({'|'.join(_PROJECTIONS['heads'])})", "in its decoder")


def _unsupported(model: nn.Module, looked_for: str, where: str, hint: str = "") -> TarotError:
    return TarotError(f"a causal language model with {looked_for} {where}", type(model).__name__, hint)


def _first_of(layer: nn.Module, paths: Iterable[str]) -> _Found | None:
    """The first of the projections that is there: a linear layer, transformers' Conv1D, or what wraps either."""
    for path in paths:
        owner_path, _, name = path.rpartition(".")
        try:
            owner = layer.get_submodule(owner_path)
            projection = owner.get_submodule(name)
        except AttributeError:
            continue
        for n_in, n_out in (("in_features", "out_features"), ("nx", "nf")):
            if hasattr(projection, n_in):
                return _Found(owner, projection, int(getattr(projection, n_in)), int(getattr(projection, n_out)))
    return None


def _n_heads(attention: nn.Module, model: nn.Module) -> int:
    config: Any = model.config
    for owner in (attention, config.get_text_config()):
        for name in _HEAD_COUNTS:
            if isinstance(count := getattr(owner, name, None), int):
                return count
    raise TarotError(f"a number of heads ({', '.join(_HEAD_COUNTS)}) in {type(attention).__name__}", "none")
