"""Rotations: properties, then a slow dense oracle, then the published example."""

import math
from dataclasses import FrozenInstanceError
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rotations import apply, contains, invert
from strategies import dtypes, orthogonal_rotations, rotations, sizes, tensors, turns

from tarot.edit.rotation import GIVENS, ROTARY, ROTATIONS, SCALE, Rotation
from tarot.errors import InvalidValueError, ShapeMismatch

EVERY = pytest.mark.parametrize("rotation", ROTATIONS.values(), ids=ROTATIONS)
BITS = {torch.float64: torch.int64, torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-12) -> bool:
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance * 10)


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Compare bit for bit, the signs of zeros too; all NaNs are alike."""
    bits = [x.masked_fill(x.isnan(), math.nan).contiguous().view(BITS[x.dtype]) for x in (a, b)]
    return a.dtype == b.dtype and torch.equal(*bits)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# Properties ---------------------------------------------------------------------------------------


@given(turns(orthogonal_rotations))
def test_matrices_are_orthogonal_with_determinant_one(turn):
    rotation, x, angles = turn
    matrix = rotation.matrix(angles, x.shape[-1])
    assert close(matrix @ matrix.mT, torch.eye(x.shape[-1], dtype=torch.float64).expand_as(matrix))
    assert close(torch.linalg.det(matrix), torch.ones(len(matrix), dtype=torch.float64))


@given(turns())
def test_matrices_belong_to_their_family(turn):
    rotation, x, angles = turn
    assert contains(rotation, rotation.matrix(angles, x.shape[-1]), 1e-9).all()


@given(st.data(), rotations, dtypes)
def test_zero_angles_are_the_identity_bit_for_bit(data, rotation, dtype):
    d = data.draw(sizes(rotation))
    odd_numbers = torch.tensor([-0.0, 0.0, math.inf, -math.inf, math.nan, 1e-3], dtype=dtype)
    x = odd_numbers[data.draw(st.lists(st.integers(0, 5), min_size=2 * d, max_size=2 * d))].reshape(2, d)
    for zero in (0.0, -0.0):
        angles = torch.full((rotation.n_angles(d),), zero)
        assert same_bits(apply(rotation, x, angles), x)
        assert same_bits(invert(rotation, x, angles), x)


@given(turns())
def test_zero_angles_with_gradients_are_the_identity(turn):
    rotation, x, angles = turn
    assert torch.equal(apply(rotation, x, torch.zeros_like(angles, requires_grad=True)), x)


@given(turns())
def test_the_inverse_undoes_the_rotation(turn):
    rotation, x, angles = turn
    assert close(invert(rotation, apply(rotation, x, angles), angles), x)
    assert close(apply(rotation, invert(rotation, x, angles), angles), x)


@given(turns(st.sampled_from([ROTARY, SCALE])), st.data())
def test_angles_add_up(turn, data):
    rotation, x, angles = turn
    more = data.draw(tensors(tuple(angles.shape), math.pi))
    assert close(apply(rotation, apply(rotation, x, angles), more), apply(rotation, x, angles + more))


@given(turns(orthogonal_rotations), st.data())
def test_norms_and_inner_products_are_kept(turn, data):
    rotation, x, angles = turn
    y = data.draw(tensors(tuple(x.shape), 10.0))
    turned_x, turned_y = apply(rotation, x, angles), apply(rotation, y, angles)
    assert close(turned_x.norm(dim=-1), x.norm(dim=-1))
    assert torch.allclose((turned_x * turned_y).sum(-1), (x * y).sum(-1), atol=1e-10)


@given(turns())
def test_a_batch_is_rotated_vector_by_vector(turn):
    rotation, x, angles = turn
    rows, batch = x.reshape(-1, *x.shape[-2:]), apply(rotation, x, angles).reshape(-1, *x.shape[-2:])
    for row, turned in zip(rows, batch, strict=True):
        for head in range(len(angles)):
            assert close(apply(rotation, row[head], angles[head]), turned[head])


@given(turns())
def test_inputs_are_not_changed(turn):
    rotation, x, angles = turn
    before = x.clone(), angles.clone()
    apply(rotation, x, angles), invert(rotation, x, angles)
    assert same_bits(x, before[0]) and same_bits(angles, before[1])


@given(turns(), dtypes, st.sampled_from([torch.float64, torch.float32, torch.bfloat16]))
def test_vectors_keep_their_dtype_and_are_rounded_once(turn, dtype, angle_dtype):
    rotation, x, angles = turn
    x, angles = x.to(dtype), angles.to(angle_dtype)
    turned = apply(rotation, x, angles)
    assert turned.dtype == dtype
    exact = apply(rotation, x.double(), angles.double())
    once = torch.finfo(dtype).eps / 2 + 16 * torch.finfo(torch.promote_types(dtype, torch.float32)).eps
    largest = (
        exact.abs() + x.double().norm(dim=-1, keepdim=True) * rotation.matrix(angles.double(), x.shape[-1]).abs().amax()
    )
    within = torch.finfo(dtype).tiny + once * largest
    assert ((turned.double() - exact).abs() <= within).all()


# Oracle -------------------------------------------------------------------------------------------


def dense(rotation: Rotation, angles: list[float], d: int) -> torch.Tensor:
    """Return the matrix, built entry by entry as a product of plane rotations."""
    if rotation is SCALE:
        return torch.eye(d, dtype=torch.float64) * math.exp(angles[0])
    if rotation is ROTARY:
        planes = [(first, first + 1) for first in range(0, d, 2)]
    else:
        strides = [2**level for level in range(d.bit_length())]
        planes = [(first, first + stride) for stride in strides for first in range(0, d - stride, 2 * stride)]
    product = torch.eye(d, dtype=torch.float64)
    for (i, j), angle in zip(planes, angles, strict=True):
        plane = torch.eye(d, dtype=torch.float64)
        plane[i, i] = plane[j, j] = math.cos(angle)
        plane[i, j], plane[j, i] = -math.sin(angle), math.sin(angle)
        product = product @ plane
    return product


@given(turns())
def test_agrees_with_the_dense_oracle(turn):
    rotation, x, angles = turn
    oracle = torch.stack([dense(rotation, head.tolist(), x.shape[-1]) for head in angles])
    assert close(rotation.matrix(angles, x.shape[-1]), oracle)
    assert close(apply(rotation, x, angles), torch.einsum("...hd,hde->...he", x, oracle))
    assert close(invert(rotation, x, angles), torch.einsum("...hd,hde->...he", x, torch.linalg.inv(oracle)))


@pytest.mark.parametrize("d", range(2, 20))
def test_every_givens_angle_matters(d):
    angles = random(d - 1, seed=d)
    slopes = torch.autograd.functional.jacobian(lambda t: GIVENS.matrix(t, d), angles)
    assert (slopes.flatten(0, 1).norm(dim=0) > 0.1).all()
    for index in range(d - 1):
        moved = angles.clone()
        moved[index] += 1.0
        assert not close(GIVENS.matrix(moved, d), GIVENS.matrix(angles, d), 1e-3)


@EVERY
@pytest.mark.parametrize("start", ["zero", "random"])
def test_gradients_are_right(rotation, start):
    d = 6
    angles = random(3, rotation.n_angles(d), seed=1) * (start == "random")
    for function in (apply, invert):
        inputs = random(2, 3, d).requires_grad_(), angles.clone().requires_grad_()
        assert torch.autograd.gradcheck(partial(function, rotation), inputs)
    assert torch.autograd.gradcheck(lambda x: apply(rotation, x, angles), (random(2, 3, d).requires_grad_(),))


def layouts(d: int) -> dict[str, torch.Tensor]:
    """Return the same numbers in memory layouts in which pairs cannot be viewed as complex numbers."""
    x = random(4, d)
    odd_offset = torch.cat([torch.zeros(1, dtype=x.dtype), x.flatten()])[1:].view(4, d)
    odd_rows = torch.cat([x, torch.zeros(4, 1, dtype=x.dtype)], dim=1)[:, :d]
    return {"plain": x, "transposed": x.T.contiguous().T, "odd offset": odd_offset, "odd rows": odd_rows}


@EVERY
@pytest.mark.parametrize("layout", ["transposed", "odd offset", "odd rows"])
def test_memory_layout_does_not_matter(rotation, layout):
    d = 6
    angles, held = random(rotation.n_angles(d)), layouts(d)
    assert torch.equal(held[layout], held["plain"])
    assert close(apply(rotation, held[layout], angles), apply(rotation, held["plain"], angles))
    assert close(apply(rotation, held[layout][1:2], angles), apply(rotation, held["plain"], angles)[1:2])


@EVERY
def test_an_empty_batch(rotation):
    assert apply(rotation, torch.empty(0, 3, 6), torch.ones(3, rotation.n_angles(6))).shape == (0, 3, 6)


# Examples -----------------------------------------------------------------------------------------


def test_the_published_sign():
    """Row vectors: z' = z R, each block [[cos t, -sin t], [sin t, cos t]]."""
    quarter = torch.tensor([math.pi / 2, 0.0], dtype=torch.float64)
    assert close(ROTARY.matrix(quarter, 4)[:2, :2], torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64))
    turned = apply(ROTARY, torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64), quarter)
    assert close(turned, torch.tensor([2.0, -1.0, 3.0, 4.0], dtype=torch.float64))


