"""Digests that tell models apart: by the shapes of their edited projections, and by their weights."""

import hashlib
import json

from torch import Tensor
from transformers import PreTrainedModel
from transformers.integrations.accelerate import load_offloaded_parameter

from tarot.edit.sites import Site

PROBED_WEIGHTS = 4096  # weights of each parameter that its fingerprint looks at


def shapes_fingerprint(model: PreTrainedModel, sites: tuple[Site, ...]) -> str:
    """Digest of the model's class and of the names and shapes of the edited projections."""

    def _shape(site: Site) -> list[int]:
        weight = site.module.weight
        assert isinstance(weight, Tensor)
        return list(weight.shape)

    edited = [[site.name, _shape(site), site.n_heads, site.d_head] for site in sites]
    return hashlib.sha256(json.dumps([type(model).__name__, edited]).encode()).hexdigest()[:16]


def weights_fingerprint(model: PreTrainedModel) -> str:
    """Digest of every parameter's name, type, shape and some of its values, evenly spaced."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        # accelerate keeps some on the disk, and here only their shape.
        here = load_offloaded_parameter(model, name) if parameter.is_meta else parameter
        flat = here.detach().reshape(-1)
        some = flat[:: max(1, len(flat) // PROBED_WEIGHTS)].double().cpu()
        digest.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}".encode() + some.numpy().tobytes())
    return digest.hexdigest()[:16]
