"""Hypothesis strategies: rotations, sizes, shapes, dtypes, and tensors that shrink."""

import math

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from tarot.edit.rotation import ROTARY, ROTATIONS, Rotation

rotations = st.sampled_from(list(ROTATIONS.values()))
orthogonal_rotations = st.sampled_from([rotation for rotation in ROTATIONS.values() if rotation.orthogonal])
dtypes = st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16])
batch_shapes = st_numpy.array_shapes(min_dims=0, max_dims=3, max_side=3)


def sizes(rotation: Rotation, largest: int = 13) -> st.SearchStrategy[int]:
    """Sizes d the rotation has members of."""
    even = st.integers(1, largest // 2).map(lambda half: 2 * half)
    return even if rotation is ROTARY else st.integers(1, largest)


def tensors(
    shape: tuple[int, ...], bound: float, dtype: torch.dtype = torch.float64
) -> st.SearchStrategy[torch.Tensor]:
    """Finite numbers up to `bound`, zeros of both signs among them."""
    elements = st.floats(-bound, bound, allow_subnormal=False)
    return st_numpy.arrays(np.float64, shape, elements=elements).map(lambda array: torch.from_numpy(array).to(dtype))


@st.composite
def turns(
    draw: st.DrawFn, rotations: st.SearchStrategy[Rotation] = rotations
) -> tuple[Rotation, torch.Tensor, torch.Tensor]:
    """A rotation, vectors `(*batch, head, d)` and angles `(head, angle)`, all float64."""
    rotation = draw(rotations)
    d, heads = draw(sizes(rotation)), draw(st.integers(1, 3))
    x = draw(tensors((*draw(batch_shapes), heads, d), 10.0))
    return rotation, x, draw(tensors((heads, rotation.n_angles(d)), math.pi))
