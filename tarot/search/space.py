"""Search spaces: the unit cube mapped to angles, with the identity at its centre.

    angles[mask] = bound (2 x - 1)[coordinate],    angles[~mask] = 0

So `x = 0.5` gives exact zeros, and every angle is in `[-bound, bound]`. To add a space, write a function that says
which angles share a coordinate, enter it in `SPACES`, and add its name to `Space` in `tarot.cli.options` and to
`_Space` in `tarot.cli.recipe`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tarot.arguments import Registry, require_number
from tarot.edit.rotation import Angles
from tarot.errors import ShapeMismatch, TarotError

AngleMask = Bool[Tensor, "layer head angle"]


@dataclass(frozen=True, eq=False)
class Space:
    """A search space over the angles of an edit.

    Attributes:
        name: as given to `make_space`.
        d: number of coordinates.
        coordinate: which coordinate each angle in the mask follows.
        bound: largest magnitude of an angle, in radians.
        angle_mask: which angles exist, `layer x head x angle`.
    """

    name: str
    d: int
    coordinate: Int[Tensor, " masked_angle"]
    bound: float
    angle_mask: AngleMask

    def lift(self, u: Float[Tensor, " d"]) -> Float[Tensor, " masked_angle"]:
        """Return the angles in the mask as fractions of the bound, for coordinates in [-1, 1]."""
        return u[self.coordinate.to(u.device)]

    def angles(self, x: Float[Tensor, "d"]) -> Angles:
        """Return the angles of a point, in radians and in the dtype of `x`; differentiable.

        Raises:
            ShapeMismatch: `x` does not have the space's `d` coordinates.
        """
        if x.shape != (self.d,):
            raise ShapeMismatch(f"a point of the space {self.name!r}", (self.d,), tuple(x.shape))
        values = self.bound * self.lift(2 * x - 1)
        angles = torch.zeros(self.angle_mask.shape, dtype=x.dtype, device=x.device)
        return angles.masked_scatter(self.angle_mask.to(x.device), values)

    def applied_angles(self, x: Float[Tensor, " d"]) -> Angles:
        """Return the angles of a point in single precision, in which they are applied and saved."""
        return self.angles(x).float()

    def value_and_grad(
        self, x: Float[Tensor, "d"], function: Callable[[Angles], tuple[float, Angles]]
    ) -> tuple[float, Float[Tensor, "d"]]:
        """Return the value of a function of the angles at a point, and its gradient in the coordinates.

        Args:
            x: the point.
            function: maps angles to a value and its gradient in the angles, per radian.
        """
        with torch.enable_grad():
            angles = self.angles(point := x.clone().requires_grad_())
        value, gradient = function(angles.detach().float())
        return value, torch.autograd.grad(angles, point, gradient.to(angles.dtype))[0]


def make_space(name: str, angle_mask: AngleMask, bound: float) -> Space:
    """Return the space of this name over the angles in the mask.

    - `full`: every angle is a coordinate.
    - `head`: one coordinate a head, which all of the head's angles share.

    Args:
        name: a name in `SPACES`.
        angle_mask: which angles exist.
        bound: largest magnitude of an angle, in radians.

    Raises:
        UnknownName: no space has this name.
        TarotError: the mask is empty.

    Example:
        >>> mask = torch.ones(2, 3, 4, dtype=torch.bool)
        >>> space = make_space("head", mask, bound=0.785)
        >>> space.d, space.angles(torch.ones(6)).max().item()
        (6, 0.7850000262260437)
    """
    owners = SPACES[name]
    bound = require_bound(bound)
    if not angle_mask.any():
        raise TarotError("at least one angle to search", f"an empty mask of shape {tuple(angle_mask.shape)}")
    angle_mask = angle_mask.cpu()
    return shared_space(name, owners(angle_mask), bound, angle_mask)


def shared_space(name: str, owner: Int[Tensor, " masked_angle"], bound: float, angle_mask: AngleMask) -> Space:
    """Return the space with one coordinate for each distinct owner, which all angles of that owner share."""
    distinct, coordinate = owner.unique(return_inverse=True)
    return Space(name, len(distinct), coordinate, bound, angle_mask)


def require_bound(bound: object) -> float:
    """Return the bound as a float; InvalidValueError unless it is a positive, finite number of radians."""
    return require_number("bound", bound, "a positive number of radians, such as 0.785", lambda x: 0 < x < math.inf)


def _full(angle_mask: AngleMask) -> Int[Tensor, " masked_angle"]:
    return torch.arange(int(angle_mask.sum()))


def _head(angle_mask: AngleMask) -> Int[Tensor, " masked_angle"]:
    layer, head, _ = angle_mask.nonzero(as_tuple=True)
    return layer * angle_mask.shape[1] + head


SPACES: Registry[Callable[[AngleMask], Int[Tensor, " masked_angle"]]] = Registry(
    "space", {"full": _full, "head": _head}
)
"""Owner of each angle in a mask, by the name of the space."""
