"""x' = x R(angles): the geometry of an edit, on row vectors.

Angles are radians, and zero angles are the identity bit for bit. Leading dimensions are batch and broadcast, so one
call edits every head of every layer. No matrix is built to apply a rotation: planes are turned as complex numbers.

Source: Singh, Dutta and Chakraborty, "Mechanistic Behavior Editing of Language Models", arXiv 2410.04277.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from tarot.errors import InvalidValueError, ShapeMismatch

Turn = Callable[[Tensor], Tensor]


class Rotation(ABC):
    """x' = x R(angles), with R in a family of invertible `d x d` matrices that holds the identity at zero.

    Numbers of 16 bits are computed with 32 and come back as they came. All is differentiable in `x` and in the angles.
    """

    name: ClassVar[str]
    orthogonal: ClassVar[bool]
    """Whether R^T = R^-1. Where not, R^T = R."""

    @abstractmethod
    def n_angles(self, d: int) -> int:
        """How many angles turn a vector of `d` numbers; TarotError when the family has no member of that size."""

    @abstractmethod
    def turn(self, angles: Float[Tensor, "*batch angle"], d: int) -> Turn:
        """x -> x R(angles), where all that depends on the angles alone is computed now, once."""

    @abstractmethod
    def unturn(self, angles: Float[Tensor, "*batch angle"], d: int) -> Turn:
        """y -> y R(angles)^-1, the inverse of `turn`."""

    @abstractmethod
    def contains(self, matrix: Float[Tensor, "*batch d e"], atol: float) -> Bool[Tensor, "*batch"]:
        """Whether each matrix belongs to the family, to within `atol` in every entry."""

    def apply(self, x: Float[Tensor, "*#batch d"], angles: Float[Tensor, "*#batch angle"]) -> Float[Tensor, "... d"]:
        """x R(angles); ShapeMismatch when there are not `n_angles(d)` angles."""
        return self.turn(_as_precise_as(x, angles), x.shape[-1])(x)

    def invert(self, y: Float[Tensor, "*#batch d"], angles: Float[Tensor, "*#batch angle"]) -> Float[Tensor, "... d"]:
        """y R(angles)^-1; ShapeMismatch when there are not `n_angles(d)` angles."""
        return self.unturn(_as_precise_as(y, angles), y.shape[-1])(y)

    def matrix(self, angles: Float[Tensor, "*batch angle"], d: int) -> Float[Tensor, "*batch d d"]:
        """R(angles) = I R(angles), in float32 or the better precision of the angles."""
        identity = torch.eye(d, dtype=_at_least_float32(angles.dtype), device=angles.device)
        return self.apply(identity, angles.unsqueeze(-2))


@dataclass(frozen=True)
class Rotary(Rotation):
    """[x'_2k, x'_2k+1] = [x_2k, x_2k+1] [[cos t_k, -sin t_k], [sin t_k, cos t_k]]: adjacent pairs, `d/2` angles."""

    name: ClassVar[str] = "rotary"
    orthogonal: ClassVar[bool] = True

    def n_angles(self, d: int) -> int:
        if d < 2 or d % 2:
            raise InvalidValueError("an even size for the rotation 'rotary'", str(d), "'givens' turns any size")
        return d // 2

    def turn(self, angles: Float[Tensor, "*batch angle"], d: int) -> Turn:
        planes = _planes(_checked(angles, self.n_angles(d)))
        return _at_32_bits(lambda x: _numbers(planes(_pairs(x))))

    def unturn(self, angles: Float[Tensor, "*batch angle"], d: int) -> Turn:
        return self.turn(-angles, d)

    def contains(self, matrix: Float[Tensor, "*batch d e"], atol: float) -> Bool[Tensor, "*batch"]:
        if matrix.shape[-1] % 2 or not _is_square(matrix):
            return _none_of(matrix)
        cosines = matrix[..., 0::2, 0::2].diagonal(dim1=-2, dim2=-1)
        sines = matrix[..., 1::2, 0::2].diagonal(dim1=-2, dim2=-1)
        nearest = self.matrix(torch.atan2(sines, cosines), matrix.shape[-1])
        return _are_near(matrix, nearest, atol)


@dataclass(frozen=True)
class Givens(Rotation):
    """R = G_1 G_2 ... G_d-1: plane rotations in a tree, `d - 1` angles, any `d`.

    The first level turns the planes (0, 1), (2, 3), ...; the next those of what came first in each: (0, 2), (4, 6), ...
    An odd one out waits for the next level. Every coordinate but 0 comes second exactly once, so there are `d - 1`
    planes and every angle is alive, whatever `d`. Angles are ordered level by level.
    """

    name: ClassVar[str] = "givens"
    orthogonal: ClassVar[bool] = True

    def n_angles(self, d: int) -> int:
        if d < 1:
            raise InvalidValueError("a size of at least 1 for the rotation 'givens'", str(d))
        return d - 1

    def turn(self, angles: Float[Tensor, "*batch angle"], d: int) -> Turn:
        levels, batch = _levels(_checked(angles, self.n_angles(d)), d), angles.new_empty(*angles.shape[:-1], 1)
        return _at_32_bits(lambda x: _climb(torch.broadcast_tensors(x, batch)[0], levels))

    def unturn(self, angles: Float[Tensor, "*batch angle"], d: int) -> Turn:
        levels, batch = _levels(-_checked(angles, self.n_angles(d)), d), angles.new_empty(*angles.shape[:-1], 1)
        return _at_32_bits(lambda y: _descend(torch.broadcast_tensors(y, batch)[0], levels))

    def contains(self, matrix: Float[Tensor, "*batch d e"], atol: float) -> Bool[Tensor, "*batch"]:
        return _is_special_orthogonal(matrix, atol)


@dataclass(frozen=True)
class Scale(Rotation):
    """x' = x exp(t): one log-factor, the paper's rescaling baseline. Not a rotation, but edited and merged like one."""

    name: ClassVar[str] = "scale"
    orthogonal: ClassVar[bool] = False

    def n_angles(self, d: int) -> int:
        if d < 1:
            raise InvalidValueError("a size of at least 1 for the rotation 'scale'", str(d))
        return 1

    def turn(self, angles: Float[Tensor, "*batch angle"], d: int) -> Turn:
        factor = _checked(angles, self.n_angles(d)).exp()
        return _at_32_bits(lambda x: x * factor.to(x.dtype))

    def unturn(self, angles: Float[Tensor, "*batch angle"], d: int) -> Turn:
        return self.turn(-angles, d)

    def contains(self, matrix: Float[Tensor, "*batch d e"], atol: float) -> Bool[Tensor, "*batch"]:
        if not _is_square(matrix):
            return _none_of(matrix)
        factor = matrix.diagonal(dim1=-2, dim2=-1).mean(-1)
        nearest = factor[..., None, None] * torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
        return (factor > 0) & _are_near(matrix, nearest, atol)


ROTARY, GIVENS, SCALE = Rotary(), Givens(), Scale()
ROTATIONS: Mapping[str, Rotation] = MappingProxyType({r.name: r for r in (ROTARY, GIVENS, SCALE)})


# Precision ----------------------------------------------------------------------------------------


def _at_least_float32(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _as_precise_as(x: Tensor, angles: Tensor) -> Tensor:
    return angles.to(torch.promote_types(_at_least_float32(angles.dtype), x.dtype))


def _at_32_bits(turn: Turn) -> Turn:
    # While a model generates, a turn takes microseconds, and each conversion that is none takes one of them.
    return lambda x: turn(x) if x.dtype.itemsize > 2 else turn(x.float()).to(x.dtype)


def _checked(angles: Float[Tensor, "*batch angle"], n: int) -> Float[Tensor, "*batch angle"]:
    if angles.shape[-1:] != (n,):
        raise ShapeMismatch("angles", (*angles.shape[:-1], n), tuple(angles.shape))
    return angles.to(_at_least_float32(angles.dtype))


# Planes -------------------------------------------------------------------------------------------


def _pairs(x: Float[Tensor, "*batch d"]) -> Complex[Tensor, "*batch plane"]:
    """z_k = x_2k + i x_2k+1, a view where the memory allows one."""
    aligned = x.storage_offset() % 2 == 0
    if not (aligned and (x.is_contiguous() or (x.stride(-1) == 1 and not any(step % 2 for step in x.stride()[:-1])))):
        x = x.clone(memory_format=torch.contiguous_format)
    return torch.view_as_complex(x.unflatten(-1, (-1, 2)))


def _numbers(z: Complex[Tensor, "*batch plane"]) -> Float[Tensor, "*batch d"]:
    return torch.view_as_real(z).flatten(-2)


def _planes(angles: Float[Tensor, "*batch plane"]) -> Turn:
    """z -> z exp(-i t): the published sign, since [a, b] [[cos, -sin], [sin, cos]] = [a cos + b sin, b cos - a sin]."""
    phase = torch.complex(angles.cos(), -angles.sin())
    still = angles == 0
    if angles.requires_grad or not still.any():
        return lambda z: z * phase.to(z.dtype)
    # A product with one loses the sign of -0.0 and turns infinity into nan, so planes that do not turn are copied.
    return lambda z: torch.where(still, z, z * phase.to(z.dtype))


def _levels(angles: Float[Tensor, "*batch angle"], d: int) -> list[tuple[int, Turn]]:
    """The tree from its leaves to its root: for each level the number of its planes and how they turn."""
    sizes = []
    while d > 1:
        sizes.append(d // 2)
        d -= d // 2
    return [(size, _planes(level)) for size, level in zip(sizes, angles.split(sizes, dim=-1), strict=True)]


def _climb(x: Float[Tensor, "*batch d"], levels: list[tuple[int, Turn]]) -> Float[Tensor, "*batch d"]:
    """x G_1 G_2 ...: turn the pairs, then climb with the first of each."""
    if not levels:
        return x
    (size, planes), *above = levels
    paired, odd_one = x.tensor_split((2 * size,), dim=-1)
    z = planes(_pairs(paired))
    firsts, odd_one = _climb(_joined(z.real, odd_one), above).tensor_split((size,), dim=-1)
    return _joined(_numbers(torch.complex(firsts, z.imag)), odd_one)


def _descend(y: Float[Tensor, "*batch d"], levels: list[tuple[int, Turn]]) -> Float[Tensor, "*batch d"]:
    """y ... G_2^-1 G_1^-1: descend with the first of each pair, then turn the pairs back."""
    if not levels:
        return y
    (size, planes), *above = levels
    paired, odd_one = y.tensor_split((2 * size,), dim=-1)
    z = _pairs(paired)
    firsts, odd_one = _descend(_joined(z.real, odd_one), above).tensor_split((size,), dim=-1)
    return _joined(_numbers(planes(torch.complex(firsts, z.imag))), odd_one)


def _joined(paired: Float[Tensor, "*batch n"], odd_one: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n+m"]:
    return torch.cat([paired, odd_one], dim=-1) if odd_one.shape[-1] else paired


# Membership ---------------------------------------------------------------------------------------


def _is_square(matrix: Float[Tensor, "*batch d e"]) -> bool:
    return matrix.ndim >= 2 and matrix.shape[-1] == matrix.shape[-2]


def _none_of(matrix: Float[Tensor, "*batch d e"]) -> Bool[Tensor, "*batch"]:
    return torch.zeros(matrix.shape[:-2], dtype=torch.bool, device=matrix.device)


def _are_near(a: Float[Tensor, "*batch d d"], b: Float[Tensor, "*#batch d d"], atol: float) -> Bool[Tensor, "*batch"]:
    return (a - b).abs().amax((-2, -1)) <= atol


def _is_special_orthogonal(matrix: Float[Tensor, "*batch d e"], atol: float) -> Bool[Tensor, "*batch"]:
    if not _is_square(matrix):
        return _none_of(matrix)
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    return _are_near(matrix @ matrix.mT, identity, atol) & (torch.linalg.det(matrix) > 0)
