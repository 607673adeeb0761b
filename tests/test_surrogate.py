"""The clipped surrogate: advantages, clipping, and the multiplier of a constraint."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tarot.objectives.surrogate import clipped_surrogate, leave_one_out, next_multiplier, spread

NUMBERS = st.floats(-100, 100)
TABLES = st.integers(2, 5).flatmap(
    lambda n: st.lists(st.lists(NUMBERS, min_size=n, max_size=n), min_size=1, max_size=4)
)


@given(TABLES)
def test_advantages_of_a_prompt_sum_to_zero_and_are_those_of_the_definition(rows: list[list[float]]) -> None:
    advantages = leave_one_out(torch.tensor(rows, dtype=torch.float64))
    assert torch.allclose(advantages.sum(1), torch.zeros(len(rows), dtype=torch.float64), atol=1e-9)
    for row, row_advantages in zip(rows, advantages.tolist(), strict=True):
        for i, advantage in enumerate(row_advantages):
            others = row[:i] + row[i + 1 :]
            assert advantage == pytest.approx(row[i] - sum(others) / len(others), abs=1e-9)


@given(TABLES, NUMBERS)
def test_the_spread_ignores_what_the_draws_of_a_prompt_share(rows: list[list[float]], shift: float) -> None:
    table = torch.tensor(rows, dtype=torch.float64)
    shifts = shift * torch.arange(len(rows), dtype=torch.float64)[:, None]
    assert spread(table + shifts) == pytest.approx(spread(table), abs=1e-9)
    assert spread(table) == pytest.approx(math.sqrt(table.var(1).mean()), abs=1e-9)


@given(st.lists(st.tuples(st.floats(-3, 0), NUMBERS), min_size=1, max_size=5))
def test_at_ratio_one_the_gradient_is_the_score_functions(draws: list[tuple[float, float]]) -> None:
    logs = [torch.tensor([log, log / 2], dtype=torch.float64, requires_grad=True) for log, _ in draws]
    advantages = torch.tensor([advantage for _, advantage in draws], dtype=torch.float64)
    gradients = torch.autograd.grad(clipped_surrogate(logs, [log.detach() for log in logs], advantages, 0.2), logs)
    for gradient, advantage in zip(gradients, advantages, strict=True):  # d sum(A log p) / d log p = A
        assert gradient.tolist() == pytest.approx([float(advantage)] * 2, abs=1e-300)


@given(st.floats(-2, 2), st.floats(0.01, 2), st.sampled_from([-1.0, 1.0]), st.floats(0.05, 0.5))
def test_a_ratio_beyond_the_clip_has_no_gradient_where_it_would_gain(
    log_ratio: float, size: float, sign: float, clip: float
) -> None:
    log = torch.tensor([log_ratio], dtype=torch.float64, requires_grad=True)
    advantage = torch.tensor([sign * size], dtype=torch.float64)
    surrogate = clipped_surrogate([log], [torch.zeros(1, dtype=torch.float64)], advantage, clip)
    (gradient,) = torch.autograd.grad(surrogate, log)
    ratio = math.exp(log_ratio)
    gained = ratio > 1 + clip if sign > 0 else ratio < 1 - clip
    assert float(gradient) == pytest.approx(0.0 if gained else sign * size * ratio)
    assert float(surrogate.detach()) <= sign * size * ratio + 1e-12  # a pessimistic bound of the unclipped one


@given(st.floats(0, 10), st.floats(-5, 5), st.floats(0, 5), st.floats(0.1, 3))
def test_the_multiplier_rises_with_the_shortfall_and_is_never_negative(
    multiplier: float, shortfall: float, more: float, rate: float
) -> None:
    following = next_multiplier(multiplier, shortfall, rate)
    assert 0 <= following <= next_multiplier(multiplier, shortfall + more, rate)
    assert following >= multiplier if shortfall >= 0 else following <= multiplier
