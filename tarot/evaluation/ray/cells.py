"""Run cells one after another in this process, or each as a task of a Ray cluster.

Both give the same comparisons: both run the same code with the same number of threads. If the machine of a task dies,
another one resumes its search from the trials, which lie in a folder that all machines share.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from tarot.errors import TarotError
from tarot.evaluation.grid.cell_runner import CellRunner
from tarot.evaluation.grid.grid import CellRequest, CellResult
from tarot.evaluation.ray.cluster import Cluster, Resources


def run_locally(
    requests: Sequence[CellRequest],
    work: Path,
    resources: Resources,
    on_phase: Callable[[CellRequest, str], None] = lambda request, phase: None,
) -> Iterator[tuple[CellRequest, CellResult]]:
    """Run cells in this process, in their order."""
    try:
        for request in requests:
            runner = _cell_runner(request.model, work, resources)
            runner.on_phase = functools.partial(on_phase, request)
            with resources.threads():
                result = runner.run(request)
            yield request, result
    finally:
        _cell_runner.cache_clear()


@lru_cache(maxsize=1)
def _cell_runner(model: str, work: Path, resources: Resources) -> CellRunner:
    """Return this process's runner; another model replaces it, since two may exceed the requested memory."""
    return CellRunner(work, resources.models())


class RayEngine(Cluster):
    """A Ray cluster that runs cells.

    Args:
        work: folder of the searches, on a path that all machines share.
        resources: what each cell may use.
        address: `HOST:PORT`, `ray://HOST:PORT` or `auto`; None starts Ray on this machine.
    """

    def __init__(self, work: Path, resources: Resources, address: str | None = None) -> None:
        super().__init__(resources, address)
        self._work = work
        self._tasks: dict[CellRequest, Any] = {}

    def add(self, request: CellRequest) -> None:
        """Submit a cell, unless it was submitted before."""
        if request not in self._tasks:
            self._tasks[request] = self.submit(request.id, _run, str(self._work), asdict(request))

    def result(self, request: CellRequest) -> CellResult:
        """Wait for the result of a cell, and submit it if it was not."""
        return next(result for _, result in self.run([request]))

    def run(self, requests: Sequence[CellRequest]) -> Iterator[tuple[CellRequest, CellResult]]:
        """Run cells and yield their results as they come.

        Raises:
            TarotError: for a minute no machine of the cluster has had the resources of a cell.
        """
        for request in requests:
            self.add(request)
        by_task = {self._tasks[request]: request for request in requests}
        for task, value in self.finished(list(by_task)):
            try:
                result = CellResult.from_json(value())
            except TarotError as error:
                result = CellResult(error=str(error))
            yield by_task[task], result


def _run(resources: Resources, work: str, values: dict[str, Any]) -> str:
    request = CellRequest(**values)
    return _cell_runner(request.model, Path(work), resources).run(request).to_json()
