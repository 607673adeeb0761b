"""Numbers for the prose of the results: each placeholder of a text is computed from the study's files.

`{gain[base 0]}` in a text is the default's mean gain over `base` without shots, with its 95% CI;
`{gain[base 0].value:+.2f}` is its value alone. The words in brackets are the arguments of the method of that name.
A method of the grid is written with underscores: `bo_head-gradient`.
"""

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from string import Formatter
from typing import Any

from benchmarks.study import development_tables, grid, tables
from benchmarks.study.effect_tables import RecordedEffects
from benchmarks.study.grid import Cell
from benchmarks.study.markdown import signed
from benchmarks.study.recorded import HEADLINE, HELD_OUT, RecordedCells, read_lines
from tarot.evaluation.results.metrics import METRICS
from tarot.evaluation.statistics.gains import Gain
from tarot.evaluation.statistics.seeds import MeanGain, mean_over_settings

HERE = Path(__file__).parent


class Figures:
    """Numbers by name. Every argument is text."""

    def __init__(self, cells: RecordedCells, effects: RecordedEffects) -> None:
        self.cells = cells
        self.effects = effects

    def gain(self, over: str, shots: str, metric: str = HEADLINE) -> MeanGain:
        """Return the default's mean gain over a method."""
        return mean_over_settings(self.cells.gains(int(shots), "default", _method(over), metric))

    def gain_of(self, method: str, over: str, shots: str) -> MeanGain:
        """Return a method's mean gain over another."""
        return mean_over_settings(self.cells.gains(int(shots), _method(method), _method(over)))

    def seed_gain(self, shots: str, seed: str) -> float:
        """Return the mean gain over base in the cells of one seed."""
        cells = [cell for cell in self.cells.records if (cell.shots, cell.seed) == (int(shots), int(seed))]
        return statistics.mean(gain.value for cell in cells if (gain := self.cells.gain(cell, "default", "base")))

    def development_gain(self, method: str) -> MeanGain:
        """Return the default's mean gain over a method on the development cells."""
        return self.development_lead("default", method)

    def development_lead(self, method: str, over: str) -> MeanGain:
        """Return the mean gain of one method over another on the development cells."""
        gains = [self.cells.gain(cell, _method(method), _method(over)) for cell in grid.DEVELOPMENT]
        return mean_over_settings([[gain] for gain in gains if gain])

    def best_prompting(self, what: str) -> str | MeanGain:
        """Return the `name` of the best prompting method on the development cells, or the default's `gain` over it."""
        best = min(("few-shot", *grid.PROMPTING), key=lambda method: self.development_gain(method).value)
        return {"name": f"`{best}`", "gain": self.development_gain(best)}[what]

    def better(self, over: str, shots: str, metric: str = HEADLINE) -> int:
        """Count the cells in which the default scores higher than a method."""
        return sum(value > 0 for value in self._values(over, shots, metric))

    def worse(self, over: str, shots: str, metric: str = HEADLINE) -> int:
        """Count the cells in which the default scores lower than a method."""
        return sum(value < 0 for value in self._values(over, shots, metric))

    def n_cells(self, over: str, shots: str) -> int:
        """Count the cells that have both the default and a method."""
        return len(self._values(over, shots, HEADLINE))

    def losses(self, shots: str) -> str:
        """List what the default loses against base, from the smallest loss, as a text."""
        values = [value for value in self._values("base", shots, HEADLINE) if value < 0]
        return ", ".join(f"{-value:.3f}" for value in sorted(values, reverse=True))

    def pairs(self, over: str, metric: str = HEADLINE) -> int:
        """Count the model-task pairs in which the default without shots beats a method, means over seeds."""
        settings = self.cells.gains(0, "default", _method(over), metric)
        return sum(statistics.mean(gain.value for gain in seeds) > 0 for seeds in settings)

    def ahead(self, searches: str) -> int:
        """Count the cells in which the default beats random search or the paper's (`wins`), and all such (`cells`)."""
        return tables.ahead_of_searches(self.cells)[("wins", "cells").index(searches)]

    def share(self, other: str, shots: str) -> float:
        """Divide the default's mean gain by another method's."""
        return self.cells.share_of_gain(int(shots), "default", _method(other))[0]

    def f1(self, model: str, task: str, shots: str, seed: str, method: str) -> float:
        """Return the F1 of one cell."""
        cell = Cell(model, task, int(shots), int(seed))
        return (self.cells.records[cell] | self.cells.repeated[cell])[_method(method)]["greedy_f1"]

    def mean_f1(self, model: str, task: str, shots: str, method: str) -> float:
        """Return the mean F1 over seeds."""
        return statistics.mean(self.cells.scores(model, task, int(shots), _method(method)))

    def stored_ratio(self, method: str, model: str) -> float:
        """Divide the stored bytes of a method by those of the default, of one model."""
        sizes = []
        for name in (_method(method), "default"):
            sizes.append(
                tables.median([r for r in self.cells.of_method(name) if r["model"] == model], tables.stored_bytes)
            )
        return sizes[0] / sizes[1]

    def on_task(self, model: str, tuned: str, task: str) -> float:
        """Return the F1 of one task's edit on another task; `base` in place of the first is the unedited model."""
        some_edit = self.effects.records[model, task if tuned == "base" else tuned, task]
        if tuned != "base":
            return _f1(some_edit["gold"], some_edit["greedy"])
        greedy = self.cells.records[Cell(model, task, 0, grid.SEEDS[0])]["base"]["greedy"]
        return _f1(some_edit["gold"], greedy[: len(some_edit["gold"])])

    def perplexity(self, bound: str) -> float:
        """Return the smallest or largest (`min`, `max`) ratio of edited to base perplexity."""
        return {"min": min, "max": max}[bound](
            self.effects.perplexity_ratio(model, task) for model in grid.MODELS for task in grid.TASKS
        )

    def kl(self, bound: str) -> float:
        """Return the smallest or largest (`min`, `max`) KL divergence on neutral text, in nats a token."""
        return {"min": min, "max": max}[bound](
            record["kl"]["value"] for (_, _, task), record in self.effects.records.items() if "kl" in record
        )

    def kept_gain(self, strength: str) -> float:
        """Return the share of the mean gain that a strength keeps."""
        return self.effects.kept(float(strength))[0]

    def kept_kl(self, strength: str) -> float:
        """Return the share of the mean KL divergence that a strength keeps."""
        return self.effects.kept(float(strength))[1]

    def searched(self, space: str, task: str, seed: str, search: str, value: str = "best") -> float:
        """Return the best training score of a search without a gradient, or its held-out F1 (`f1`)."""
        (run,) = [
            run
            for run in read_lines(HERE / "searches.jsonl")
            if (run["space"], run["task"], str(run["seed"]), run["search"]) == (space, task, seed, _method(search))
        ]
        return run["best"][str(grid.BUDGET)] if value == "best" else run[HELD_OUT]["greedy_f1"]

    def space(self, space: str, task: str, value: str = "best") -> float:
        """Return what `bo` reaches in a space at the default bound: best training score, or held-out F1 (`f1`)."""
        (run,) = [
            by_task[task]
            for (search, name, bound), by_task in development_tables.space_runs().items()
            if (search, name) == ("bo", space) and f"{bound:.2f}" == "0.79"
        ]
        return run["best"] if value == "best" else run[HELD_OUT]["greedy_f1"]

    def racing(self, name: str) -> float:
        """Return a figure of racing: `certain`, `likely`, `lost` or `runs`."""
        return development_tables.racing()[name]

    def remedy(self, name: str) -> float:
        """Return the mean held-out F1 of a remedy."""
        runs = read_lines(HERE / "overfitting.jsonl")
        return statistics.mean(run["remedies"][_method(name)]["greedy_f1"] for run in runs)

    def earlier(self, name: str) -> Any:
        """Return a figure of an earlier version of the search, as it was noted."""
        return json.loads((HERE / "earlier.json").read_text())[name]

    def setting(self, name: str) -> int:
        """Return a constant of the grid, such as `BUDGET`."""
        return getattr(grid, name)

    def _values(self, over: str, shots: str, metric: str) -> list[float]:
        settings = self.cells.gains(int(shots), "default", _method(over), metric)
        return [gain.value for seeds in settings for gain in seeds]


class _Arguments:
    """Call a method of `Figures` with the words in brackets."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __getitem__(self, words: object) -> Any:
        return self.function(*str(words).split())


class _Fill(Formatter):
    def __init__(self, figures: Figures, tables: dict[str, str]) -> None:
        self.figures, self.tables = figures, tables

    def get_value(self, key: int | str, args: Any, kwargs: Any) -> Any:
        name = str(key)
        return self.tables[name] if name in self.tables else _Arguments(getattr(self.figures, name))

    def format_field(self, value: Any, format_spec: str) -> str:
        if isinstance(value, Gain | MeanGain) and not format_spec:
            return signed(value)
        return super().format_field(value, format_spec)


def fill(text: str, figures: Figures, tables: dict[str, str]) -> str:
    """Fill the placeholders of a text with tables and figures."""
    return _Fill(figures, tables).format(text)


def _method(name: str) -> str:
    """Return a method's name with spaces for underscores."""
    return name.replace("_", " ")


def _f1(gold: list[int], greedy: list[int]) -> float:
    return METRICS[HEADLINE].score(gold, greedy)
