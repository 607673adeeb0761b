"""Digests that tell models apart: by the shapes of their edited projections, and by their weights."""

import hashlib
import json

from torch import Tensor
from transformers import PreTrainedModel
from transformers.integrations.accelerate import load_offloaded_parameter

from tarot.edit.sites import Site

PROBED_WEIGHTS = 4096
"""Number of values of each parameter that go into the fingerprint."""


def shapes_fingerprint(model: PreTrainedModel, sites: tuple[Site, ...]) -> str:
    """Return a digest of the model's class and of the names and shapes of the edited projections."""

    def _shape(site: Site) -> list[int]:
        weight = site.module.weight
        assert isinstance(weight, Tensor)
        return list(weight.shape)

    edited = [[site.name, _shape(site), site.n_heads, site.d_head] for site in sites]
    return hashlib.sha256(json.dumps([type(model).__name__, edited]).encode()).hexdigest()[:16]


def weights_fingerprint(model: PreTrainedModel) -> str:
    """Return a digest of every parameter's name, type, shape and some of its values, evenly spaced."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        # accelerate may keep the values on disk; the parameter then has only a shape.
        loaded = load_offloaded_parameter(model, name) if parameter.is_meta else parameter
        values = loaded.detach().reshape(-1)
        probed = values[:: max(1, len(values) // PROBED_WEIGHTS)].double().cpu()
        digest.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}".encode() + probed.numpy().tobytes())
    return digest.hexdigest()[:16]
