"""Locks between processes: held, refused without waiting, and freed when a process dies."""

import subprocess
import sys
from pathlib import Path

import pytest

from tarot._files.lock import hold_lock
from tarot.errors import FileAccessError, TarotError


def test_a_second_holder_is_refused_without_waiting(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with hold_lock(path), pytest.raises(TarotError, match="Another process"), hold_lock(path, wait=False):
        pass
    with hold_lock(tmp_path / ".lock", wait=False):
        pass


def test_a_killed_process_frees_its_lock(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    program = (
        "import os, pathlib\nfrom tarot._files.lock import hold_lock\n"
        f"with hold_lock(pathlib.Path({str(path)!r})): os._exit(3)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 3
    with hold_lock(path, wait=False):
        assert path.exists()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileAccessError, match="cannot be written"), hold_lock(tmp_path / "file" / ".lock"):
        pass
