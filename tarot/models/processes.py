"""The processes of `accelerate launch`, which share the documents of an evaluation."""

import os

from accelerate import Accelerator
from torch import distributed


def accelerate_processes() -> Accelerator | None:
    """Return the processes that `accelerate launch` started, if there are several."""
    return Accelerator() if int(os.environ.get("WORLD_SIZE", "1")) > 1 else None


def leave_processes() -> None:
    """Leave the group of processes that share the documents, if there is one; call it before this process ends.

    A process that ends as a member can abort. Its launcher then stops the others before they have written results.
    """
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def process_device(processes: Accelerator) -> str:
    """Return this process's device. accelerate numbers CPUs too, of which there is one."""
    return "cpu" if processes.device.type == "cpu" else str(processes.device)
