"""Base of the context managers that edit a model, and the checks and placement of their angles."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tarot.edit.patch import Patch
from tarot.edit.rotation import ROTARY, Angles, Rotation
from tarot.edit.sites import Site, angle_mask, find_sites, n_layers
from tarot.errors import InvalidValueError, ShapeMismatch, TarotError

SiteAngles = Float[Tensor, "head angle"]


class EditContext(AbstractContextManager[nn.Module], ABC):
    """Edit of a model that ends with the context.

    It may be entered again, even while it is open.

    Args:
        model: a causal language model of transformers.
        angles: radians, `site x head x angle`, as wide as the widest site; a narrower site ignores the rest of its row.
        sites: where to edit. Default: the heads of the first `len(angles)` layers.
        rotation: family that the angles belong to.

    Raises:
        ShapeMismatch: the angles do not fit the sites.
        InvalidValueError: the angles are not finite, or the sites belong to another model.
    """

    def __init__(
        self, model: nn.Module, angles: Angles, sites: Sequence[Site] | None = None, rotation: Rotation = ROTARY
    ) -> None:
        self.model = model
        self.angles = angles
        self.sites = resolve_sites(model, angles, sites, rotation)
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
        except TarotError:  # closed in the wrong order; the patch is still open
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
        """Compute the edit and add its changes to `patch`, without changing the model."""


def resolve_sites(
    model: nn.Module, angles: Angles, sites: Sequence[Site] | None, rotation: Rotation
) -> tuple[Site, ...]:
    """Return the sites that the angles belong to, checked; errors as for `EditContext`."""
    if sites is None:
        rows = angles.shape[0] if angles.ndim else 0
        sites = find_sites(model, "heads", range(min(max(rows, 1), n_layers(model))))
    if not sites:
        raise InvalidValueError("at least one site", "none")
    modules = set(model.modules())
    if foreign := next((site.name for site in sites if site.module not in modules), None):
        raise InvalidValueError(
            f"The site {foreign} belongs to another model.", hint="find_sites(model) finds those of this one"
        )
    expected = tuple(angle_mask(sites, rotation.n_angles).shape)
    if tuple(angles.shape) != expected:
        hint = f"{len(sites)} sites from {sites[0].name} to {sites[-1].name}, rotation {rotation.name!r}"
        raise ShapeMismatch("angles", expected, tuple(angles.shape), hint)
    if not angles.isfinite().all():
        raise InvalidValueError("finite angles", f"{int((~angles.isfinite()).sum())} that are not")
    return tuple(sites)


def angles_by_site(angles: Angles, sites: Sequence[Site], rotation: Rotation) -> Iterator[tuple[Site, SiteAngles]]:
    """Yield each site with its own angles (`head x angle`), on its device and in at least its weight's precision."""
    for site, row in zip(sites, angles, strict=True):
        weight = next(site.module.parameters())
        dtype = torch.float64 if weight.dtype == torch.float64 else row.dtype
        hook = offload_hook(site.module)
        device = hook.execution_device if hook else weight.device
        yield site, row[: site.n_heads, : rotation.n_angles(site.d_head)].to(device, dtype)


def offload_hook(module: nn.Module) -> Any:
    """Return accelerate's hook that loads the module's weights for each pass; None if the weights are in memory."""
    hook = getattr(module, "_hf_hook", None)
    return hook if getattr(hook, "offload", False) else None
