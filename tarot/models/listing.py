"""FIXME: one sentence on this module."""

import functools
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
)

from tarot.edit.sites import find_sites, n_layers
from tarot.errors import TarotError
from tarot.models.checkpoint import (
    causal_config,
    check_checkpoint_folder,
)
from tarot.models.hub_cache import cached_names, cached_snapshot
from tarot.models.library_errors import reported_as
from tarot.models.offline import quiet_transformers
from tarot.models.wheels import WHEELS, installed_version


@dataclass(frozen=True)
class ModelInfo:
    """What can be told of a model without its weights; sizes are None where its heads cannot be edited."""

    reference: str
    source: str
    parameters: int
    layers: int | None
    heads: int | None
    d_head: int | None


def available() -> list[ModelInfo]:
    """What can be loaded here and now: the wheels that are installed, then the causal models in the hub's cache."""
    wheels = [
        ModelInfo(f"wheel:{name}", wheel.distribution, wheel.parameters, wheel.layers, wheel.heads, wheel.d_head)
        for name, wheel in WHEELS.items()
        if installed_version(wheel.distribution) and find_spec("gguf")
    ]
    return [*wheels, *_cached()]


def _cached() -> Iterator[ModelInfo]:
    for name in cached_names():
        if folder := cached_snapshot(name):
            with suppress(TarotError):  # another kind of model
                check_checkpoint_folder(folder)
                yield _described(name, folder)


def _described(reference: str, folder: Path) -> ModelInfo:
    """Counted on the model itself, built without memory for its weights."""
    config = causal_config(folder)
    with reported_as(f"a causal language model in {folder}"), quiet_transformers(), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    info = functools.partial(ModelInfo, reference, "hub cache", sum(each.numel() for each in model.parameters()))
    try:
        sites = find_sites(model, "heads", 1.0)
        return info(n_layers(model), max(site.n_heads for site in sites), max(site.d_head for site in sites))
    except TarotError:
        return info(None, None, None)
