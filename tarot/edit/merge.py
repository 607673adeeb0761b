"""Merge: fold a rotation into the weights of a model, for good or while a context is open."""

from collections import Counter
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from tarot.edit.context import Angles, EditContext, SiteAngles, angles_by_site, offload_hook, resolve_sites
from tarot.edit.patch import Patch, Step, at_once, unpatched
from tarot.edit.rotation import ROTARY, Rotation
from tarot.edit.sites import Site
from tarot.errors import TarotError


class merge_temporarily(EditContext):
    """`merge_rotation` while the context is open; then the weights of before, bit for bit, also when the body raises.

    Arguments as for `rotated`, errors as for `merge_rotation`. The weights of before are set aside, never written to, at the
    cost of the edited projections' memory once more. Threads and tasks: as for `rotated`. Contexts are closed in the
    reverse order of their opening: another order is a TarotError, and the context stays open.
    """

    def _prepare(self, patch: Patch) -> None:
        _refuse_unmergeable(self.model, self.sites)
        for site, angles in angles_by_site(self.angles.detach(), self.sites, self.rotation):
            folded = _folded(site, angles, self.rotation, backwards=False)
            if hook := offload_hook(site.module):
                patch.replace(site.module, hook, "weights_map", folded)
                continue
            for name, weight in folded.items():
                patch.replace(site.module, site.module.get_parameter(name), "data", weight)


def merge_rotation(
    model: nn.Module, angles: Angles, sites: Sequence[Site] | None = None, rotation: Rotation = ROTARY
) -> None:
    """W <- W R^T (input side), or W <- R^T W and b <- b R (output side), in place.

    Arguments as for `rotated`. Computed in float32 or better and rounded once. Weights that accelerate fetches for each
    pass, from the disk say, are not written to: it is given the edited ones instead, which stay in memory. Beside the
    errors of `rotated`, TarotError for a weight that is not plain floating point (quantised, wrapped) or that the model
    uses elsewhere too (tied), and for a model with an open edit; nothing is changed then. An interrupt leaves all
    weights merged or none.
    """
    _write(model, angles, sites, rotation, backwards=False)


def unmerge_rotation(
    model: nn.Module, angles: Angles, sites: Sequence[Site] | None = None, rotation: Rotation = ROTARY
) -> None:
    """W <- W R^-T (input side), or W <- R^-T W and b <- b R^-1 (output side): undoes `merge_rotation` up to rounding."""
    _write(model, angles, sites, rotation, backwards=True)


def _refuse_unmergeable(model: nn.Module, sites: Sequence[Site]) -> None:
    uses = Counter(_address(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    for site in sites:
        parameters = dict(site.module.named_parameters())
        plain = isinstance(site.module, nn.Linear | Conv1D) and parameters.keys() <= {"weight", "bias"}
        if not plain or any(type(p.data) is not Tensor for p in parameters.values()):
            kind = f"{type(site.module).__module__}.{type(site.module).__qualname__}"
            raise TarotError(f"a plain Linear or Conv1D to merge into at {site.name}", kind, _HOOK)
        for name, parameter in parameters.items():
            if parameter.dtype not in _MERGEABLE:
                expected = f"floating-point numbers to merge into at {site.name}.{name}"
                raise TarotError(expected, f"{parameter.dtype}, which is quantised", _HOOK)
            if uses[_address(parameter)] > 1:
                raise TarotError(f"{site.name}.{name} to be used once in the model", "a weight tied to another", _HOOK)


def _address(parameter: nn.Parameter) -> int:
    """What tied parameters share; those whose weights are elsewhere all begin at 0."""
    return id(parameter) if parameter.is_meta else parameter.data_ptr()


_MERGEABLE = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


_HOOK = "rotated(model, angles) edits without merging"


@torch.no_grad()
def _folded(site: Site, angles: SiteAngles, rotation: Rotation, *, backwards: bool) -> dict[str, Tensor]:
    """The site's parameters by their names, edited where the edit reaches them."""
    # An edited input needs W R^T, and R^T is R^-1 or, for a scale, R itself.
    invert = backwards != (site.side == "input" and rotation.orthogonal)
    hook = offload_hook(site.module)
    weights = {
        name: hook.weights_map[name] if hook else parameter.data for name, parameter in site.module.named_parameters()
    }
    turn = (rotation.unturn if invert else rotation.turn)(angles.to(weights["weight"].device), site.d_head)

    def folded(rows: Tensor) -> Tensor:
        return turn(rows.unflatten(-1, (site.n_heads, site.d_head))).flatten(-2)

    # Rows have to run along the edited side, to be turned as an activation is.
    crosswise = isinstance(site.module, Conv1D) != (site.side == "output")
    weight = weights["weight"]
    weights["weight"] = folded(weight.T).T.contiguous() if crosswise else folded(weight)
    if site.side == "output" and "bias" in weights:
        weights["bias"] = folded(weights["bias"])
    return weights


def _write(
    model: nn.Module, angles: Angles, sites: Sequence[Site] | None, rotation: Rotation, *, backwards: bool
) -> None:
    fitting = resolve_sites(model, angles, sites, rotation)
    _refuse_unmergeable(model, fitting)
    with unpatched(fitting[0].module, model), torch.no_grad():
        steps: list[Step] = []
        for site, row in angles_by_site(angles.detach(), fitting, rotation):
            folded = _folded(site, row, rotation, backwards=backwards)
            if hook := offload_hook(site.module):
                steps.append(partial(setattr, hook, "weights_map", folded))
                continue
            steps += [partial(site.module.get_parameter(name).copy_, weight) for name, weight in folded.items()]
        at_once(steps)
