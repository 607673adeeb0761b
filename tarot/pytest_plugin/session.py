"""State of one process of a test run, and how it measures a cell."""

from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tarot.errors import TarotError
from tarot.evaluation.grid.cell_runner import CellRunner, ModelCache
from tarot.evaluation.grid.grid import CellRequest

if TYPE_CHECKING:
    from tarot.edit.adapter import Adapter
    from tarot.evaluation.ray.cells import RayEngine
    from tarot.evaluation.regression.verdict import Verdict
    from tarot.evaluation.results.comparison import Comparison
    from tarot.models.loaded_model import LoadedModel
    from tarot.pytest_plugin.gain import TarotGain


@dataclass
class SessionState:
    """State of one process of a test run: the controlling process, or a worker of xdist.

    Attributes:
        config: pytest's configuration.
        values: values of the options, by name, as `parse_options` returns them.
        models: models loaded so far.
        gains: gains measured so far, or why they could not be measured. The model is part of the key, because a part of
            a suite may replace the fixture `tarot_model`.
        unsent: comparisons that no report of a test has carried to the controlling process yet.
        unsent_notes: notes likewise.
        reference: cells of `--tarot-reference`. This and the following are of the controlling process.
        saved: cells that the file of `--tarot-save-reference` holds before the run.
        comparisons: what the tests measured, by identity.
        notes: lines for the summary.
        failures: lines for the summary: failures of the gate, and of saving and reporting.
        verdicts: the gate's verdict on each cell.
        measuring_failed: whether a test that measures failed, or was expected to fail.
        ended_tests: ids of the tests that were called, or whose setup skipped or failed them.
    """

    config: pytest.Config
    values: dict[str, Any]
    models: ModelCache = field(default_factory=ModelCache)
    gains: dict[tuple[CellRequest, "LoadedModel | None"], "TarotGain | TarotError"] = field(default_factory=dict)
    unsent: "list[Comparison]" = field(default_factory=list)
    unsent_notes: list[str] = field(default_factory=list)
    reference: "list[Comparison] | None" = None
    saved: "list[Comparison] | None" = None
    comparisons: "dict[Any, Comparison]" = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    verdicts: list["Verdict"] = field(default_factory=list)
    measuring_failed: bool = False
    ended_tests: set[str] = field(default_factory=set)
    _phase: str = ""
    _runner: CellRunner | None = None
    _ray: "RayEngine | None" = None
    _ray_results: dict[CellRequest, tuple["Adapter", "Comparison"]] = field(default_factory=dict)

    @property
    def uses_ray(self) -> bool:
        """Whether cells are measured on a Ray cluster."""
        return bool(self.values["engine"] == "ray")

    def tune(self, request: CellRequest, model: "LoadedModel | None") -> "Adapter":
        """Return the adapter that the cell's search finds, or has found; `model` is None on a Ray cluster."""
        if model is None:
            return self._measure_on_ray(request)[0]
        return self.runner.tune(request, model)[0]

    def measure(self, request: CellRequest, model: "LoadedModel | None") -> "Comparison":
        """Return the comparison of a cell; `model` is None on a Ray cluster."""
        if model is None:
            return self._measure_on_ray(request)[1]
        return self.runner.compare(request, model)

    def show_phase(self, phase: str) -> None:
        """Print what is being measured when it begins, under `-v` and in the controlling process."""
        if phase == self._phase:
            return
        self._phase = phase
        reporter: Any = self.config.pluginmanager.get_plugin("terminalreporter")
        capture: Any = self.config.pluginmanager.get_plugin("capturemanager")
        if reporter is not None and self.config.option.verbose > 0:
            with capture.global_and_fixture_disabled() if capture else nullcontext():
                reporter.ensure_newline()
                reporter.write_line(f"tarot: {phase}")

    @property
    def runner(self) -> CellRunner:
        """The runner of cells in this process."""
        if self._runner is None:
            self._runner = CellRunner(self._work_folder(), self.models, self.unsent_notes, on_phase=self.show_phase)
        return self._runner

    @property
    def ray(self) -> "RayEngine":
        """The engine of cells on a Ray cluster."""
        if self._ray is None:
            from tarot.evaluation.ray.cells import RayEngine
            from tarot.evaluation.ray.cluster import Resources

            resources = Resources.parse(self.values["cpus"], None, self.values["memory"])
            self._ray = RayEngine(self._work_folder(), resources, self.values["address"])
        return self._ray

    def close(self) -> None:
        """Leave the Ray cluster, if there is one."""
        if self._ray:
            self._ray.close()

    def _measure_on_ray(self, request: CellRequest) -> tuple["Adapter", "Comparison"]:
        if request not in self._ray_results:
            from tarot.edit.adapter import Adapter

            result = self.ray.result(request)
            self.unsent_notes += result.notes
            if result.comparison is None:
                raise TarotError(result.error)
            self._ray_results[request] = Adapter.from_pretrained(result.folder), result.comparison
        return self._ray_results[request]

    def _work_folder(self) -> Path:
        if folder := self.values["work"]:
            return Path(folder)
        cache: pytest.Cache | None = getattr(self.config, "cache", None)
        if cache is None:
            given, hint = "-p no:cacheprovider and no --tarot-work", "give --tarot-work a folder"
            raise TarotError("a cache for tuned adapters", given, hint)
        return cache.mkdir("tarot")


STATE = pytest.StashKey[SessionState]()


def is_worker(config: pytest.Config) -> bool:
    """Whether this process is a worker of xdist."""
    return hasattr(config, "workerinput")
