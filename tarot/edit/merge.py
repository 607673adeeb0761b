"""Fold an edit into the weights of a model, for good or while a context is open.

With `out = z W^T` (rows; `W` is `out x in`), editing the input of a projection is the same as the weight `W R^T`.
Editing its output is the same as the weight `R^T W` with the bias `b R`. transformers' Conv1D keeps `W^T`. A merged
edit costs nothing at inference. The order in which several edits of one site act: see `tarot.edit.hooks`.
"""

from collections import Counter
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from tarot.edit.context import Angles, EditContext, SiteAngles, angles_by_site, offload_hook, resolve_sites
from tarot.edit.patch import Patch, Step, run_at_once, unpatched
from tarot.edit.rotation import ROTARY, Rotation
from tarot.edit.sites import Site
from tarot.errors import InvalidValueError

_MERGEABLE = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_HINT = "apply_rotation(model, angles) edits without merging"


class merge_temporarily(EditContext):
    """Merge a rotation while the context is open, then restore the original weights bit for bit.

    The original weights are set aside and never written to, so the edited projections take twice their memory.
    Contexts are closed in the reverse order of their opening. Threads: see `tarot.edit.patch`.

    Args:
        model: a causal language model of transformers.
        angles: radians, `site x head x angle`, as wide as the widest site.
        sites: where to edit. Default: the heads of the first `len(angles)` layers.
        rotation: family that the angles belong to.

    Raises:
        ShapeMismatch, InvalidValueError: as for `apply_rotation`.
        TarotError: on entry, if a weight cannot be merged into (see `merge_rotation`), or if another thread or task has
            edited the model; on exit, if a context that was opened later is still open. It then stays open.

    Example:
        >>> with merge_temporarily(model, angles, find_sites(model, "heads", [0, 1])):
        ...     model.save_pretrained("my-model")
    """

    def _prepare(self, patch: Patch) -> None:
        _check_mergeable(self.model, self.sites)
        for site, angles in angles_by_site(self.angles.detach(), self.sites, self.rotation):
            folded = _fold(site, angles, self.rotation)
            if hook := offload_hook(site.module):
                patch.replace(site.module, hook, "weights_map", folded)
                continue
            for name, weight in folded.items():
                patch.replace(site.module, site.module.get_parameter(name), "data", weight)


def merge_rotation(
    model: nn.Module, angles: Angles, sites: Sequence[Site] | None = None, rotation: Rotation = ROTARY
) -> None:
    """Merge a rotation in place: `W <- W R^T` at inputs, `W <- R^T W` and `b <- b R` at outputs.

    The weights are computed in float32 or better and rounded once. An interrupt leaves all weights merged or none.
    Weights that accelerate loads for each pass, for example from disk, are not overwritten: the edited ones are handed
    to accelerate and stay in memory.

    Args:
        model: a causal language model of transformers.
        angles: radians, `site x head x angle`, as wide as the widest site.
        sites: where to edit. Default: the heads of the first `len(angles)` layers.
        rotation: family that the angles belong to.

    Raises:
        ShapeMismatch, InvalidValueError: as for `apply_rotation`.
        TarotError: a weight is not plain floating point (quantised or wrapped) or is used elsewhere too (tied), or the
            model has an open edit. The model is unchanged.

    Example:
        >>> merge_rotation(model, angles, find_sites(model, "heads", [0, 1]))
    """
    fitting = resolve_sites(model, angles, sites, rotation)
    _check_mergeable(model, fitting)
    with unpatched(fitting[0].module, model), torch.no_grad():
        steps: list[Step] = []
        for site, row in angles_by_site(angles.detach(), fitting, rotation):
            folded = _fold(site, row, rotation)
            if hook := offload_hook(site.module):
                steps.append(partial(setattr, hook, "weights_map", folded))
                continue
            steps += [partial(site.module.get_parameter(name).copy_, weight) for name, weight in folded.items()]
        run_at_once(steps)


def _check_mergeable(model: nn.Module, sites: Sequence[Site]) -> None:
    """Raise TarotError for a projection whose weights cannot be edited alone."""
    uses = Counter(_address(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    for site in sites:
        parameters = dict(site.module.named_parameters())
        plain = isinstance(site.module, nn.Linear | Conv1D) and parameters.keys() <= {"weight", "bias"}
        if not plain or any(type(p.data) is not Tensor for p in parameters.values()):
            kind = f"{type(site.module).__module__}.{type(site.module).__qualname__}"
            raise InvalidValueError(f"a plain Linear or Conv1D to merge into at {site.name}", kind, _HINT)
        for name, parameter in parameters.items():
            if parameter.dtype not in _MERGEABLE:
                expected = f"floating-point numbers to merge into at {site.name}.{name}"
                raise InvalidValueError(expected, f"{parameter.dtype}, which is quantised", _HINT)
            if uses[_address(parameter)] > 1:
                raise InvalidValueError(
                    f"{site.name}.{name} is tied to another weight, which the edit would change too.", hint=_HINT
                )


def _address(parameter: nn.Parameter) -> int:
    """Return what tied parameters share; the data pointer of all offloaded ones is 0."""
    return id(parameter) if parameter.is_meta else parameter.data_ptr()


@torch.no_grad()
def _fold(site: Site, angles: SiteAngles, rotation: Rotation) -> dict[str, Tensor]:
    """Return the site's parameters by name, those that the edit reaches edited."""
    # An edited input needs W R^T. R^T is R^-1 or, for a scale, R itself.
    invert = site.side == "input" and rotation.orthogonal
    hook = offload_hook(site.module)
    weights = {
        name: hook.weights_map[name] if hook else parameter.data for name, parameter in site.module.named_parameters()
    }
    turn = (rotation.unturn if invert else rotation.turn)(angles.to(weights["weight"].device), site.d_head)

    def fold(rows: Tensor) -> Tensor:
        return turn(rows.unflatten(-1, (site.n_heads, site.d_head))).flatten(-2)

    # The rows must run along the edited side, so that they are turned like activations.
    transposed = isinstance(site.module, Conv1D) != (site.side == "output")
    weight = weights["weight"]
    weights["weight"] = fold(weight.T).T.contiguous() if transposed else fold(weight)
    if site.side == "output" and "bias" in weights:
        weights["bias"] = fold(weights["bias"])
    return weights