def test_givens_of_two_is_rotary_of_two():
    angle = torch.tensor([0.3])
    assert torch.equal(GIVENS.matrix(angle, 2), ROTARY.matrix(angle, 2))


def test_scale_multiplies_by_the_exponential():
    thrice = apply(SCALE, torch.ones(2, dtype=torch.float64), torch.tensor([math.log(3)], dtype=torch.float64))
    assert close(thrice, torch.tensor([3.0, 3.0], dtype=torch.float64))


def test_the_number_of_angles():
    assert [ROTARY.n_angles(64), GIVENS.n_angles(63), SCALE.n_angles(64)] == [32, 62, 1]


def test_float32_angles_rotate_float64_vectors_exactly():
    angles = torch.tensor([0.7])
    assert close(apply(ROTARY, torch.eye(2, dtype=torch.float64), angles), dense(ROTARY, [angles.item()], 2), 1e-15)


@EVERY
def test_the_matrix_is_on_the_device_of_the_angles(rotation):
    angles = torch.zeros(rotation.n_angles(4), device="meta", requires_grad=True)
    assert rotation.matrix(angles, 4).device == angles.device


def test_a_plane_with_zero_angle_keeps_its_bits():
    x = torch.tensor([-0.0, math.inf, 1.0, 2.0])
    assert same_bits(apply(ROTARY, x, torch.tensor([0.0, 1.0]))[:2], x[:2])


