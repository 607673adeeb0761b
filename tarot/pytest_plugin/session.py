"""The state of one process of a run, and how it measures."""

from contextlib import nullcontext, redirect_stderr
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tarot.errors import TarotError
from tarot.evaluation.cell_runner import CellRunner, ModelCache
from tarot.evaluation.grid import CellRequest
from tarot.evaluation.results import Comparison

if TYPE_CHECKING:
    from tarot.edit.adapter import Adapter
    from tarot.evaluation.ray.cells import RayEngine
    from tarot.evaluation.regression import Verdict
    from tarot.models.loaded_model import LoadedModel
    from tarot.pytest_plugin.measured import TarotGain


@dataclass
class SessionState:
    """What one process of a run knows: the options, what is loaded, tuned and measured, what is to be said."""

    values: dict[str, Any]
    baseline: list[Comparison] | None = None
    saved: list[Comparison] | None = None  # what the baseline that is to be saved holds already
    models: ModelCache = field(default_factory=ModelCache)
    measurer: CellRunner | None = None
    ray: "RayEngine | None" = None
    outcomes: dict[CellRequest, tuple["Adapter", Comparison]] = field(default_factory=dict)  # that came from Ray
    gains: dict[tuple[CellRequest, "LoadedModel | None"], "TarotGain | TarotError"] = field(default_factory=dict)
    unsent_cells: list[Comparison] = field(default_factory=list)
    unsent_words: list[str] = field(default_factory=list)
    # Of the controlling process: what the reports of tests have brought, and what came of it.
    comparisons: dict[Any, Comparison] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    verdicts: list["Verdict"] = field(default_factory=list)
    unproven: bool = False  # whether a test that measures failed, or was expected to
    whole: bool = False  # whether the run came to its end without a failure


STATE = pytest.StashKey[SessionState]()


def is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def measured(config: pytest.Config, setting: CellRequest, model: "LoadedModel | None") -> Comparison:
    if model is None:
        return from_ray(config, setting)[1]
    # Unless they are wanted, lm-eval's progress bars would fill the captured output of every failure.
    shown = config.getoption("capture") == "no"
    with nullcontext() if shown else redirect_stderr(StringIO()):
        return measurer(config).compare(setting, model)


def measurer(config: pytest.Config) -> CellRunner:
    state = config.stash[STATE]
    if state.measurer is None:
        state.measurer = CellRunner(cache_folder(config), state.models, state.unsent_words)
    return state.measurer


def ray_engine(config: pytest.Config) -> "RayEngine":
    state = config.stash[STATE]
    if state.ray is None:
        from tarot.evaluation.ray.cells import RayEngine
        from tarot.evaluation.ray.cluster import Resources

        values = state.values
        needs = Resources.parse(values["cpus"], values["gpus"], values["memory"])
        state.ray = RayEngine(cache_folder(config), needs, values["address"])
    return state.ray


def from_ray(config: pytest.Config, setting: CellRequest) -> tuple["Adapter", Comparison]:
    state = config.stash[STATE]
    if setting not in state.outcomes:
        from tarot.edit.adapter import Adapter

        outcome = ray_engine(config).result(setting)
        state.unsent_words += outcome.notes
        if outcome.comparison is None:
            pytest.fail(outcome.error, pytrace=False)
        state.outcomes[setting] = Adapter.from_pretrained(outcome.folder), outcome.comparison
    return state.outcomes[setting]


def cache_folder(config: pytest.Config) -> Path:
    if given := config.stash[STATE].values["cache"]:
        return Path(given)
    cache: pytest.Cache | None = getattr(config, "cache", None)
    if cache is None:
        raise TarotError(
            "a cache for tuned adapters", "-p no:cacheprovider and no --tarot-cache", "give --tarot-cache a folder"
        )
    return cache.mkdir("tarot")
