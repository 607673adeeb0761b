"""Cells, measured one after another in this process, or each as a task of a Ray cluster.

Both give the same cells, since both do the same with as many threads. When a task's machine dies, the search goes on
elsewhere from its trials, which stand in a folder that all machines see.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from tarot.errors import TarotError
from tarot.evaluation.grid import CellRequest, CellResult, CellRunner
from tarot.evaluation.ray.cluster import Cluster, Resources


def run_locally(
    settings: Sequence[CellRequest], work: Path, needs: Resources
) -> Iterator[tuple[CellRequest, CellResult]]:
    """Measure settings in this process, in their order."""
    try:
        for setting in settings:
            with needs.threads():
                outcome = _measurer(setting.model, work, needs).outcome(setting)
            yield setting, outcome
    finally:
        _measurer.cache_clear()


@lru_cache(maxsize=1)
def _measurer(model: str, work: Path, needs: Resources) -> CellRunner:
    """This process's, until another model comes: two might be more than the memory it asked for."""
    return CellRunner(work, needs.models())


class RayEngine(Cluster):
    """A Ray cluster to which cells are submitted.

    Args:
        work: folder of the searches, on a path that all machines see.
        needs: what each cell is given.
        address: as for `Cluster`, whose errors it has.
    """

    def __init__(self, work: Path, needs: Resources, address: str | None = None) -> None:
        super().__init__(needs, address)
        self._work = work
        self._tasks: dict[CellRequest, Any] = {}

    def add(self, setting: CellRequest) -> None:
        """Have it measured as soon as there is room; twice is once."""
        if setting not in self._tasks:
            self._tasks[setting] = self.submit(setting.id, _measure, str(self._work), asdict(setting))

    def outcome(self, setting: CellRequest) -> CellResult:
        """What became of it, added before or not; waits for it."""
        return next(outcome for _, outcome in self.run([setting]))

    def run(self, settings: Sequence[CellRequest]) -> Iterator[tuple[CellRequest, CellResult]]:
        """Measure settings, in the order in which they are finished.

        Raises:
            TarotError: no machine has been left for a minute that has what a cell needs.
        """
        for setting in settings:
            self.add(setting)
        by_task = {self._tasks[setting]: setting for setting in settings}
        for task, value in self.finished(list(by_task)):
            try:
                outcome = CellResult.from_json(value())
            except TarotError as error:
                outcome = CellResult(error=str(error))
            yield by_task[task], outcome


def _measure(needs: Resources, work: str, setting: dict[str, Any]) -> str:
    asked = CellRequest(**setting)
    return _measurer(asked.model, Path(work), needs).outcome(asked).to_json()
