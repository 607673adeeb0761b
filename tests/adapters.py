"""Adapters with random angles, logits and error messages, for the tests of adapters."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from tarot.edit.adapter import Adapter, Edit
from tarot.edit.rotation import ROTARY, Rotation
from tarot.edit.sites import angle_mask, find_sites
from tarot.errors import TarotError


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
