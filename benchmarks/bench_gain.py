"""Time cells, and measure zero- and few-shot gains across model sizes on held-out documents.

A cell is a search and the answers of every arm. `--tarot-model`, `--tarot-tasks`, `--tarot-num-fewshot` and the
plugin's other options choose the cells. By default both wheel models are measured on the three synthetic tasks without
shots, and on one of them with six shots in every prompt. Every search runs anew. With `--tarot-work DIR` an adapter in
DIR is reused, and the time of its cell is that of the answers.
"""

from typing import Any

import pytest

from tarot.evaluation.grid.grid import CellRequest
from tarot.evaluation.results.metrics import METRICS
from tarot.pytest_plugin.gain import TarotGain


@pytest.fixture
def tarot_gain(benchmark: Any, request: pytest.FixtureRequest, tarot_setting: CellRequest) -> TarotGain:
    """Time the plugin's fixture of this name, which tunes an adapter and measures its cell."""
    engine = request.config.getoption("tarot_engine") or request.config.getini("tarot_engine")
    if engine != "ray":  # whose workers load the model
        request.getfixturevalue("tarot_model")
    benchmark.group = f"cell {tarot_setting.task} {tarot_setting.num_fewshot}-shot"
    return benchmark.pedantic(request.getfixturevalue, args=("tarot_gain",))


def bench_gain(benchmark: Any, tarot_gain: TarotGain) -> None:
    """Time a cell; keep its scores and gains."""
    comparison = tarot_gain.comparison
    for arm in comparison.arms:
        for name, metric in METRICS.items():
            benchmark.extra_info[f"{arm.name} {name}"] = float(metric.score(comparison.gold, metric.answers(arm)))
    gain = tarot_gain.greedy_f1
    benchmark.extra_info |= {"gain": gain.value, "low": gain.low, "high": gain.high, "documents": gain.n}
    benchmark.extra_info |= {"over_few_shot": tarot_gain.over_few_shot.greedy_f1.value, "seconds": comparison.seconds}
    if comparison.draws:
        benchmark.extra_info["over_draws"] = tarot_gain.over_draws.greedy_f1.value
