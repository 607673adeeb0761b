"""Digests that tell models apart: by the shapes of their edited projections, and by their weights."""

import hashlib
import json
import math
from collections.abc import Collection

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.integrations.accelerate import load_offloaded_parameter

from tarot.edit.sites import Site

PROBED_WEIGHTS = 256
"""Number of values of each parameter that go into the fingerprint, about."""
EXACT_TYPES = (torch.bfloat16, torch.float32, torch.float64)
"""Types in which the same weights have the same values once they are rounded to bfloat16."""


def shapes_fingerprint(model: PreTrainedModel, sites: tuple[Site, ...]) -> str:
    """Return a digest of the model's class and of the names and shapes of the edited projections."""

    def _shape(site: Site) -> list[int]:
        weight = site.module.weight
        assert isinstance(weight, Tensor)
        return list(weight.shape)

    edited = [[site.name, _shape(site), site.n_heads, site.d_head] for site in sites]
    return hashlib.sha256(json.dumps([type(model).__name__, edited]).encode()).hexdigest()[:16]


def weights_fingerprint(model: PreTrainedModel) -> str:
    """Return a digest of every parameter's name, shape and some of its values, evenly spaced and rounded to bfloat16.

    So a model has the same fingerprint in bfloat16 and in float32. Other types round otherwise: their names follow.
    """
    digest, types = hashlib.sha256(), set[str]()
    for name, parameter in sorted(model.named_parameters()):
        # accelerate may keep the values on disk; the parameter then has only a shape.
        loaded = load_offloaded_parameter(model, name) if parameter.is_meta else parameter
        values = loaded.detach().reshape(-1)
        step = max(1, len(values) // PROBED_WEIGHTS)
        while math.gcd(step, parameter.shape[-1] if parameter.ndim else 1) > 1:
            step += 1  # else the probes would be in a few columns, and miss an edit of the others
        probed = values[::step].to(torch.bfloat16).cpu().view(torch.int16)
        digest.update(f"{name} {tuple(parameter.shape)}".encode() + probed.numpy().tobytes())
        types |= set() if parameter.dtype in EXACT_TYPES else {str(parameter.dtype)}
    return " ".join([digest.hexdigest()[:16], *sorted(types)])


def has_other_weights(model: PreTrainedModel, recorded: Collection[str]) -> bool:
    """Return whether a recorded fingerprint is certainly of other weights than the model has.

    Weights that are quantised or offloaded are not compared, nor are those of types that round differently.
    """
    parameters = (parameter.data for parameter in model.parameters())
    if not recorded or not all(type(p) is Tensor and p.is_floating_point() and not p.is_meta for p in parameters):
        return False
    digest, _, types = weights_fingerprint(model).partition(" ")
    others = (each.partition(" ") for each in recorded)
    return any(other != digest and other_types == types for other, _, other_types in others)
