"""A Ray cluster: tasks, each with what it needs, whose machine may die.

Ray starts such a task elsewhere. A task that no machine has room for would wait for ever, and is an error instead.
"""

import logging
import math
import os
import socket
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, chdir, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any, Self

import torch
from accelerate.utils import convert_file_size_to_int

from tarot.errors import TarotError
from tarot.evaluation.grid import ModelCache

MOST_CPUS = 4096  # of one machine
RETRIES = 3  # of a task whose machine or process died
CONNECT_SECONDS = 5.0  # Ray itself waits minutes for a cluster that is not there
CHECK_SECONDS = 5.0
PATIENCE_SECONDS = 60.0  # with a cluster whose last machine that is large enough has gone


@dataclass(frozen=True)
class Resources:
    """What a task is given: threads, GPUs (a share of one, or whole ones) and bytes of memory."""

    cpus: int
    gpus: float
    memory: int

    @classmethod
    def parse(cls, cpus: int | None, gpus: float | None, memory: str) -> "Resources":
        """Of what a user left out, what a process takes on this machine.

        Raises:
            TarotError: no whole number of threads, no possible number of GPUs, or no size.
        """
        n = torch.get_num_threads() if cpus is None else cpus
        share = float(torch.cuda.is_available()) if gpus is None else gpus
        if not 1 <= n <= MOST_CPUS:
            raise TarotError(f"1 to {MOST_CPUS} CPUs for a task", str(n))
        if not 0 <= share < math.inf or (share > 1 and share != int(share)):
            raise TarotError("GPUs for a task: 0, a share such as 0.5, or whole ones", f"{share:g}")
        try:
            size = convert_file_size_to_int(memory)
        except ValueError:
            raise TarotError("a size of memory such as 500MB or 4GB", repr(memory)) from None
        return cls(n, share, size)

    def models(self) -> ModelCache:
        """Models where they are to be: one that is given several GPUs is spread over them."""
        return ModelCache("auto" if self.gpus else "cpu", "auto" if self.gpus > 1 else None)

    @contextmanager
    def threads(self) -> Iterator[None]:
        """As many threads for the body, and as many as there were after it."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.cpus)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def __str__(self) -> str:
        return _said(self.cpus, self.gpus, self.memory)


class Cluster(AbstractContextManager[Any]):
    """A Ray cluster to which tasks are submitted; left, it drops what is not finished.

    Args:
        needs: what each task is given.
        address: `HOST:PORT`, `ray://HOST:PORT` or `auto`; None starts Ray on this machine.

    Raises:
        TarotError: Ray is not installed, no cluster at the address, or one without a machine that has what is needed.
    """

    def __init__(self, needs: Resources, address: str | None = None) -> None:
        self._ray = _connected(address)
        self._needs = needs
        try:
            if unfit := self._unfit():
                raise unfit
        except BaseException:
            self.close()
            raise

    def submit(self, name: str, function: Callable[..., Any], *arguments: object) -> Any:
        """Have `function(needs, *arguments)` called as soon as there is room: -> what `finished` knows it by.

        It is called in a process that may run other tasks after it, in this process' folder where its machine has one.
        """
        task = self._ray.remote(_called).options(
            name=name,
            num_cpus=self._needs.cpus,
            num_gpus=self._needs.gpus,
            memory=self._needs.memory,
            max_retries=RETRIES,
        )
        return task.remote(function, asdict(self._needs), os.getcwd(), os.environ.get("TAROT_DATA"), *arguments)

    def finished(self, tasks: Sequence[Any]) -> Iterator[tuple[Any, Callable[[], Any]]]:
        """Each task with what gives its value, in the order in which they end.

        Raises:
            TarotError: no machine has been left for a minute that has what a task needs; or, by what gives a value,
                what the task raised, and that its machines died.
        """
        waiting = list(tasks)
        fitted = time.monotonic()
        while waiting:
            done, waiting = self._ray.wait(waiting, timeout=CHECK_SECONDS)
            for task in done:
                yield task, partial(self._value, task)
            if not (unfit := self._unfit()):
                fitted = time.monotonic()
            elif time.monotonic() - fitted > PATIENCE_SECONDS:
                raise unfit

    def _value(self, task: Any) -> Any:
        try:
            return self._ray.get(task)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self._ray.exceptions.RayError as error:
            said = f"{type(error).__name__}: {textwrap.shorten(str(error), 200, placeholder=' ...')}"
            raise TarotError(f"a machine that lives, in {RETRIES + 1} tries", said) from error

    def _unfit(self) -> TarotError | None:
        asked = {"CPU": self._needs.cpus, "GPU": self._needs.gpus, "memory": self._needs.memory}
        machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if any(all(machine.get(kind, 0) >= n for kind, n in asked.items()) for machine in machines):
            return None
        have = "; ".join(sorted({_said(*(machine.get(kind, 0) for kind in asked)) for machine in machines}))
        hint = "ask for less of cpus, gpus and memory"
        return TarotError(f"a machine in the cluster with {self._needs} for a task", have or "none", hint)

    def close(self) -> None:
        """Leave the cluster, which drops what is not finished."""
        self._ray.shutdown()

    def __enter__(self) -> Self:
        return self

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


def _called(
    function: Callable[..., Any], needs: dict[str, Any], folder: str, data: str | None, *arguments: object
) -> Any:
    given = Resources(**needs)
    if data:
        os.environ["TAROT_DATA"] = data
    # Relative paths are those of the folder that the command was given in, where all machines see it.
    with given.threads(), chdir(folder) if os.path.isdir(folder) else nullcontext():
        return function(given, *arguments)
