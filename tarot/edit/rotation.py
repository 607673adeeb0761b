"""Geometry of an edit: x' = x R(angles), on row vectors.

Angles are radians. Zero angles are the identity bit for bit. Leading dimensions are batch dimensions and broadcast, so
that one call edits every head of every layer. No matrix is built: planes are rotated as complex numbers.

Source: Singh, Dutta and Chakraborty, "Mechanistic Behavior Editing of Language Models", arXiv 2410.04277.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
from jaxtyping import Complex, Float
from torch import Tensor
from typing_extensions import override

from tarot.arguments import Registry
from tarot.errors import InvalidValueError, ShapeMismatch

Angles = Float[Tensor, "layer head angle"]
"""Angles of an edit, in radians: a row for each edited site, of which most layers have one."""
Turn = Callable[[Tensor], Tensor]


class Rotation(ABC):
    """Family of invertible `d x d` matrices R(angles), with R(0) = I.

    Vectors of 16-bit numbers are computed in float32 and keep their dtype. Everything is differentiable in the vectors
    and in the angles.
    """

    name: ClassVar[str]
    orthogonal: ClassVar[bool]
    """Whether R^T = R^-1. Where not, R^T = R."""

    @abstractmethod
    def n_angles(self, d: int) -> int:
        """Return the number of angles of a `d x d` matrix.

        Raises:
            InvalidValueError: the family has no matrix of that size.
        """

    @abstractmethod
    def turn(self, angles: Float[Tensor, "*batch angle"], d: int) -> Turn:
        """Return the function x -> x R(angles). What depends on the angles alone is computed once, now.

        Args:
            angles: `batch x n_angles(d)`.
            d: size of the vectors.

        Raises:
            ShapeMismatch: there are not `n_angles(d)` angles.
        """

    @abstractmethod
    def unturn(self, angles: Float[Tensor, "*batch angle"], d: int) -> Turn:
        """Return the function y -> y R(angles)^-1, the inverse of `turn`."""

    def matrix(self, angles: Float[Tensor, "*batch angle"], d: int) -> Float[Tensor, "*batch d d"]:
        """Return R(angles), `batch x d x d`, in the precision of the angles but at least float32.

        Example:
            >>> ROTARY.matrix(torch.tensor([torch.pi / 2]), 2).round().int().tolist()
            [[0, -1], [1, 0]]
        """
        identity = torch.eye(d, dtype=_at_least_float32(angles.dtype), device=angles.device)
        return self.turn(angles.unsqueeze(-2), d)(identity)


@dataclass(frozen=True)
class Rotary(Rotation):
    """Rotation of adjacent pairs, as in the paper: [[cos t, -sin t], [sin t, cos t]] for each of the `d/2` angles."""

    name: ClassVar[str] = "rotary"
    orthogonal: ClassVar[bool] = True

    @override
    def n_angles(self, d: int) -> int:
        if d < 2 or d % 2:
            raise InvalidValueError("an even size for the rotation 'rotary'", str(d), "'givens' turns any size")
        return d // 2

    @override
    def turn(self, angles: Float[Tensor, "*batch angle"], d: int) -> Turn:
        planes = _planes(_check(angles, self.n_angles(d)))
        return _at_32_bits(lambda x: _numbers(planes(_pairs(x))))

    @override
    def unturn(self, angles: Float[Tensor, "*batch angle"], d: int) -> Turn:
        return self.turn(-angles, d)


@dataclass(frozen=True)
class Givens(Rotation):
    """Product of plane rotations in a tree, R = G_1 G_2 ... G_d-1, for any `d`.

    The first level rotates the planes (0, 1), (2, 3), ...; the next level those of the first coordinates of each plane:
    (0, 2), (4, 6), ... A coordinate without a partner moves up to the next level. Every coordinate but 0 is the second
    of exactly one plane, so there are `d - 1` angles, none of them redundant. Angles are ordered level by level.
    """

    name: ClassVar[str] = "givens"
    orthogonal: ClassVar[bool] = True

    @override
    def n_angles(self, d: int) -> int:
        if d < 1:
            raise InvalidValueError("a size of at least 1 for the rotation 'givens'", str(d))
        return d - 1

    @override
    def turn(self, angles: Float[Tensor, "*batch angle"], d: int) -> Turn:
        levels, batch = _levels(_check(angles, self.n_angles(d)), d), angles.new_empty(*angles.shape[:-1], 1)
        return _at_32_bits(lambda x: _climb(torch.broadcast_tensors(x, batch)[0], levels))

    @override
    def unturn(self, angles: Float[Tensor, "*batch angle"], d: int) -> Turn:
        levels, batch = _levels(-_check(angles, self.n_angles(d)), d), angles.new_empty(*angles.shape[:-1], 1)
        return _at_32_bits(lambda y: _descend(torch.broadcast_tensors(y, batch)[0], levels))


@dataclass(frozen=True)
class Scale(Rotation):
    """Rescaling x' = x exp(t), a baseline of the paper: one log-factor, applied and merged like a rotation."""

    name: ClassVar[str] = "scale"
    orthogonal: ClassVar[bool] = False

    @override
    def n_angles(self, d: int) -> int:
        if d < 1:
            raise InvalidValueError("a size of at least 1 for the rotation 'scale'", str(d))
        return 1

    @override
    def turn(self, angles: Float[Tensor, "*batch angle"], d: int) -> Turn:
        factor = _check(angles, self.n_angles(d)).exp()
        return _at_32_bits(lambda x: x * factor.to(x.dtype))

    @override
    def unturn(self, angles: Float[Tensor, "*batch angle"], d: int) -> Turn:
        return self.turn(-angles, d)


