"""Time a search at a budget of 120, with the share that proposing takes and the growth of the process's memory."""

import resource
from pathlib import Path
from typing import Any

import pytest

from tarot.models.loaded_model import LoadedModel
from tarot.search.callbacks import Callback
from tarot.search.config import TaRotConfig
from tarot.search.loop import SearchResult
from tarot.search.trials import Trial
from tarot.search.tune import tune

BUDGET = 120


@pytest.mark.parametrize("search", ["adam", "bo"])
def bench_search(benchmark: Any, tarot_model: LoadedModel, bounded: bool, tmp_path: Path, search: str) -> None:
    """Time a search; keep its share of proposing and its growth of memory."""
    peaks: list[int] = []

    class KeepPeak(Callback):
        def on_trial(self, trial: Trial, result: SearchResult) -> None:
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)

    benchmark.group = f"search of {BUDGET} evaluations {tarot_model.reference}"
    config = TaRotConfig("synth_implicatives", search=search)
    adapter = benchmark.pedantic(
        tune,
        args=(tarot_model.model, tarot_model.tokenizer, config),
        kwargs={"budget": BUDGET, "output_dir": tmp_path / search, "callbacks": [KeepPeak()]},
    )
    seconds = adapter.provenance["seconds"]
    total = seconds["proposing"] + seconds["evaluating"]
    share, growth = seconds["proposing"] / total, peaks[-1] / peaks[len(peaks) // 4]
    benchmark.extra_info.update(
        model=tarot_model.reference,
        seconds=round(total, 1),
        trials=len(peaks),
        proposing=round(share, 3),
        memory_growth=round(growth, 3),
    )
    if bounded:
        assert share < 0.15
        assert growth < 1.1
