"""Where a search's time goes: evaluating against proposing, at a budget of 120, and whether its memory stays flat."""

import resource
from pathlib import Path

import pytest

from tarot.models import load_model
from tarot.tuning import Recipe, tune

BUDGET = 120


@pytest.mark.parametrize("search", ["adam", "bo"])
def bench_search(benchmark: object, tmp_path: Path, search: str) -> None:
    loaded = load_model("wheel:smollm2-135m")
    peaks: list[int] = []

    def watch(*_: object) -> None:
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)

    recipe = Recipe("synth_implicatives", search=search)
    adapter = tune(loaded, recipe, tmp_path / search, budget=BUDGET, on_trial=watch)
    seconds = adapter.provenance["seconds"]
    total = sum(seconds.values())
    share, growth = seconds["proposing"] / total, peaks[-1] / peaks[len(peaks) // 4]
    benchmark.extra_info.update(
        search=search, seconds=round(total, 1), proposing=round(share, 3), memory_growth=round(growth, 3)
    )
    benchmark.pedantic(lambda: None, rounds=1)
    assert share < 0.15
    assert growth < 1.1