ROTARY, GIVENS, SCALE = Rotary(), Givens(), Scale()
ROTATIONS: Mapping[str, Rotation] = MappingProxyType(Registry("rotation", {r.name: r for r in (ROTARY, GIVENS, SCALE)}))


# Precision ----------------------------------------------------------------------------------------


def _at_least_float32(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _at_32_bits(turn: Turn) -> Turn:
    # In generation a turn takes microseconds, so avoid conversions to the same dtype, which take one each.
    return lambda x: turn(x) if x.dtype.itemsize > 2 else turn(x.float()).to(x.dtype)


def _check(angles: Float[Tensor, "*batch angle"], n: int) -> Float[Tensor, "*batch angle"]:
    if angles.shape[-1:] != (n,):
        raise ShapeMismatch("angles", (*angles.shape[:-1], n), tuple(angles.shape))
    return angles.to(_at_least_float32(angles.dtype))


# Planes -------------------------------------------------------------------------------------------


def _pairs(x: Float[Tensor, "*batch d"]) -> Complex[Tensor, "*batch plane"]:
    """Return z_k = x_2k + i x_2k+1, as a view if the memory layout allows one."""
    aligned = x.storage_offset() % 2 == 0
    if not (aligned and (x.is_contiguous() or (x.stride(-1) == 1 and not any(step % 2 for step in x.stride()[:-1])))):
        x = x.clone(memory_format=torch.contiguous_format)
    return torch.view_as_complex(x.unflatten(-1, (-1, 2)))


def _numbers(z: Complex[Tensor, "*batch plane"]) -> Float[Tensor, "*batch d"]:
    return torch.view_as_real(z).flatten(-2)


def _planes(angles: Float[Tensor, "*batch plane"]) -> Turn:
    """Return z -> z exp(-i t), the paper's sign: [a, b] [[cos, -sin], [sin, cos]] = [a cos + b sin, b cos - a sin]."""
    phase = torch.complex(angles.cos(), -angles.sin())
    is_zero = angles == 0
    if angles.requires_grad or not is_zero.any():
        return lambda z: z * phase.to(z.dtype)
    # Multiplying by 1 would lose the sign of -0.0 and turn infinity into NaN, so copy the planes with zero angles.
    return lambda z: torch.where(is_zero, z, z * phase.to(z.dtype))


def _levels(angles: Float[Tensor, "*batch angle"], d: int) -> list[tuple[int, Turn]]:
    """Return the number of planes of each level, from the leaves to the root, and the function that rotates them."""
    sizes = []
    while d > 1:
        sizes.append(d // 2)
        d -= d // 2
    return [(size, _planes(level)) for size, level in zip(sizes, angles.split(sizes, dim=-1), strict=True)]


def _climb(x: Float[Tensor, "*batch d"], levels: list[tuple[int, Turn]]) -> Float[Tensor, "*batch d"]:
    """Return x G_1 G_2 ...: rotate the pairs, then climb with the first of each."""
    if not levels:
        return x
    (size, planes), *above = levels
    paired, unpaired = x.tensor_split((2 * size,), dim=-1)
    z = planes(_pairs(paired))
    firsts, unpaired = _climb(_concatenate(z.real, unpaired), above).tensor_split((size,), dim=-1)
    return _concatenate(_numbers(torch.complex(firsts, z.imag)), unpaired)


def _descend(y: Float[Tensor, "*batch d"], levels: list[tuple[int, Turn]]) -> Float[Tensor, "*batch d"]:
    """Return y ... G_2^-1 G_1^-1: descend with the first of each pair, then rotate the pairs back."""
    if not levels:
        return y
    (size, planes), *above = levels
    paired, unpaired = y.tensor_split((2 * size,), dim=-1)
    z = _pairs(paired)
    firsts, unpaired = _descend(_concatenate(z.real, unpaired), above).tensor_split((size,), dim=-1)
    return _concatenate(_numbers(planes(torch.complex(firsts, z.imag))), unpaired)


def _concatenate(paired: Float[Tensor, "*batch n"], unpaired: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n+m"]:
    return torch.cat([paired, unpaired], dim=-1) if unpaired.shape[-1] else paired
