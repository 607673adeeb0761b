"""Files: whole or not at all."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tarot._files import atomic as files
from tarot._files.atomic import replace_file, replace_folder, write_atomically
from tarot.errors import TarotError


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "card.json"
    target.write_bytes(b"before")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(TarotError) as error:
        write_atomically(target, b"after")
    assert str(error.value) == (
        f"expected to write {target}, got No space left on device; free space or choose another place"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["card.json"]
    assert target.read_bytes() == b"before"


def test_a_folder_is_made_for_it(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a" / "b" / "file", b"content")
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"content"


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(TarotError, match=r"expected to write .*file/card, got .*; free space or choose another place"):
        write_atomically(tmp_path / "file" / "card", b"content")


def test_a_planted_link_is_not_followed_and_names_differ(tmp_path: Path) -> None:
    names = set()
    for _ in range(2):
        with replace_file(tmp_path / "card.json") as part:
            names.add(part.name)
            part.write_bytes(b"content")
    assert len(names) == 2 and not any(str(os.getpid()) == name.rpartition(".")[2] for name in names)
    assert [path.name for path in tmp_path.iterdir()] == ["card.json"]


def test_a_link_stays_a_link_and_its_target_is_written(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "target", tmp_path / "link"
    target.write_bytes(b"before")
    link.symlink_to(target)
    write_atomically(link, b"after")
    assert link.is_symlink() and target.read_bytes() == b"after"


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o444, 0o755])
def test_permissions_stay(tmp_path: Path, mode: int) -> None:
    target = tmp_path / "card.json"
    target.write_bytes(b"before")
    target.chmod(mode)
    write_atomically(target, b"after")
    assert stat.S_IMODE(target.stat().st_mode) == mode and target.read_bytes() == b"after"


@pytest.mark.parametrize("mask", [0o077, 0o027, 0o022])
def test_a_new_file_has_the_permissions_of_any_other(tmp_path: Path, mask: int) -> None:
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


def test_the_name_is_flushed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed = []
    monkeypatch.setattr(files, "_flush", lambda path: flushed.append((path, (tmp_path / "file").exists())))
    write_atomically(tmp_path / "file", b"")
    assert flushed[-1] == (tmp_path, True) and flushed[0][1] is False


@pytest.mark.parametrize("folder", [True, False])
def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path: Path, folder: bool) -> None:
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
        (part / "weights" if folder else part).write_bytes(b"whole")
        assert {each.name for each in tmp_path.iterdir()} == {running, "other"}
    assert {each.name for each in tmp_path.iterdir()} == {"result", "other"}
    assert (target / "weights" if folder else target).read_bytes() == b"whole"


def test_what_a_running_process_writes_is_not_removed(tmp_path: Path) -> None:
    with replace_file(tmp_path / "file") as first:
        write_atomically(tmp_path / "file", b"second")
        first.write_bytes(b"first")
    assert (tmp_path / "file").read_bytes() == b"first"


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TarotError, match="Not a regular file"):
        write_atomically(tmp_path / "pipe", b"")


def test_a_folder_with_files_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "own").write_bytes(b"")
    with pytest.raises(OSError), replace_folder(tmp_path / "folder") as part:
        (part / "new").write_bytes(b"")
    assert [each.name for each in (tmp_path / "folder").iterdir()] == ["own"]
    assert [each.name for each in tmp_path.iterdir()] == ["folder"]
