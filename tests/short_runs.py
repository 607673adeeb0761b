"""A plugin of pytest: the slowest benchmarks search, train, generate and answer less."""

import sys
from collections.abc import Iterator

import pytest

SHORTER = {
    "bench_time_to_score": {"BUDGET": 6, "EPOCHS": 1, "DOCUMENTS": 12},
    "bench_search": {"BUDGET": 12},
    "bench_generation": {"N_PROMPTS": 5, "N_TEXTS": 20},
}


@pytest.fixture(scope="session", autouse=True)
def short_runs() -> Iterator[None]:
    """Lower the constants of the benchmarks."""
    with pytest.MonkeyPatch.context() as patch:
        for module, constants in SHORTER.items():
            for name, value in constants.items():
                patch.setattr(sys.modules[module], name, value)
        yield
