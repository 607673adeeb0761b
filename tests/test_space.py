"""The map from the unit cube to angles."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tarot.errors import ShapeMismatch, TarotError, UnknownName
from tarot.search.space import Space, make_space

PI_4 = math.pi / 4
steady = settings(deadline=None, derandomize=True)


@st.composite
def masks(draw: st.DrawFn) -> Tensor:
    """Which angles are alive: `layer x head x angle`, at least one."""
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 5)))
    angle_mask = torch.tensor(draw(st.lists(st.booleans(), min_size=math.prod(shape), max_size=math.prod(shape))))
    angle_mask[draw(st.integers(0, len(angle_mask) - 1))] = True
    return angle_mask.view(shape)


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    angle_mask = draw(masks())
    name = draw(st.sampled_from(["full", "head", "layer", "random", "head-gradient"]))
    if name == "random":
        name = f"random:{draw(st.integers(1, int(angle_mask.sum())))}"
    bound, seed = draw(st.floats(1e-3, math.pi)), draw(st.integers(0, 2**31))
    return make_space(
        name, angle_mask, bound, seed, value_and_grad(angle_mask, seed) if name == "head-gradient" else None
    )


def value_and_grad(angle_mask: Tensor, seed: int) -> Tensor:
    """A gradient, of some heads zero."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(angle_mask.shape, generator=generator) * (
        torch.rand(*angle_mask.shape[:2], 1, generator=generator) < 0.8
    )
    return drawn if (drawn * angle_mask).any() else torch.ones(angle_mask.shape)


def points(d: int) -> st.SearchStrategy[Tensor]:
    return st.lists(st.floats(0, 1), min_size=d, max_size=d).map(lambda x: torch.tensor(x, dtype=torch.float64))


@steady
@given(spaces())
def test_centre_is_the_identity_bit_for_bit(space: Space):
    angles = space.angles(torch.full((space.d,), 0.5, dtype=torch.float64))
    assert angles.shape == space.angle_mask.shape
    assert torch.equal(angles, torch.zeros_like(angles)) and not angles.signbit().any()


@steady
@given(st.data(), spaces())
def test_angles_stay_within_the_bound_and_dead_ones_are_zero(data: st.DataObject, space: Space):
    angles = space.angles(data.draw(points(space.d)))
    assert angles.abs().max() <= space.bound
    assert (angles[~space.angle_mask] == 0).all()


@steady
@given(st.data(), spaces())
def test_the_map_is_odd_around_the_centre(data: st.DataObject, space: Space):
    x = data.draw(points(space.d))
    torch.testing.assert_close(space.angles(1 - x), -space.angles(x))


@steady
@given(st.data(), spaces())
def test_no_coordinate_is_idle(data: st.DataObject, space: Space):
    x = torch.full((space.d,), 0.5, dtype=torch.float64)
    x[data.draw(st.integers(0, space.d - 1))] += 0.01
    assert space.angles(x).count_nonzero() > 0


@steady
@given(st.data(), masks())
def test_plain_spaces_agree_with_a_loop(data: st.DataObject, angle_mask: Tensor):
    """Coordinates run over what is alive, in order: angle by angle, head by head or layer by layer."""
    for name, owner in {
        "full": lambda layer, head, angle: (layer, head, angle),
        "head": lambda layer, head, angle: (layer, head),
        "layer": lambda layer, head, angle: layer,
    }.items():
        space = make_space(name, angle_mask, PI_4, seed=0)
        entries = [tuple(entry) for entry in angle_mask.nonzero().tolist()]
        owners = sorted({owner(*entry) for entry in entries})
        assert space.d == len(owners)
        x = data.draw(points(space.d))
        angles = space.angles(x)
        for entry in entries:
            assert angles[entry] == PI_4 * (2 * x[owners.index(owner(*entry))] - 1)


@pytest.mark.parametrize("r", [1, 8, 128])
def test_random_directions_are_orthonormal_up_to_scale(r: int):
    angle_mask = torch.ones(4, 4, 8, dtype=torch.bool)
    space = make_space(f"random:{r}", angle_mask, 1.0, seed=3)
    step = 1e-3  # small enough that nothing is clipped
    columns = torch.stack([space.angles(x).flatten() for x in 0.5 + step * torch.eye(r, dtype=torch.float64)])
    torch.testing.assert_close(columns @ columns.T, (2 * step) ** 2 * 128 / r * torch.eye(r, dtype=torch.float64))


@pytest.mark.parametrize("r", [4, 32, 256])
def test_random_subspaces_move_angles_as_far_as_the_full_space(r: int):
    """A uniform point has angles of root mean square bound / sqrt(3), a little less where some are clipped."""
    angle_mask = torch.ones(8, 8, 16, dtype=torch.bool)
    space = make_space(f"random:{r}", angle_mask, PI_4, seed=1)
    generator = torch.Generator().manual_seed(0)
    draws = [space.angles(torch.rand(r, generator=generator, dtype=torch.float64)) for _ in range(50)]
    assert torch.stack(draws).square().mean().sqrt().item() == pytest.approx(PI_4 / math.sqrt(3), rel=0.15)


