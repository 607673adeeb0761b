"""Composition: several adapters of one model as one, t = t_1 + t_2 + ...

Rotations of the same plane commute and their angles add, so that the sum is exactly all edits at once. That holds for
`Rotary` and for the log-factors of `Scale`, but not for `Givens`, whose planes share axes.
"""

import torch
from transformers import PreTrainedModel

from tarot.edit.adapter import Adapter, Edit
from tarot.edit.provenance import compose_provenance
from tarot.edit.rotation import ROTARY, ROTATIONS, SCALE
from tarot.edit.sites import angle_mask, find_sites
from tarot.errors import InvalidValueError


def compose(model: PreTrainedModel, *adapters: Adapter) -> Adapter:
    """Return the adapter whose angles are the sum of the adapters' angles, on the union of their layers.

    Scale the adapters first where needed. A single adapter keeps its gate; several must have none. The provenance names
    all parents and lists the samples of them all, so that none of these is evaluated.

    Args:
        model: the model that the adapters were made for; unchanged.
        adapters: one adapter, or several with the same kind of site and the same rotation, which is not `Givens`.

    Raises:
        InvalidValueError: there is no adapter, the rotations do not add up, the kinds of sites differ, one of several
            has a gate, or an adapter is for another model.

    Example:
        >>> both = compose(model, first.scaled(0.5), second)
    """
    if not adapters:
        raise InvalidValueError("at least one adapter to compose", "none")
    if len(adapters) > 1 and (gated := [adapter.fingerprint for adapter in adapters if adapter.gate]):
        raise InvalidValueError(
            f"The gate of {', '.join(gated)} decides for that adapter alone, so it cannot be composed with others.",
            hint="compose the adapters as they were before tarot gate; the result acts on every prompt",
        )
    rotations = sorted({adapter.edit.rotation for adapter in adapters})
    if len(adapters) > 1 and rotations not in ([ROTARY.name], [SCALE.name]):
        got = ", ".join(map(repr, rotations))
        raise InvalidValueError("adapters of one rotation whose angles add up, 'rotary' or 'scale'", got)
    rotation = ROTATIONS[rotations[0]]
    kinds = sorted({adapter.edit.sites for adapter in adapters})
    if len(kinds) > 1:
        raise InvalidValueError("adapters of one kind of site", " and ".join(kinds), "merge one, then apply the other")
    sites_of_each = [adapter.find_sites(model) for adapter in adapters]
    sites = find_sites(model, kinds[0], {site.layer for own_sites in sites_of_each for site in own_sites})
    row_of = {site.layer: row for row, site in enumerate(sites)}
    angles = torch.zeros(angle_mask(sites, rotation.n_angles).shape, dtype=torch.float64)
    for adapter, own_sites in zip(adapters, sites_of_each, strict=True):
        for site, row in zip(own_sites, adapter.angles, strict=True):
            angles[row_of[site.layer], : row.shape[0], : row.shape[1]] += row
    provenance = compose_provenance([adapter.as_parent() for adapter in adapters])
    if adapters[0].gate and (record := adapters[0].provenance.get("gate")):
        provenance["gate"] = record
    return Adapter(
        angles.float(),
        Edit.from_sites(model, kinds[0], sites, rotation),
        provenance,
        adapters[0].gate,
    )
