"""t = t_1 + t_2 + ...: several adapters of one model as one.

Rotations of the same plane commute and their angles add, so the sum is exactly all edits at once; that is so for
`Rotary`, and for the log-factors of `Scale`, and not for `Givens`, whose planes share axes.
"""

import torch
from transformers import PreTrainedModel

from tarot.edit.adapter import Adapter, Edit
from tarot.edit.provenance import compose_provenance
from tarot.edit.rotation import ROTARY, ROTATIONS, SCALE
from tarot.edit.sites import angle_mask, find_sites
from tarot.errors import TarotError


def compose(model: PreTrainedModel, *adapters: Adapter) -> Adapter:
    """The adapter whose angles are the sum of the adapters', on the union of their layers.

    Each adapter's strength is set beforehand: `compose(model, a.scaled(0.5), b)`. The provenance names all parents and
    holds all their samples, so that no document that one of them was tuned on is evaluated.

    Args:
        model: what the adapters were made for; unchanged.
        adapters: one, or several of the same kind of site and rotation, which is not `Givens`.

    Raises:
        TarotError: no adapter, rotations that do not add up, different kinds of sites, or an adapter for another model.
    """
    if not adapters:
        raise TarotError("at least one adapter to compose", "none")
    rotations = sorted({adapter.edit.rotation for adapter in adapters})
    if len(adapters) > 1 and rotations not in ([ROTARY.name], [SCALE.name]):
        got = ", ".join(map(repr, rotations))
        raise TarotError("adapters of one rotation whose angles add up, 'rotary' or 'scale'", got)
    rotation = ROTATIONS[rotations[0]]
    kinds = sorted({adapter.edit.sites for adapter in adapters})
    if len(kinds) > 1:
        raise TarotError("adapters of one kind of site", " and ".join(kinds), "merge one, then apply the other")
    fitting = [adapter.find_sites(model) for adapter in adapters]
    sites = find_sites(model, kinds[0], {site.layer for own in fitting for site in own})
    row_of = {site.layer: row for row, site in enumerate(sites)}
    angles = torch.zeros(angle_mask(sites, rotation.n_angles).shape, dtype=torch.float64)
    for adapter, own in zip(adapters, fitting, strict=True):
        for site, row in zip(own, adapter.angles, strict=True):
            angles[row_of[site.layer], : row.shape[0], : row.shape[1]] += row
    return Adapter(
        angles.float(),
        Edit.from_sites(model, kinds[0], sites, rotation),
        compose_provenance([adapter.as_parent() for adapter in adapters]),
    )
