"""A plugin of pytest: the benchmarks of the time to a held-out score tune for a few steps."""

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def short_runs() -> Iterator[None]:
    """Lower the budget of the searches and the epochs of the training."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"BUDGET": 6, "EPOCHS": 1}.items():
            patch.setattr(sys.modules["bench_time_to_score"], name, value)
        yield
