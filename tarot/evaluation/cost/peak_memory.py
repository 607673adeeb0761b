"""The most memory that a piece of work has in use: of the GPU, or of the process where Linux can tell."""

from contextlib import suppress
from pathlib import Path
from typing import Self

import torch

_PROCESS = Path("/proc/self")
_RESET_PEAK = "5"  # what `clear_refs` takes to reset VmHWM; see the manual page proc(5)


class PeakMemory:
    """Measure the most memory in use since the context was entered.

    Args:
        device: where the work runs.

    Example:
        >>> with PeakMemory(torch.device("cpu")) as peak:
        ...     peak.read() >= 0
        True
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._is_reset = False

    def __enter__(self) -> Self:
        """Begin to measure."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            with suppress(OSError):  # another system than Linux, or a sandbox
                (_PROCESS / "clear_refs").write_text(_RESET_PEAK)
                self._is_reset = True
        return self

    def __exit__(self, *_: object) -> None:
        """End the measurement, which needs no clearing up."""

    def read(self) -> int:
        """Return the most bytes in use so far, model included; 0 where it cannot be measured."""
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        if not self._is_reset:
            return 0
        lines = (_PROCESS / "status").read_text().splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)
