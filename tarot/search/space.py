"""Search spaces: the unit cube mapped to angles, with the identity at its centre.

    angles[alive] = bound * clip(lift(2 x - 1), -1, 1),    angles[not alive] = 0

`lift` is linear, so that `x = 0.5` gives exact zeros and no angle ever leaves `[-bound, bound]`.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tarot.errors import ShapeMismatch, TarotError, UnknownName

SPACES = ("head-gradient", "full", "head", "layer", "random:r")
NEEDS_GRADIENT = frozenset({"head-gradient"})
# Fractions of the bound, along "every head uphill", that are tried first: a line search where a gradient tells the way.
START_STEPS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)


@dataclass(frozen=True, eq=False)
class Space:
    """angles[alive] = bound * clip(lift(2 x - 1), -1, 1): what a search may choose, as a cube.

    Attributes:
        name: as given to `make_space`.
        d: number of coordinates.
        bound: largest magnitude of an angle, in radians.
        alive: which angles exist, `layer x head x angle`.
        lift: from `d` numbers in [-1, 1] to one number for each angle alive; linear.
        starts: points of the cube that are worth trying before any design.
    """

    name: str
    d: int
    bound: float
    angle_mask: Bool[Tensor, "layer head angle"]
    lift: Callable[[Float[Tensor, "d"]], Float[Tensor, "alive"]]
    starts: Float[Tensor, "start d"]

    def angles(self, x: Float[Tensor, "d"]) -> Float[Tensor, "layer head angle"]:
        """bound * clip(lift(2 x - 1), -1, 1), in radians and in the dtype of `x`; differentiable.

        Raises:
            ShapeMismatch: `x` does not have the space's `d` coordinates.
        """
        if x.shape != (self.d,):
            raise ShapeMismatch(f"a point of the space {self.name!r}", (self.d,), tuple(x.shape))
        angles = torch.zeros(self.angle_mask.shape, dtype=x.dtype, device=x.device)
        # Adding zero rids the centre of the negative zeros that downhill directions leave there.
        return angles.masked_scatter(self.angle_mask.to(x.device), self.bound * self.lift(2 * x - 1).clamp(-1, 1) + 0.0)

    def value_and_grad(
        self,
        x: Float[Tensor, "d"],
        of: Callable[[Float[Tensor, "layer head angle"]], tuple[float, Float[Tensor, "layer head angle"]]],
    ) -> tuple[float, Float[Tensor, "d"]]:
        """A function of the angles, which gives its gradient in them, at a point: its value, and its gradient in x."""
        with torch.enable_grad():
            angles = self.angles(point := x.clone().requires_grad_())
        value, gradient = of(angles.detach().float())
        return value, torch.autograd.grad(angles, point, gradient.to(angles.dtype))[0]


def check_space(name: str) -> None:
    """Raise UnknownName unless there is such a space; whether it has `r` directions depends on the model."""
    if name not in SPACES and name.partition(":")[0] != "random":
        raise UnknownName("space", name, SPACES)


def check_bound(bound: float) -> None:
    """Raise TarotError unless angles can be bounded by it, in radians."""
    if not (math.isfinite(bound) and bound > 0):
        raise TarotError("a positive bound in radians", repr(bound), "try 0.785, which is pi/4")


def make_space(
    name: str,
    angle_mask: Bool[Tensor, "layer head angle"],
    bound: float,
    seed: int,
    gradient: Float[Tensor, "layer head angle"] | None = None,
) -> Space:
    """The space called `name` over the angles that are alive.

    - `head-gradient`: one coordinate a head, along the objective's gradient in that head's angles, scaled so that the
      largest of them reaches `bound`. As small as `head`, but each coordinate is the best direction that the head has
      at the identity, positive uphill. Heads whose gradient vanishes have no coordinate.
    - `full`: every angle on its own.
    - `head`: one angle a head, the same for all of the head's angles.
    - `layer`: one angle a layer.
    - `random:r`: `r` random orthonormal directions of all angles, drawn from `seed` and scaled by `sqrt(angles / r)`:
      a uniform point of the cube then gives angles of the same root mean square, `bound / sqrt(3)`, as in `full`. The
      few that would leave `[-bound, bound]` are clipped (Wang et al., REMBO, arXiv 1301.1942).

    Heads and layers without an angle alive have no coordinate.

    Args:
        bound: in radians; the cube's faces.
        seed: only `random:r` draws.
        gradient: of the objective at the identity, for the spaces in `NEEDS_GRADIENT`.

    Raises:
        UnknownName: no such space.
        TarotError: `bound` is not positive and finite, no angle is alive, or `r` is not between 1 and their number.
    """
    check_space(name)
    check_bound(bound)
    angle_mask = angle_mask.cpu()
    n_angles = int(angle_mask.sum())
    if n_angles == 0:
        raise TarotError("at least one angle to search", f"none alive in shape {tuple(angle_mask.shape)}")
    if name in NEEDS_GRADIENT:
        return _head_gradient(name, angle_mask, bound, gradient)
    kind, _, r = name.partition(":")
    if kind == "random":
        return Space(
            name, _rank(name, r, n_angles), bound, angle_mask, _directions(n_angles, int(r), seed), _no_starts(int(r))
        )
    layer, head, _ = angle_mask.nonzero(as_tuple=True)
    owners = {
        "full": torch.arange(n_angles),
        "head": layer * angle_mask.shape[1] + head,
        "layer": layer,
    }
    distinct, coordinate = owners[name].unique(return_inverse=True)
    return Space(
        name, len(distinct), bound, angle_mask, lambda u: u[coordinate.to(u.device)], _no_starts(len(distinct))
    )


def _no_starts(d: int) -> Float[Tensor, "0 d"]:
    return torch.zeros(0, d, dtype=torch.float64)


def _head_gradient(
    name: str,
    angle_mask: Bool[Tensor, "layer head angle"],
    bound: float,
    gradient: Float[Tensor, "layer head angle"] | None,
) -> Space:
    if gradient is None:
        raise TarotError(f"a gradient for the space {name!r}", "none", "try the space 'head'")
    uphill = gradient.detach().double().cpu() * angle_mask
    steepest = uphill.abs().amax(-1, keepdim=True)
    if not torch.isfinite(uphill).all() or not steepest.any():
        raise TarotError("a finite gradient that is not zero everywhere", "another", "try the space 'head'")
    uphill = torch.where(steepest > 0, uphill / steepest, 0.0)[angle_mask]
    layer, head, _ = (angle_mask & (steepest > 0)).nonzero(as_tuple=True)
    distinct = (layer * angle_mask.shape[1] + head).unique()
    layer, head, _ = angle_mask.nonzero(as_tuple=True)
    # Angles of heads without a coordinate get any, times zero.
    coordinate = torch.searchsorted(distinct, layer * angle_mask.shape[1] + head).clamp(max=len(distinct) - 1)
    steps = torch.tensor(START_STEPS, dtype=torch.float64)
    starts = (0.5 + steps / 2)[:, None].expand(-1, len(distinct))
    return Space(name, len(distinct), bound, angle_mask, lambda u: u[coordinate.to(u.device)] * uphill.to(u), starts)


def _rank(name: str, r: str, n_angles: int) -> int:
    if not (r.isascii() and r.isdigit() and 1 <= int(r) <= n_angles):
        raise TarotError(
            f"random:r with r between 1 and {n_angles}, the number of angles",
            repr(name),
            f"try random:{min(32, n_angles)}",
        )
    return int(r)


def _directions(n_angles: int, r: int, seed: int) -> Callable[[Float[Tensor, "d"]], Float[Tensor, "alive"]]:
    """u -> sqrt(angles / r) Q u, the columns of Q orthonormal and uniformly distributed (Mezzadri, math-ph/0609050)."""
    digest = hashlib.blake2b(f"tarot space random {seed}".encode(), digest_size=7).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest))
    gaussian = torch.randn(n_angles, r, generator=generator, dtype=torch.float64)
    q, triangle = torch.linalg.qr(gaussian)
    basis = q * triangle.diagonal().sign() * math.sqrt(n_angles / r)
    return lambda u: basis.to(u) @ u
