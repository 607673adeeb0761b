"""The map from the unit cube to angles."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tarot.errors import InvalidValueError, ShapeMismatch, TarotError, UnknownName
from tarot.search.space import SPACES, Space, make_space

PI_4 = math.pi / 4
steady = settings(deadline=None, derandomize=True)


@st.composite
def masks(draw: st.DrawFn) -> Tensor:
    """Draw which angles exist, `layer x head x angle`; at least one does."""
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 5)))
    angle_mask = torch.tensor(draw(st.lists(st.booleans(), min_size=math.prod(shape), max_size=math.prod(shape))))
    angle_mask[draw(st.integers(0, len(angle_mask) - 1))] = True
    return angle_mask.view(shape)


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    angle_mask = draw(masks())
    bound = draw(st.floats(1e-3, math.pi))
    name = draw(st.sampled_from(sorted(SPACES)))
    return make_space(name, angle_mask, bound)


def points(d: int) -> st.SearchStrategy[Tensor]:
    return st.lists(st.floats(0, 1), min_size=d, max_size=d).map(lambda x: torch.tensor(x, dtype=torch.float64))


@steady
@given(st.data())
def test_gradients_follow_the_chain_rule(data: st.DataObject) -> None:
    """The gradient in the coordinates is that of the whole function by central differences."""
    space = data.draw(spaces())
    x = 0.2 + 0.6 * data.draw(points(space.d))  # away from the edges, where the angles stop
    weights = torch.randn(space.angle_mask.shape, generator=torch.Generator().manual_seed(1))

    def function(angles: Tensor) -> tuple[float, Tensor]:
        return float((weights * angles.sin()).sum()), weights * angles.cos()

    value, gradient = space.value_and_grad(x, function)
    assert value == pytest.approx(function(space.angles(x))[0], rel=1e-4, abs=1e-4)
    step = 1e-4 * torch.randn(space.d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    above, below = (float((weights * space.angles(x + sign * step).sin()).sum()) for sign in (1, -1))
    assert float(gradient @ step) == pytest.approx((above - below) / 2, rel=1e-3, abs=1e-7)


@steady
@given(spaces())
def test_centre_is_the_identity_bit_for_bit(space: Space) -> None:
    angles = space.angles(torch.full((space.d,), 0.5, dtype=torch.float64))
    assert angles.shape == space.angle_mask.shape
    assert torch.equal(angles, torch.zeros_like(angles)) and not angles.signbit().any()


@steady
@given(st.data(), spaces())
def test_angles_stay_within_the_bound_and_missing_ones_are_zero(data: st.DataObject, space: Space) -> None:
    angles = space.angles(data.draw(points(space.d)))
    assert angles.abs().max() <= space.bound
    assert (angles[~space.angle_mask] == 0).all()


@steady
@given(st.data(), spaces())
def test_the_map_is_odd_around_the_centre(data: st.DataObject, space: Space) -> None:
    x = data.draw(points(space.d))
    torch.testing.assert_close(space.angles(1 - x), -space.angles(x))


@steady
@given(st.data(), spaces())
def test_every_coordinate_moves_an_angle(data: st.DataObject, space: Space) -> None:
    x = torch.full((space.d,), 0.5, dtype=torch.float64)
    x[data.draw(st.integers(0, space.d - 1))] += 0.01
    assert space.angles(x).count_nonzero() > 0


@steady
@given(st.data(), masks())
def test_plain_spaces_agree_with_a_loop(data: st.DataObject, angle_mask: Tensor) -> None:
    """Coordinates follow the order of the mask: angle by angle or head by head."""
    for name, owner in {
        "full": lambda layer, head, angle: (layer, head, angle),
        "head": lambda layer, head, angle: (layer, head),
    }.items():
        space = make_space(name, angle_mask, PI_4)
        entries = [tuple(entry) for entry in angle_mask.nonzero().tolist()]
        owners = sorted({owner(*entry) for entry in entries})
        assert space.d == len(owners)
        x = data.draw(points(space.d))
        angles = space.angles(x)
        for entry in entries:
            assert angles[entry] == PI_4 * (2 * x[owners.index(owner(*entry))] - 1)


@steady
@given(spaces())
def test_differentiable_in_every_coordinate(space: Space) -> None:
    x = torch.full((space.d,), 0.5, dtype=torch.float64, requires_grad=True)
    jacobian = torch.autograd.functional.jacobian(space.angles, x).view(-1, space.d)
    assert jacobian.isfinite().all() and (jacobian != 0).any(0).all()


def test_keeps_the_dtype_of_the_point() -> None:
    space = make_space("head", torch.ones(1, 2, 3, dtype=torch.bool), 1.0)
    assert space.angles(torch.rand(2, dtype=torch.float32)).dtype == torch.float32


MASK = torch.ones(2, 3, 4, dtype=torch.bool)


@pytest.mark.parametrize("name", ["haed", "heads:3"])
def test_unknown_space_suggests_the_nearest(name: str) -> None:
    with pytest.raises(UnknownName, match="did you mean 'head'"):
        make_space(name, MASK, 1.0)


@pytest.mark.parametrize("bound", [0.0, -1.0, math.nan, math.inf])
def test_bound_must_be_positive_and_finite(bound: float) -> None:
    with pytest.raises(InvalidValueError, match="radians"):
        make_space("head", MASK, bound)


def test_an_empty_mask_is_an_error() -> None:
    with pytest.raises(TarotError, match="angle"):
        make_space("head", torch.zeros(2, 3, 4, dtype=torch.bool), 1.0)


def test_a_point_of_another_dimension_is_an_error() -> None:
    with pytest.raises(ShapeMismatch, match="space 'head'"):
        make_space("head", MASK, 1.0).angles(torch.zeros(5))
