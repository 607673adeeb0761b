"""z' = z R: the edit applied to a model, by hooks while it runs or folded into its weights.

With `out = z W^T` (rows; `W` is `out x in`), editing a projection's input is the same as the weight `W R^T`, and
editing its output the same as `R^T W` with the bias `b R`. transformers' Conv1D keeps `W^T`.

Source of the edit: Singh, Dutta and Chakraborty, "Mechanistic Behavior Editing of Language Models", arXiv 2410.04277.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from tarot.edit.patch import Patch, Step, at_once, unpatched
from tarot.edit.rotation import ROTARY, Rotation
from tarot.edit.sites import Site, alive, find_sites, n_layers
from tarot.errors import ShapeMismatch, TarotError

Angles = Float[Tensor, "site head angle"]
SiteAngles = Float[Tensor, "head angle"]


class _Edit(AbstractContextManager[nn.Module], ABC):
    """An edit of a model that ends with the context; it may be entered again, while open too."""

    def __init__(
        self, model: nn.Module, angles: Angles, sites: Sequence[Site] | None = None, rotation: Rotation = ROTARY
    ) -> None:
        self.model = model
        self.angles = angles
        self.sites = _fitting_sites(model, angles, sites, rotation)
        self.rotation = rotation
        self._entered: list[Patch] = []

    def __enter__(self) -> nn.Module:
        patch = Patch(self.sites[0].module, self.model)
        try:
            self._entered.append(patch)
            patch.__enter__()
            self._prepare(patch)
            patch.apply()
            return self.model
        except BaseException:
            patch.__exit__()
            raise

    def __exit__(self, *exception: object) -> None:
        try:
            self._close()
        except TarotError:  # closed in the wrong order: it is still open
            raise
        except BaseException:
            self._close()
            raise

    def _close(self) -> None:
        if patch := next((each for each in reversed(self._entered) if each.is_open), None):
            patch.__exit__()
        self._entered = [each for each in self._entered if each.is_open]

    @abstractmethod
    def _prepare(self, patch: Patch) -> None:
        """Compute the edit and add its changes to `patch`; the model stays as it is."""


class rotated(_Edit):
    """z' = z R(angles) at every site, while the context is open.

    Args:
        model: a causal language model of transformers.
        angles: radians, `(site, head, angle)`, as wide as the widest site; a narrower site leaves the rest unread.
        sites: where; if not given, the heads of the first `len(angles)` layers.
        rotation: the family of R.

    Contexts nest, the first entered acting first; they may be closed in any order. However one is left, its hooks are
    gone and no weight was touched. Gradients reach `angles`, which are read on entering: enter anew for each backward
    pass.

    Only one thread, or one asyncio task, at a time edits a model: another one that opens an edit of the same model, or
    runs the model while the edit is open, gets a TarotError. Give each thread a model of its own. An edited model
    cannot be copied or pickled.

    Raises ShapeMismatch for angles of another shape, TarotError for angles that are not finite, sites of another model,
    or a model that another thread or task has edited.
    """

    def _prepare(self, patch: Patch) -> None:
        for site, angles in _by_site(self.angles, self.sites, self.rotation):
            # Zero angles leave even infinities alone, at no cost; but their gradient has to pass.
            if angles.requires_grad or angles.any():
                _hook(patch, site, angles, self.rotation)


class merged(_Edit):
    """`merge_` while the context is open; then the weights of before, bit for bit, also when the body raises.

    Arguments as for `rotated`, errors as for `merge_`. The weights of before are set aside, never written to, at the
    cost of the edited projections' memory once more. Threads and tasks: as for `rotated`. Contexts are closed in the
    reverse order of their opening: another order is a TarotError, and the context stays open.
    """

    def _prepare(self, patch: Patch) -> None:
        _refuse_unmergeable(self.model, self.sites)
        for site, angles in _by_site(self.angles.detach(), self.sites, self.rotation):
            folded = _folded(site, angles, self.rotation, backwards=False)
            if hook := _elsewhere(site.module):
                patch.replace(site.module, hook, "weights_map", folded)
                continue
            for name, weight in folded.items():
                patch.replace(site.module, site.module.get_parameter(name), "data", weight)


def merge_(model: nn.Module, angles: Angles, sites: Sequence[Site] | None = None, rotation: Rotation = ROTARY) -> None:
    """W <- W R^T (input side), or W <- R^T W and b <- b R (output side), in place.

    Arguments as for `rotated`. Computed in float32 or better and rounded once. Weights that accelerate fetches for each
    pass, from the disk say, are not written to: it is given the edited ones instead, which stay in memory. Beside the
    errors of `rotated`, TarotError for a weight that is not plain floating point (quantised, wrapped) or that the model
    uses elsewhere too (tied), and for a model with an open edit; nothing is changed then. An interrupt leaves all
    weights merged or none.
    """
    _write(model, angles, sites, rotation, backwards=False)


def unmerge_(
    model: nn.Module, angles: Angles, sites: Sequence[Site] | None = None, rotation: Rotation = ROTARY
) -> None:
    """W <- W R^-T (input side), or W <- R^-T W and b <- b R^-1 (output side): undoes `merge_` up to rounding."""
    _write(model, angles, sites, rotation, backwards=True)


def _fitting_sites(
    model: nn.Module, angles: Angles, sites: Sequence[Site] | None, rotation: Rotation
) -> tuple[Site, ...]:
    if sites is None:
        rows = angles.shape[0] if angles.ndim else 0
        sites = find_sites(model, "heads", range(min(max(rows, 1), n_layers(model))))
    if not sites:
        raise TarotError("at least one site", "none")
    modules = set(model.modules())
    if stranger := next((site.name for site in sites if site.module not in modules), None):
        raise TarotError("sites of this model", f"{stranger} of another", "find_sites(model) finds them")
    expected = tuple(alive(sites, rotation.n_angles).shape)
    if tuple(angles.shape) != expected:
        hint = f"{len(sites)} sites from {sites[0].name} to {sites[-1].name}, rotation {rotation.name!r}"
        raise ShapeMismatch("angles", expected, tuple(angles.shape), hint)
    if not angles.isfinite().all():
        raise TarotError("finite angles", f"{int((~angles.isfinite()).sum())} that are not")
    return tuple(sites)


def _by_site(angles: Angles, sites: Sequence[Site], rotation: Rotation) -> Iterator[tuple[Site, SiteAngles]]:
    """Each site with its own angles, on its device and no less precise than its weight."""
    for site, row in zip(sites, angles, strict=True):
        weight = next(site.module.parameters())
        dtype = torch.float64 if weight.dtype == torch.float64 else row.dtype
        hook = _elsewhere(site.module)
        device = hook.execution_device if hook else weight.device
        yield site, row[: site.n_heads, : rotation.n_angles(site.d_head)].to(device, dtype)


def _elsewhere(module: nn.Module) -> Any:
    """accelerate's hook that brings the module's weights for each pass, from the disk say; None where they are here."""
    hook = getattr(module, "_hf_hook", None)
    return hook if getattr(hook, "offload", False) else None


def _hook(patch: Patch, site: Site, angles: SiteAngles, rotation: Rotation) -> None:
    turn = rotation.turn(angles, site.d_head)
    shape = (site.n_heads, site.d_head)

    def before(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return turn(args[0].unflatten(-1, shape)).flatten(-2), *args[1:]

    def after(_: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
        return turn(out.unflatten(-1, shape)).flatten(-2)

    if site.side == "input":
        patch.before(site.module, before)
    else:
        patch.after(site.module, after)


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
    hook = _elsewhere(site.module)
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
    fitting = _fitting_sites(model, angles, sites, rotation)
    _refuse_unmergeable(model, fitting)
    with unpatched(fitting[0].module, model), torch.no_grad():
        steps: list[Step] = []
        for site, row in _by_site(angles.detach(), fitting, rotation):
            folded = _folded(site, row, rotation, backwards=backwards)
            if hook := _elsewhere(site.module):
                steps.append(partial(setattr, hook, "weights_map", folded))
                continue
            steps += [partial(site.module.get_parameter(name).copy_, weight) for name, weight in folded.items()]
        at_once(steps)
