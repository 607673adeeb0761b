"""Fast products: only inside the context, only as far as bfloat16 rounds, and in searches."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tarot.evaluation.ray import candidates
from tarot.evaluation.ray.cluster import Resources
from tarot.models.precision import fast_products
from tarot.search.config import TaRotConfig


@given(st.integers(0, 2**31), st.integers(1, 80), st.integers(1, 80), st.integers(1, 80))
def test_products_differ_by_no_more_than_bfloat16_rounds(seed: int, rows: int, inner: int, columns: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(rows, inner, generator=generator), torch.randn(inner, columns, generator=generator)
    exact = a @ b
    with fast_products():
        fast = a @ b
    assert ((fast - exact).abs() <= 2**-7 * (a.abs() @ b.abs()) + 1e-6).all()
    assert torch.equal(a @ b, exact)


def test_the_setting_ends_with_the_context() -> None:
    before = torch.get_float32_matmul_precision()
    with pytest.raises(KeyboardInterrupt), fast_products():
        assert torch.get_float32_matmul_precision() == "medium" != before
        raise KeyboardInterrupt
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.parametrize(("objective", "expected"), [("log_probability", "medium"), ("model", "highest")])
def test_a_cluster_multiplies_as_the_search_here_does(
    monkeypatch: pytest.MonkeyPatch, objective: str, expected: str
) -> None:
    measured = SimpleNamespace(measure=lambda angles: torch.get_float32_matmul_precision())
    problem: Any = SimpleNamespace(config=TaRotConfig("t", objective=objective), objective=measured)
    monkeypatch.setattr(candidates, "_load_problem", lambda resources: problem)
    assert candidates._score(Resources(cpus=1, gpus=0, memory=1), (), torch.zeros(1, 1, 1).numpy()) == expected
