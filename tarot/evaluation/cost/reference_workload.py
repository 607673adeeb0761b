"""A fixed workload, by which times of different sessions and machines compare, and what the machine is."""

import os
import platform
import time

import torch

REPEATS = 2


def time_reference_workload() -> tuple[float, ...]:
    """Return the seconds of a fixed matrix product, each time that it runs.

    The least is a unit in which the times of sessions compare. On a busy machine the others are far from it.

    Example:
        >>> all(seconds > 0 for seconds in time_reference_workload())
        True
    """
    times = []
    for _ in range(REPEATS):
        matrix = torch.ones(512, 512)
        started = time.perf_counter()
        for _ in range(10):
            matrix = (matrix @ matrix).clamp(-1, 1)
        times.append(round(time.perf_counter() - started, 6))
    return tuple(times)


def describe_machine(device: torch.device) -> str:
    """Return the operating system, the processor, the threads and the device of a model.

    Example:
        >>> describe_machine(torch.device("cpu")).endswith("CPU")
        True
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()
    threads = f"{torch.get_num_threads()} of {os.cpu_count()} threads"
    return f"{platform.system()}, {platform.machine()}, {threads}, {name}"
