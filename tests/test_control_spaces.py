"""Spaces that only the study measures: one coordinate a layer, and random directions."""

import math

import pytest
import torch
from torch import Tensor

from benchmarks.study.control_spaces import layer_space, random_space
from tarot.search.space import Space, make_space

PI_4 = math.pi / 4


def full(angle_mask: Tensor, bound: float) -> Space:
    return make_space("full", angle_mask, bound)


def test_all_angles_of_a_layer_share_a_coordinate() -> None:
    angle_mask = torch.ones(3, 2, 4, dtype=torch.bool)
    angle_mask[1] = False
    angle_mask[2, 1] = False
    space = layer_space(full(angle_mask, 1.0))
    angles = space.angles(torch.tensor([0.75, 0.25], dtype=torch.float64))
    assert torch.equal(angles, torch.tensor([0.5, 0.0, -0.5], dtype=torch.float64)[:, None, None] * angle_mask)


@pytest.mark.parametrize("r", [1, 8, 128])
def test_random_directions_are_orthonormal_up_to_scale(r: int) -> None:
    angle_mask = torch.ones(4, 4, 8, dtype=torch.bool)
    space = random_space(full(angle_mask, 1.0), r, seed=3)
    step = 1e-3  # small enough that nothing is clipped
    columns = torch.stack([space.angles(x).flatten() for x in 0.5 + step * torch.eye(r, dtype=torch.float64)])
    torch.testing.assert_close(columns @ columns.T, (2 * step) ** 2 * 128 / r * torch.eye(r, dtype=torch.float64))


@pytest.mark.parametrize("r", [4, 32, 256])
def test_random_subspaces_move_angles_as_far_as_the_full_space(r: int) -> None:
    """A uniform point has angles of root mean square bound / sqrt(3), a little less where some are clipped."""
    angle_mask = torch.ones(8, 8, 16, dtype=torch.bool)
    space = random_space(full(angle_mask, PI_4), r, seed=1)
    generator = torch.Generator().manual_seed(0)
    draws = [space.angles(torch.rand(r, generator=generator, dtype=torch.float64)) for _ in range(50)]
    assert torch.stack(draws).square().mean().sqrt().item() == pytest.approx(PI_4 / math.sqrt(3), rel=0.15)


def test_random_directions_come_from_the_seed_alone() -> None:
    angle_mask = torch.ones(2, 3, 4, dtype=torch.bool)
    x = torch.linspace(0, 1, 5, dtype=torch.float64)
    before = torch.get_rng_state()
    one, same, other = (random_space(full(angle_mask, 1.0), 5, seed).angles(x) for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)
