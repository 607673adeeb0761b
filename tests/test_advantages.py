"""Advantages of draws, and the multiplier of a constraint."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tarot.objectives.rewards.advantages import leave_one_out, next_multiplier, spread

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


@given(st.floats(0, 10), st.floats(-5, 5), st.floats(0, 5), st.floats(0.1, 3))
def test_the_multiplier_rises_with_the_shortfall_and_is_never_negative(
    multiplier: float, shortfall: float, more: float, rate: float
) -> None:
    following = next_multiplier(multiplier, shortfall, rate)
    assert 0 <= following <= next_multiplier(multiplier, shortfall + more, rate)
    assert following >= multiplier if shortfall >= 0 else following <= multiplier