def test_random_directions_come_from_the_seed_alone():
    angle_mask = torch.ones(2, 3, 4, dtype=torch.bool)
    x = torch.linspace(0, 1, 5, dtype=torch.float64)
    before = torch.get_rng_state()
    one, same, other = (make_space("random:5", angle_mask, 1.0, seed).angles(x) for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


@steady
@given(spaces())
def test_differentiable_in_every_coordinate(space: Space):
    x = torch.full((space.d,), 0.5, dtype=torch.float64, requires_grad=True)
    jacobian = torch.autograd.functional.jacobian(space.angles, x).view(-1, space.d)
    assert jacobian.isfinite().all() and (jacobian != 0).any(0).all()


def test_keeps_the_dtype_of_the_point():
    space = make_space("head", torch.ones(1, 2, 3, dtype=torch.bool), 1.0, 0)
    assert space.angles(torch.rand(2, dtype=torch.float32)).dtype == torch.float32


ALIVE = torch.ones(2, 3, 4, dtype=torch.bool)


@pytest.mark.parametrize(
    ("name", "bound", "message"),
    [
        ("haed", 1.0, "expected a known space, got 'haed'; did you mean 'head'?"),
        ("heads:3", 1.0, "expected a known space, got 'heads:3'; did you mean 'head'?"),
        (
            "random",
            1.0,
            "expected random:r with r between 1 and 24, the number of angles, got 'random'; try random:24",
        ),
        (
            "random:0",
            1.0,
            "expected random:r with r between 1 and 24, the number of angles, got 'random:0'; try random:24",
        ),
        (
            "random:25",
            1.0,
            "expected random:r with r between 1 and 24, the number of angles, got 'random:25'; try random:24",
        ),
        (
            "random:-3",
            1.0,
            "expected random:r with r between 1 and 24, the number of angles, got 'random:-3'; try random:24",
        ),
        ("head", 0.0, "expected a positive bound in radians, got 0.0; try 0.785, which is pi/4"),
        ("head", -1.0, "expected a positive bound in radians, got -1.0; try 0.785, which is pi/4"),
        ("head", math.nan, "expected a positive bound in radians, got nan; try 0.785, which is pi/4"),
        ("head", math.inf, "expected a positive bound in radians, got inf; try 0.785, which is pi/4"),
    ],
)
def test_bad_requests_say_what_to_try(name: str, bound: float, message: str):
    with pytest.raises(TarotError) as caught:
        make_space(name, ALIVE, bound, seed=0)
    assert str(caught.value) == message
    assert isinstance(caught.value, UnknownName) == ("known space" in message)


def test_nothing_alive_is_an_error():
    with pytest.raises(TarotError, match=r"at least one angle to search, got none alive in shape \(2, 3, 4\)"):
        make_space("head", torch.zeros(2, 3, 4, dtype=torch.bool), 1.0, seed=0)


def test_point_of_another_dimension_is_an_error():
    with pytest.raises(ShapeMismatch, match=r"^expected a point of the space 'head' of shape \(6,\), got shape \(5,\)"):
        make_space("head", ALIVE, 1.0, seed=0).angles(torch.zeros(5))


@steady
@given(masks(), st.integers(0, 2**31))
def test_every_coordinate_of_head_gradient_is_uphill(angle_mask: Tensor, seed: int):
    gradient = value_and_grad(angle_mask, seed).double()
    space = make_space("head-gradient", angle_mask, PI_4, 0, gradient)
    assert space.d == ((gradient * angle_mask).abs().amax(-1) > 0).sum()
    for k in range(space.d):
        x = torch.full((space.d,), 0.5, dtype=torch.float64)
        x[k] = 1.0
        angles = space.angles(x)
        assert (angles * gradient).sum() > 0
        assert angles.abs().max() == pytest.approx(PI_4)
        (head,) = angles.abs().amax(-1).flatten().nonzero().unique(dim=0)
        own = (gradient * angle_mask).flatten(0, 1)[head]
        torch.testing.assert_close(angles.flatten(0, 1)[head] / PI_4, own / own.abs().max())


@steady
@given(spaces())
def test_starts_go_uphill_from_the_identity_to_the_bound(space: Space):
    if space.name != "head-gradient":
        assert space.starts.shape == (0, space.d)
        return
    largest = [float(space.angles(start).abs().max()) / space.bound for start in space.starts]
    assert largest == pytest.approx([1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0])


def test_head_gradient_errors():
    angle_mask = torch.ones(2, 3, 4, dtype=torch.bool)
    for gradient, message in (
        (None, "expected a gradient for the space 'head-gradient', got none; try the space 'head'"),
        (
            torch.zeros(2, 3, 4),
            "expected a finite gradient that is not zero everywhere, got another; try the space 'head'",
        ),
        (torch.full((2, 3, 4), math.nan), "expected a finite gradient that is not zero everywhere, got another; "),
    ):
        with pytest.raises(TarotError) as error:
            make_space("head-gradient", angle_mask, 1.0, 0, gradient)
        assert str(error.value).startswith(message)
