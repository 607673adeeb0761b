"""Rotations applied to vectors, and membership of matrices: what only the tests need."""

import torch
from torch import Tensor

from tarot.edit.rotation import ROTARY, SCALE, Rotation


def apply(rotation: Rotation, x: Tensor, angles: Tensor) -> Tensor:
    """Return `x R(angles)`."""
    return rotation.turn(_as_precise_as(x, angles), x.shape[-1])(x)


def invert(rotation: Rotation, y: Tensor, angles: Tensor) -> Tensor:
    """Return `y R(angles)^-1`."""
    return rotation.unturn(_as_precise_as(y, angles), y.shape[-1])(y)


def _as_precise_as(x: Tensor, angles: Tensor) -> Tensor:
    return angles.to(torch.promote_types(torch.promote_types(angles.dtype, torch.float32), x.dtype))


def contains(rotation: Rotation, matrix: Tensor, atol: float) -> Tensor:
    """Return whether each matrix (`batch x d x e`) belongs to the family, to within `atol` in every entry."""
    d = matrix.shape[-1]
    if matrix.shape[-2] != d or (rotation is ROTARY and d % 2):
        return torch.zeros(matrix.shape[:-2], dtype=torch.bool)
    identity = torch.eye(d, dtype=matrix.dtype)
    if rotation is SCALE:
        factor = matrix.diagonal(dim1=-2, dim2=-1).mean(-1)
        return (factor > 0) & _are_near(matrix, factor[..., None, None] * identity, atol)
    if rotation is ROTARY:
        cosines = matrix[..., 0::2, 0::2].diagonal(dim1=-2, dim2=-1)
        sines = matrix[..., 1::2, 0::2].diagonal(dim1=-2, dim2=-1)
        return _are_near(matrix, rotation.matrix(torch.atan2(sines, cosines), d), atol)
    return _are_near(matrix @ matrix.mT, identity, atol) & (torch.linalg.det(matrix) > 0)


def _are_near(a: Tensor, b: Tensor, atol: float) -> Tensor:
    return (a - b).abs().amax((-2, -1)) <= atol
