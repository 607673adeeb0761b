"""Where cells are measured: one after another in this process, or each a task on the machines of a Ray cluster.

Both give the same cells, since both do the same with as many threads. A task's machine may die: Ray starts the task
elsewhere, and the search goes on from its trials, which stand in a folder that all machines see.
"""

import logging
import os
import socket
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, chdir, nullcontext
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import convert_file_size_to_int

from tarot.errors import TarotError
from tarot.grid import Measurer, Models, Outcome, Setting

RETRIES = 3  # of a task whose machine or process died
CONNECT_SECONDS = 5.0  # Ray itself waits minutes for a cluster that is not there
CHECK_SECONDS = 5.0
PATIENCE_SECONDS = 60.0  # with a cluster whose last machine that is large enough has gone


@dataclass(frozen=True)
class Needs:
    """What a cell is given: threads, GPUs (a share of one, or whole ones) and bytes of memory."""

    cpus: int
    gpus: float
    memory: int

    @classmethod
    def parse(cls, cpus: int | None, gpus: float | None, memory: str) -> "Needs":
        """Of what a user left out, what a process takes on this machine.

        Raises:
            TarotError: no whole number of threads, no possible number of GPUs, or no size.
        """
        n = torch.get_num_threads() if cpus is None else cpus
        share = float(torch.cuda.is_available()) if gpus is None else gpus
        if n < 1:
            raise TarotError("at least 1 CPU for a cell", str(n))
        if not share >= 0 or (share > 1 and share != int(share)):
            raise TarotError("GPUs for a cell: 0, a share such as 0.5, or whole ones", f"{share:g}")
        try:
            size = convert_file_size_to_int(memory)
        except ValueError:
            raise TarotError("a size of memory such as 500MB or 4GB", repr(memory)) from None
        return cls(n, share, size)

    def models(self) -> Models:
        """Models where they are to be: one that is given several GPUs is spread over them."""
        return Models("auto" if self.gpus else "cpu", "auto" if self.gpus > 1 else None)

    def __str__(self) -> str:
        return _said(self.cpus, self.gpus, self.memory)


def local(settings: Sequence[Setting], work: Path, needs: Needs) -> Iterator[tuple[Setting, Outcome]]:
    """Measure settings in this process, in their order."""
    before = torch.get_num_threads()
    torch.set_num_threads(needs.cpus)
    try:
        for setting in settings:
            yield setting, _measurer(setting.model, work, needs).outcome(setting)
    finally:
        torch.set_num_threads(before)
        _measurer.cache_clear()


@lru_cache(maxsize=1)
def _measurer(model: str, work: Path, needs: Needs) -> Measurer:
    """This process's, until another model comes: two might be more than the memory it asked for."""
    return Measurer(work, needs.models())


class RayEngine(AbstractContextManager["RayEngine"]):
    """A Ray cluster to which cells are submitted; left, it drops what is not finished.

    Args:
        work: folder of the searches, on a path that all machines see.
        needs: what each cell is given.
        address: `HOST:PORT`, `ray://HOST:PORT` or `auto`; None starts Ray on this machine.

    Raises:
        TarotError: Ray is not installed, no cluster at the address, or one without a machine that has what is needed.
    """

    def __init__(self, work: Path, needs: Needs, address: str | None = None) -> None:
        self._ray = _connected(address)
        self._work = work
        self._needs = needs
        self._tasks: dict[Setting, Any] = {}
        try:
            if unfit := self._unfit():
                raise unfit
        except BaseException:
            self.close()
            raise

    def submit(self, setting: Setting) -> None:
        """Have it measured as soon as there is room; twice is once."""
        if setting not in self._tasks:
            task = self._ray.remote(_measure).options(
                name=setting.id,
                num_cpus=self._needs.cpus,
                num_gpus=self._needs.gpus,
                memory=self._needs.memory,
                max_retries=RETRIES,
            )
            data = os.environ.get("TAROT_DATA")
            self._tasks[setting] = task.remote(asdict(setting), str(self._work), asdict(self._needs), os.getcwd(), data)

    def outcome(self, setting: Setting) -> Outcome:
        """What became of it, submitted or not; waits for it."""
        self.submit(setting)
        return next(outcome for _, outcome in self.run([setting]))

    def run(self, settings: Sequence[Setting]) -> Iterator[tuple[Setting, Outcome]]:
        """Measure settings, in the order in which they are finished.

        Raises:
            TarotError: no machine has been left for a minute that has what a cell needs.
        """
        for setting in settings:
            self.submit(setting)
        waiting = {self._tasks[setting]: setting for setting in settings}
        fitted = time.monotonic()
        while waiting:
            for task in self._ray.wait(list(waiting), timeout=CHECK_SECONDS)[0]:
                yield waiting.pop(task), self._result(task)
            if not (unfit := self._unfit()):
                fitted = time.monotonic()
            elif time.monotonic() - fitted > PATIENCE_SECONDS:
                raise unfit

    def _result(self, task: Any) -> Outcome:
        try:
            return Outcome.from_json(self._ray.get(task))
        except self._ray.exceptions.RayError as error:
            said = textwrap.shorten(str(error), 200, placeholder=" ...")
            return Outcome(error=f"{type(error).__name__} after {RETRIES} retries: {said}")

    def _unfit(self) -> TarotError | None:
        """A task that no machine has room for would wait for ever."""
        asked = {"CPU": self._needs.cpus, "GPU": self._needs.gpus, "memory": self._needs.memory}
        machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if any(all(machine.get(kind, 0) >= n for kind, n in asked.items()) for machine in machines):
            return None
        have = "; ".join(sorted({_said(*(machine.get(kind, 0) for kind in asked)) for machine in machines}))
        hint = "ask for less of cpus, gpus and memory"
        return TarotError(f"a machine in the cluster with {self._needs} for a cell", have or "none", hint)

    def close(self) -> None:
        """Leave the cluster, which drops what is not finished."""
        self._ray.shutdown()

    def __exit__(self, *exception: object) -> None:
        self.close()


def _said(cpus: float, gpus: float, memory: float) -> str:
    return f"{cpus:g} CPU, {gpus:g} GPU and {memory / 1e9:.3g} GB"


def _connected(address: str | None) -> Any:
    """Ray's module, once it has found the cluster."""
    if not find_spec("ray"):
        raise TarotError(
            "ray, which takes cells to other machines", "none installed", "python -m pip install 'tarot-lm[ray]'"
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else it would report to its makers
    import ray

    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    try:
        if colon:
            socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        reason = textwrap.shorten(str(error), 160, placeholder=" ...") or type(error).__name__
        where = f"a Ray cluster at {address}" if address else "to start Ray on this machine"
        raise TarotError(where, reason, "`ray start --head` starts one, and prints its address") from error
    return ray


def _measure(setting: dict[str, Any], work: str, needs: dict[str, Any], folder: str, data: str | None) -> str:
    """A task: on whatever machine, in a process that may measure others after it."""
    given = Needs(**needs)
    torch.set_num_threads(given.cpus)
    if data:
        os.environ["TAROT_DATA"] = data
    asked = Setting(**setting)
    # Relative paths are those of the folder that the command was given in, where all machines see it.
    with chdir(folder) if os.path.isdir(folder) else nullcontext():
        return _measurer(asked.model, Path(work), given).outcome(asked).to_json()
