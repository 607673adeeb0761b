"""Search spaces that only the study measures: one coordinate a layer, and random directions."""

import hashlib
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from tarot.search.space import Space, shared_space


def layer_space(like: Space) -> Space:
    """Return the space of one coordinate a layer, which all of the layer's angles share."""
    layer, _, _ = like.angle_mask.nonzero(as_tuple=True)
    return shared_space("layer", layer, like.bound, like.angle_mask)


@dataclass(frozen=True, eq=False)
class _RandomSpace(Space):
    basis: Float[Tensor, "masked_angle d"]

    @override
    def lift(self, u: Float[Tensor, " d"]) -> Float[Tensor, " masked_angle"]:
        return (self.basis.to(u) @ u).clamp(-1, 1)


def random_space(like: Space, r: int, seed: int) -> Space:
    """Return the span of `r` random orthonormal directions of all angles, scaled by `sqrt(angles / r)`.

        u -> sqrt(angles / r) Q u,    the columns of Q uniformly distributed (Mezzadri, math-ph/0609050)

    A uniform point of the cube gives angles of the same root mean square, `bound / sqrt(3)`, as in `full`. The few that
    would leave `[-bound, bound]` are clipped (Wang et al., REMBO, arXiv 1301.1942).

    Args:
        like: a space over the same angles.
        r: number of directions, at most the number of angles.
        seed: decides the directions, and nothing else does.
    """
    n_angles = int(like.angle_mask.sum())
    digest = hashlib.blake2b(f"tarot space random {seed}".encode(), digest_size=7).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest))
    gaussian = torch.randn(n_angles, r, generator=generator, dtype=torch.float64)
    q, triangle = torch.linalg.qr(gaussian)
    basis = q * triangle.diagonal().sign() * math.sqrt(n_angles / r)
    return _RandomSpace(f"random:{r}", r, like.coordinate, like.bound, like.angle_mask, basis)
