"""A Ray cluster that runs tasks with given resources, on machines that may die.

Ray restarts the task of a machine that died on another one. A task that no machine has the resources for would wait for
ever; here it raises an error.
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
from typing import Any, Self

import torch
from accelerate.utils import convert_file_size_to_int

from tarot.edit.patch import restoring
from tarot.errors import TarotError, require_package
from tarot.evaluation.grid.cell_runner import ModelCache

MOST_CPUS = 4096
"""Most CPUs of one machine."""
RETRIES = 3
"""How often a task is restarted whose machine or process died."""
CONNECT_SECONDS = 5.0
"""How long to wait for the cluster's address; Ray itself waits minutes."""
CHECK_SECONDS = 5.0
"""How often to check that a machine has the resources of the tasks that wait."""
PATIENCE_SECONDS = 60.0
"""How long to wait for a machine with the resources, after the last one has gone."""


@dataclass(frozen=True)
class Resources:
    """Resources of a task.

    Attributes:
        cpus: threads.
        gpus: GPUs: 0, a fraction of one, or a whole number.
        memory: bytes.

    Example:
        >>> str(Resources(cpus=2, gpus=0, memory=4 * 10**9))
        '2 CPU, 0 GPU and 4 GB'
    """

    cpus: int
    gpus: float
    memory: int

    @classmethod
    def parse(cls, cpus: int | None, gpus: float | None, memory: str) -> "Resources":
        """Parse a user's options; None takes what a process uses on this machine.

        Raises:
            TarotError: a number of CPUs or GPUs that no task can have, or a malformed size.

        Example:
            >>> Resources.parse(cpus=2, gpus=0.5, memory="4GB")
            Resources(cpus=2, gpus=0.5, memory=4000000000)
        """
        n_cpus = torch.get_num_threads() if cpus is None else cpus
        n_gpus = float(torch.cuda.is_available()) if gpus is None else gpus
        if not 1 <= n_cpus <= MOST_CPUS:
            raise TarotError(f"1 to {MOST_CPUS} CPUs for a task", str(n_cpus))
        if not 0 <= n_gpus < math.inf or (n_gpus > 1 and n_gpus != int(n_gpus)):
            raise TarotError("GPUs for a task: 0, a fraction such as 0.5, or a whole number", f"{n_gpus:g}")
        try:
            size = convert_file_size_to_int(memory)
        except ValueError:
            raise TarotError("a size of memory such as 500MB or 4GB", repr(memory)) from None
        return cls(n_cpus, n_gpus, size)

    def models(self) -> ModelCache:
        """Return an empty cache that loads models onto these resources, spread over the GPUs if there are several."""
        return ModelCache("auto" if self.gpus else "cpu", "auto" if self.gpus > 1 else None)

    @contextmanager
    def threads(self) -> Iterator[None]:
        """Set the number of torch's threads for the body, and restore it after it."""
        with restoring(partial(torch.set_num_threads, torch.get_num_threads())):
            torch.set_num_threads(self.cpus)
            yield

    def __str__(self) -> str:
        return _describe(self.cpus, self.gpus, self.memory)


class Cluster(AbstractContextManager[Any]):
    """A Ray cluster that runs tasks; on exit it drops those that are not finished.

    Args:
        resources: what each task may use.
        address: `HOST:PORT`, `ray://HOST:PORT` or `auto`; None starts Ray on this machine.

    Raises:
        TarotError: Ray is not installed, there is no cluster at the address, or no machine of it has the resources.
    """

    def __init__(self, resources: Resources, address: str | None = None) -> None:
        self._ray = _connect(address)
        self._resources = resources
        try:
            if lack := self._lack_of_resources():
                raise lack
        except BaseException:
            self.close()
            raise

    def submit(self, name: str, function: Callable[..., Any], *arguments: object) -> Any:
        """Run `function(resources, *arguments)` as soon as a machine has the resources.

        It runs in a process that may run other tasks later, and in this process's folder if its machine has it.

        Returns:
            A handle for `finished`.
        """
        task = self._ray.remote(_run).options(
            name=name,
            num_cpus=self._resources.cpus,
            num_gpus=self._resources.gpus,
            memory=self._resources.memory,
            max_retries=RETRIES,
        )
        return task.remote(function, asdict(self._resources), os.getcwd(), os.environ.get("TAROT_DATA"), *arguments)

    def finished(self, tasks: Sequence[Any]) -> Iterator[tuple[Any, Callable[[], Any]]]:
        """Yield each task with a function that returns its value, in the order in which they end.

        Raises:
            TarotError: for a minute no machine has had the resources of a task. The function that returns a value
                raises what the task raised, or that its machines died.
        """
        waiting = list(tasks)
        last_fit = time.monotonic()
        while waiting:
            done, waiting = self._ray.wait(waiting, timeout=CHECK_SECONDS)
            for task in done:
                yield task, partial(self._value, task)
            if not (lack := self._lack_of_resources()):
                last_fit = time.monotonic()
            elif time.monotonic() - last_fit > PATIENCE_SECONDS:
                raise lack

    def _value(self, task: Any) -> Any:
        try:
            return self._ray.get(task)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self._ray.exceptions.RayError as error:
            reason = f"{type(error).__name__}: {textwrap.shorten(str(error), 200, placeholder=' ...')}"
            raise TarotError(f"The task failed {RETRIES + 1} times because its worker died ({reason}).") from error

    def _lack_of_resources(self) -> TarotError | None:
        """Return an error unless some machine has the resources of a task."""
        needed = {"CPU": self._resources.cpus, "GPU": self._resources.gpus, "memory": self._resources.memory}
        machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if any(all(machine.get(kind, 0) >= n for kind, n in needed.items()) for machine in machines):
            return None
        available = "; ".join(sorted({_describe(*(machine.get(kind, 0) for kind in needed)) for machine in machines}))
        hint = "request less of cpus, gpus and memory"
        return TarotError(f"a machine in the cluster with {self._resources} for a task", available or "none", hint)

    def close(self) -> None:
        """Leave the cluster, which drops the tasks that are not finished."""
        self._ray.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _describe(cpus: float, gpus: float, memory: float) -> str:
    return f"{cpus:g} CPU, {gpus:g} GPU and {memory / 1e9:.3g} GB"


def _connect(address: str | None) -> Any:
    """Connect to a cluster and return Ray's module."""
    require_package("ray", "The engine ray", "ray")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would send usage statistics to its makers
    import ray

    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    try:
        if colon:
            socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        reason = textwrap.shorten(str(error), 160, placeholder=" ...") or type(error).__name__
        expected = f"a Ray cluster at {address}" if address else "to start Ray on this machine"
        raise TarotError(expected, reason, "`ray start --head` starts one, and prints its address") from error
    return ray


def _run(
    function: Callable[..., Any], values: dict[str, Any], folder: str, data: str | None, *arguments: object
) -> Any:
    """Run a task in a process of the cluster."""
    resources = Resources(**values)
    if data:
        os.environ["TAROT_DATA"] = data
    # Relative paths start from the folder of the command, which all machines share.
    with resources.threads(), chdir(folder) if os.path.isdir(folder) else nullcontext():
        return function(resources, *arguments)
