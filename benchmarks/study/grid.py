"""Declare what the study measures. Written before it was measured.

A *cell* is a model, a task, a number of shots in every prompt, and a seed. A *method* is one way to answer its
documents. Every method gets the same 20 labelled samples, the same budget of 120 evaluations and the same documents.

Not every method runs in every cell, because one processor has hours, not weeks. The rule, written down first:

- The default, the unedited model and prompting run everywhere.
- `lora` and `random` run in every cell of seed 0, cells without shots first.
- All other methods run in the development cells. One that is level with the default there (a mean no lower) runs on
  seed 0, and one that is level on seed 0 runs everywhere.
- One change was made later: `paper`, far behind on the development cells, runs on seed 0 like `random`, because to be
  better than it is what the study claims.
- A second change: `bo-gradient`, 11% behind the default on the development cells, runs on seed 0 as well, because its
  goal is to be ahead of `paper` by more than chance, which three cells cannot tell. It was stopped after the cells
  without shots, whose results had been looked at: the lead was within chance, and other runs needed the time.

On the development cells `oft` and `every other layer` were level, and `40 labels` was not (.010 behind). On the twenty
cells of seed 0 both were behind (.009 and .022), so they did not run everywhere.

Where `random` or `paper` is ahead of the default on seed 0, that search also runs on the other seeds, to tell a loss
from a lucky draw of samples. Chance falls back in such a repetition, and settings in which the default is ahead are not
repeated. So these cells speak of their own settings only, and count in no mean.

*Sizes*, declared later and before any of them was measured: the models of `LARGER` run on all tasks, seed 0, cells
without shots first, with the methods of `SIZE_METHODS`. The tasks come in the order of `LARGER_TASKS`: one that the
edit learns on small models, one that hardly moves there, one with a gain over prompting, then the others. Whatever is
measured when the time is up is reported. The arms `all-shots` and `best-shots` joined after the first record, a base.

*Other baselines*, declared last and before any of them was measured: everything else that `tarot compare --baseline`
offers runs in the development cells. The search's settings were chosen on other samples of these three tasks, those of
the baselines were not: a row says how far each gets by a rule fixed beforehand, not how far it could get.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tarot.models.formats.wheels import WHEELS
from tarot.search.config import TaRotConfig

MODELS = {"smollm2": "wheel:smollm2-135m", "gemma3": "wheel:gemma3-270m"}
LARGER = {"qwen0.5b": "wheel:qwen2.5-coder-0.5b", "qwen1.5b": "wheel:qwen2.5-coder-1.5b"}
REFERENCES = MODELS | LARGER
TASKS = ("ag_news", "entailed_polarity", "navigate", "color", "winowhy")
LARGER_TASKS = ("entailed_polarity", "navigate", "ag_news", "winowhy", "color")
SHOTS = (0, 6)
SEEDS = (0, 1, 2)
SAMPLES, BUDGET, DOCUMENTS = 20, 120, 200
FEW_SHOT = 6  # shots of the arm `few-shot`, the first of the search's own samples

# Side effects: documents of each task, tokens of neutral text, the strengths of weaker edits.
EFFECT_DOCUMENTS, NEUTRAL_TOKENS = 100, 20_000
STRENGTHS, STRENGTH_TEXTS = (0.25, 0.5, 0.75, 1.0), 10  # the first texts, 255 tokens each after a given one
NEUTRAL_TEXT, WEAKER = "neutral-text", "strengths"  # stand in the place of a task in the names of files

# Development runs use seeds from 100 on, and documents of the training split.
DEVELOPMENT_SEED, HELD_OUT = 100, 80
STOP_LEVELS = (-0.5, -0.2, -0.1, -0.05, -0.02)  # mean log-probability of the samples, nats
BOUND = math.pi / 4  # the product's, in radians

UNEDITED = ("base", "few-shot")
# Settings of `TaRotConfig` in which a method differs from the default.
SEARCHES: dict[str, dict[str, Any]] = {
    "default": {},
    "random": {"search": "random"},
    "first half": {"layers": 0.5},
    "second half": {"layers": -0.5},
    "every other layer": {},  # depends on the number of layers: `settings_of`
    "bo head": {"search": "bo", "space": "head"},
    "bo-gradient": {"search": "bo-gradient"},
    "paper": {"search": "paper", "layers": 0.5},
    "published": {"search": "published", "layers": 0.5},
    "rescale": {"rotation": "scale"},
    "mixed shots": {"num_fewshot": "mix"},
    "10 labels": {"num_samples": 10},
    "40 labels": {"num_samples": 40},
}
RETIRED = ("bo head-gradient",)  # measured in a space that tarot had until `bo-gradient` took its place
TRAINED = ("lora", "oft", "eigenpruning")
# Baselines of the product that show further labels, and its other ones.
PROMPTING = ("all-shots", "best-shots", "nearest-shots", "batch-calibration")
OTHER_BASELINES = ("dora", "ia3", "road", "vera", "prompt-tuning", "caa", "iti")
METHODS = (*UNEDITED, *PROMPTING, *SEARCHES, *RETIRED, *TRAINED, *OTHER_BASELINES)


@dataclass(frozen=True)
class Cell:
    """One model, task, number of shots and seed."""

    model: str
    task: str
    shots: int
    seed: int

    def record_name(self, method: str) -> str:
        """Return the name of a method's record."""
        return f"{self.model}-{self.task}-{self.shots}-{self.seed}-{method.replace(' ', '_')}"

    def config(self, **settings: Any) -> TaRotConfig:
        """Return the configuration of a search in this cell.

        Args:
            settings: in what it differs from the product's defaults; in the study's samples and shots too.
        """
        shared = {"num_fewshot": self.shots, "num_samples": SAMPLES, "seed": self.seed}
        return TaRotConfig(f"tarot_{self.task}", **shared | settings)