def test_vectors_keep_their_dtype_beside_angles_of_more_precision():
    angles = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert apply(ROTARY, torch.ones(4), angles).dtype == torch.float32


@EVERY
def test_angles_of_16_bits_are_computed_in_float32(rotation):
    angles = random(rotation.n_angles(4), dtype=torch.bfloat16)
    assert torch.equal(rotation.turn(angles, 4)(torch.ones(4)), rotation.turn(angles.float(), 4)(torch.ones(4)))


def test_the_registry_is_read_only():
    assert list(ROTATIONS) == ["rotary", "givens", "scale"]
    assert ROTATIONS["rotary"] is ROTARY and type(ROTARY)() == ROTARY
    with pytest.raises(TypeError):
        ROTATIONS["mine"] = ROTARY
    with pytest.raises(FrozenInstanceError):
        ROTARY.name = "mine"


# Membership -------------------------------------------------------------------------------------

SWAP = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
OTHER_PLANE = torch.tensor(dense(GIVENS, [0.0, 0.5, 0.0], 4).tolist()).roll((1, 1), (0, 1))
MATRICES = {
    "a reflection": (SWAP, ()),
    "twice a rotation": (2 * torch.eye(2), ("scale",)),
    "a rotation across pairs": (OTHER_PLANE, ("givens",)),
    "minus the identity in three dimensions": (-torch.eye(3), ()),
    "minus the identity in two dimensions": (-torch.eye(2), ("rotary", "givens")),
    "uneven scaling": (torch.diag(torch.tensor([1.0, 1.1])), ()),
    "a shear": (torch.tensor([[1.0, 0.1], [0.0, 1.0]]), ()),
    "no numbers": (torch.full((2, 2), math.nan), ()),
    "a rectangle": (torch.eye(2, 4), ()),
    "the identity": (torch.eye(4), ("rotary", "givens", "scale")),
}


@pytest.mark.parametrize("matrix, families", MATRICES.values(), ids=MATRICES)
def test_membership(matrix, families):
    assert tuple(name for name, rotation in ROTATIONS.items() if contains(rotation, matrix, 1e-4)) == families
    assert (
        tuple(name for name, rotation in ROTATIONS.items() if contains(rotation, matrix[None], 1e-4).all()) == families
    )


def test_membership_of_a_batch():
    assert contains(ROTARY, torch.stack([torch.eye(2), SWAP]), 1e-6).tolist() == [True, False]


# Errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [-2, 0, 1, 7])
def test_rotary_needs_an_even_size(d):
    with pytest.raises(InvalidValueError) as error:
        ROTARY.n_angles(d)
    assert f"even size for the rotation 'rotary', got {d}" in str(error.value)


@pytest.mark.parametrize("rotation", [GIVENS, SCALE], ids=["givens", "scale"])
def test_the_size_must_be_positive(rotation):
    with pytest.raises(InvalidValueError) as error:
        rotation.n_angles(0)
    assert rotation.name in str(error.value)


@EVERY
def test_a_wrong_number_of_angles(rotation):
    for wrong in (torch.zeros(3, 9), torch.zeros(0)):
        for turn in (partial(apply, rotation), partial(invert, rotation)):
            with pytest.raises(ShapeMismatch, match=r"\bangles\b") as error:
                turn(torch.zeros(3, 6), wrong)
            expected = (*wrong.shape[:-1], rotation.n_angles(6))
            assert f"shape {expected}, got shape {tuple(wrong.shape)}" in str(error.value)
