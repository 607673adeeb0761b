"""Time a search at a budget of 120, with the share that proposing takes and the growth of the process's memory."""

from pathlib import Path
from typing import Any

import psutil
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
    used: list[int] = []
    process = psutil.Process()

    class KeepMemory(Callback):
        def on_trial(self, trial: Trial, result: SearchResult) -> None:
            used.append(process.memory_info().rss)

    benchmark.group = f"search of {BUDGET} evaluations {tarot_model.reference}"
    config = TaRotConfig("synth_implicatives", search=search)
    adapter = benchmark.pedantic(
        tune,
        args=(tarot_model.model, tarot_model.tokenizer, config),
        kwargs={"budget": BUDGET, "output_dir": tmp_path / search, "callbacks": [KeepMemory()]},
    )
    seconds = adapter.provenance["seconds"]
    total = seconds["proposing"] + seconds["evaluating"]
    share, growth = seconds["proposing"] / total, used[-1] / used[len(used) // 4]
    benchmark.extra_info.update(
        model=tarot_model.reference,
        seconds=round(total, 1),
        trials=len(used),
        proposing=round(share, 3),
        memory_growth=round(growth, 3),
    )
    if bounded:
        assert share < 0.15
        assert growth < 1.1
