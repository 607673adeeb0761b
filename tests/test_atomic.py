"""Atomic writes: links, permissions, concurrent writers and leftovers of killed runs."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from stress_files import stress

from tarot._files import atomic
from tarot._files.atomic import replace_file, replace_folder, write_atomically
from tarot.errors import FileAccessError


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "card.json"
    target.write_bytes(b"before")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(FileAccessError, match="No space left"):
        write_atomically(target, b"after")
    assert [path.name for path in tmp_path.iterdir()] == ["card.json"]
    assert target.read_bytes() == b"before"


def test_parent_folders_are_created(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a" / "b" / "file", b"content")
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"content"


def test_a_parent_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileAccessError, match="cannot be written"):
        write_atomically(tmp_path / "file" / "card", b"content")


def test_temporary_names_are_unpredictable(tmp_path: Path) -> None:
    names = set()
    for _ in range(2):
        with replace_file(tmp_path / "card.json") as part:
            names.add(part.name)
            part.write_bytes(b"content")
    assert len(names) == 2 and not any(str(os.getpid()) == name.rpartition(".")[2] for name in names)
    assert [path.name for path in tmp_path.iterdir()] == ["card.json"]


def test_a_link_is_kept_and_its_target_written(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "target", tmp_path / "link"
    target.write_bytes(b"before")
    link.symlink_to(target)
    write_atomically(link, b"after")
    assert link.is_symlink() and target.read_bytes() == b"after"


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o444, 0o755])
def test_permissions_are_kept(tmp_path: Path, mode: int) -> None:
    target = tmp_path / "card.json"
    target.write_bytes(b"before")
    target.chmod(mode)
    write_atomically(target, b"after")
    assert stat.S_IMODE(target.stat().st_mode) == mode and target.read_bytes() == b"after"


@pytest.mark.parametrize("mask", [0o077, 0o027, 0o022])
def test_a_new_file_has_the_permissions_of_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write_atomically(tmp_path / "ours", b"")
        (tmp_path / "plain").write_bytes(b"")
        with replace_folder(tmp_path / "our folder"):
            pass
        (tmp_path / "folder").mkdir()
    finally:
        os.umask(before)
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert (tmp_path / "our folder").stat().st_mode == (tmp_path / "folder").stat().st_mode


def test_two_writers_of_one_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with replace_file(path) as first, replace_file(path) as second:
        first.write_bytes(b"first")
        second.write_bytes(b"second")
    assert path.read_bytes() == b"first" and [each.name for each in tmp_path.iterdir()] == ["file"]


def test_the_folder_is_flushed_after_the_move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed = []
    monkeypatch.setattr(atomic, "_flush", lambda path: flushed.append((path, (tmp_path / "file").exists())))
    write_atomically(tmp_path / "file", b"")
    assert flushed[-1] == (tmp_path, True) and flushed[0][1] is False


@pytest.mark.parametrize("folder", [True, False])
def test_leftovers_of_a_killed_run_are_removed(tmp_path: Path, folder: bool) -> None:
    target = tmp_path / "result"
    write = replace_folder if folder else replace_file
    program = (
        f"import os, pathlib, tarot._files.atomic as files\n"
        f"with files.{write.__name__}(pathlib.Path({str(target)!r})) as part:\n"
        f"    (part / 'weights' if {folder} else part).write_bytes(b'half')\n    os._exit(1)\n"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 1
    assert len(list(tmp_path.iterdir())) == 1
    with write(target) as part:
        running = part.name
        with write(tmp_path / "other"):
            pass
        (part / "weights" if folder else part).write_bytes(b"complete")
        assert {each.name for each in tmp_path.iterdir()} == {running, "other"}
    assert {each.name for each in tmp_path.iterdir()} == {"result", "other"}
    assert (target / "weights" if folder else target).read_bytes() == b"complete"


def test_files_of_running_writers_are_not_removed(tmp_path: Path) -> None:
    with replace_file(tmp_path / "file") as first:
        write_atomically(tmp_path / "file", b"second")
        first.write_bytes(b"first")
    assert (tmp_path / "file").read_bytes() == b"first"


@pytest.mark.parametrize("folder", [True, False])
def test_a_part_that_another_writer_takes_for_a_leftover_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: bool
) -> None:
    """Between its creation and its lock, a part looks like what a killed run left."""
    write, name = (replace_folder, "_new_folder") if folder else (replace_file, "_new_file")
    make, made = getattr(atomic, name), []

    def make_and_lose(part: Path, public: bool) -> None:
        make(part, public)
        made.append(part)
        if len(made) < 3:
            atomic._remove_leftovers(tmp_path / "result")
            assert not part.exists()

    monkeypatch.setattr(atomic, name, make_and_lose)
    with write(tmp_path / "result") as part:
        (part / "weights" if folder else part).write_bytes(b"whole")
    assert len(set(made)) == 3 and [each.name for each in tmp_path.iterdir()] == ["result"]


def test_a_part_that_is_removed_while_its_lock_is_awaited_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_part, opened = os.open, []

    def open_and_lose(path: Path, flags: int, *mode: int) -> int:
        descriptor = open_part(path, flags, *mode)
        if not flags & os.O_CREAT and not opened:
            opened.append(path)
            Path(path).unlink()
        return descriptor

    monkeypatch.setattr(atomic.os, "open", open_and_lose)
    write_atomically(tmp_path / "file", b"whole")
    assert (tmp_path / "file").read_bytes() == b"whole" and opened


def test_threads_write_one_file() -> None:
    """`stress_files.py` writes it as often as you ask."""
    assert stress(400) == []


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileAccessError, match="Not a regular file"):
        write_atomically(tmp_path / "pipe", b"")


def test_a_folder_with_files_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "own").write_bytes(b"")
    with pytest.raises(OSError), replace_folder(tmp_path / "folder") as part:
        (part / "new").write_bytes(b"")
    assert [each.name for each in (tmp_path / "folder").iterdir()] == ["own"]
    assert [each.name for each in tmp_path.iterdir()] == ["folder"]


def test_a_path_below_a_file_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "x", tmp_path / "file" / "deep" / "x"):
        with pytest.raises(FileAccessError, match=r"file is not a folder; choose another place"):
            write_atomically(path, b"")
