"""Peak memory: the most in use since the context was entered, or 0 where the system does not tell."""

import sys
from pathlib import Path

import pytest
import torch

from tarot.evaluation.cost import peak_memory
from tarot.evaluation.cost.peak_memory import PeakMemory

CPU = torch.device("cpu")
MANY = 64 * 2**20  # bytes


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process its peak since a moment")
def test_memory_that_was_freed_counts_only_within_the_context() -> None:
    with PeakMemory(CPU) as peak:
        before = peak.read()
        if not before:
            pytest.skip("this system does not let a process reset its peak")
        block = torch.ones(MANY // 4)
        del block
        assert peak.read() >= before + MANY // 2
    with PeakMemory(CPU) as later:
        assert later.read() < before + MANY // 2


def test_the_peak_is_read_from_the_status_of_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "status").write_text("Name:\tpython\nVmHWM:\t    1234 kB\nVmRSS:\t 99 kB\n")
    monkeypatch.setattr(peak_memory, "_PROCESS", tmp_path)
    with PeakMemory(CPU) as peak:
        assert (tmp_path / "clear_refs").read_text() == "5"
        assert peak.read() == 1234 * 1024
    monkeypatch.setattr(peak_memory, "_PROCESS", tmp_path / "missing")
    with PeakMemory(CPU) as peak:
        assert peak.read() == 0
