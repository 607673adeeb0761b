"""Zero- and few-shot gains across model sizes, on documents that were never tuned on.

`--tarot-model`, `--tarot-task`, `--tarot-shots` and the plugin's other options choose the cells. Without them both
wheel models are measured on the three synthetic tasks without shots, and on one of them with six shots in every prompt.
"""

from typing import Any

from tarot.plugin.measured import TarotGain
from tarot.report import METRICS


def bench_gain(benchmark: Any, tarot_gain: TarotGain) -> None:
    cell = tarot_gain.cell
    for arm in cell.arms:
        for name, metric in METRICS.items():
            benchmark.extra_info[f"{arm.name} {name}"] = float(metric.score(cell.gold, metric.answers(arm)))
    gain = tarot_gain.greedy_f1
    benchmark.extra_info |= {"gain": gain.value, "low": gain.low, "high": gain.high, "documents": gain.n}
    benchmark.extra_info |= {"over_few_shot": tarot_gain.over_few_shot.greedy_f1.value, "seconds": cell.seconds}
    if cell.draws:
        benchmark.extra_info["over_draws"] = tarot_gain.over_draws.greedy_f1.value
    # Measured once, in the fixture: this only gives the numbers a place in pytest-benchmark's files.
    benchmark.pedantic(lambda: None, rounds=1)
