"""Adapters with random angles, logits and error messages, for the tests of adapters."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint import byte_model, byte_tokenizer
from transformers import PreTrainedModel

from tarot.edit.adapter import Adapter, Edit
from tarot.edit.rotation import ROTARY, Rotation
from tarot.edit.sites import angle_mask, find_sites
from tarot.errors import TarotError
from tarot.models.loaded_model import LoadedModel

TEXT = torch.randint(2, 258, (5, 17), generator=torch.Generator().manual_seed(0))
model_of_bytes = cache(byte_model)


def loaded_bytes(seed: int = 0, **model: int) -> LoadedModel:
    return LoadedModel("bytes", byte_model(seed=seed, **model) if seed or model else model_of_bytes(), byte_tokenizer())


def byte_adapter(scale: float = 1.0, seed: int = 0) -> Adapter:
    model = model_of_bytes()
    angles = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(seed)) * scale
    sites = find_sites(model, "heads", 0.5)
    return Adapter(angles, Edit.from_sites(model, "heads", sites, ROTARY), {"task": "own_choice", "budget": 4})


def random_adapter(
    model: PreTrainedModel,
    *,
    scale: float = 0.5,
    kind: str = "heads",
    layers: float | list[int] = 1.0,
    rotation: Rotation = ROTARY,
    **provenance: object,
) -> Adapter:
    sites = find_sites(model, kind, layers)
    mask = angle_mask(sites, rotation.n_angles)
    angles = torch.randn(mask.shape, generator=torch.Generator().manual_seed(0)) * scale * mask
    return Adapter(angles, Edit.from_sites(model, kind, sites, rotation), provenance)


@torch.no_grad()
def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    return model(ids, use_cache=False).logits


def error_message(call: Callable[[], object], tmp_path: Path) -> str:
    with pytest.raises(TarotError) as error:
        call()
    return str(error.value).replace(str(tmp_path), "DIR")