def cells(seeds: tuple[int, ...] = SEEDS) -> Iterator[Cell]:
    """Yield all cells, seed by seed, so that a study cut short is complete for the first seeds."""
    return (Cell(model, task, shots, seed) for seed in seeds for shots in SHOTS for task in TASKS for model in MODELS)


def size_cells(model: str, shots: tuple[int, ...] = SHOTS) -> Iterator[Cell]:
    """Yield the cells of a model of `LARGER`, in the order in which they are measured."""
    return (Cell(model, task, n, SEEDS[0]) for n in shots for task in LARGER_TASKS)


SIZE_METHODS = {0: ("base", "default", "few-shot", "all-shots", "best-shots"), 6: ("base", "default")}

# Level with the default on the development cells, and so measured in every cell of seed 0.
LEVEL = ("oft", "every other layer")
# Settings in which a search that the default should beat was ahead of it on seed 0.
AHEAD = {
    ("gemma3", "navigate", 0): "paper",
    ("smollm2", "entailed_polarity", 6): "random",
    ("smollm2", "winowhy", 6): "paper",
}
DEVELOPMENT = tuple(Cell("smollm2", task, 0, 0) for task in ("ag_news", "navigate", "entailed_polarity"))


def methods(cell: Cell) -> tuple[str, ...]:
    """Return the methods that the rule gives a cell, the most informative first.

    The unedited model answers alike for every seed, so the first seed has its record for all.
    """
    if cell.model in LARGER:
        return SIZE_METHODS[cell.shots]
    base = ("base",) if cell.seed == SEEDS[0] else ()
    everywhere = ("default", *base, *(("few-shot",) if not cell.shots else ()))
    repeated = AHEAD.get((cell.model, cell.task, cell.shots))
    if cell.seed == SEEDS[0]:
        baselines = ("lora", "random", "paper", *LEVEL, *(("bo-gradient",) if not cell.shots else ()))
    else:
        baselines = (repeated,) if repeated else ()
    others = tuple(m for m in METHODS if m not in (*UNEDITED, *everywhere, *baselines)) if cell in DEVELOPMENT else ()
    return everywhere + baselines + others


def settings_of(cell: Cell, method: str) -> dict[str, Any]:
    """Return the settings of `TaRotConfig` in which a method differs from the default in this cell."""
    if method == "every other layer":
        layers = WHEELS[REFERENCES[cell.model].removeprefix("wheel:")].layers
        return {"layers": tuple(range(0, layers, 2))}
    return SEARCHES.get(method, {})
