"""Atomic writes: after a crash or power cut a file has its old content or its new content, never a part of it."""

import errno
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tarot.errors import FileAccessError

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Create a new file beside `path`, yield it to be written, flush it to disk and move it to `path`.

    A symbolic link is followed: its target is replaced and the link is kept. The permissions of an existing file are
    kept. Threads and processes may write the same file; the last one wins. Leftovers of killed runs are removed.

    Raises:
        FileAccessError: the file cannot be written; the message has the system's reason.

    Example:
        >>> with replace_file(path) as part:
        ...     count = part.write_bytes(b"content")
    """
    try:
        with _replacing(path, _new_file) as part:
            yield part
    except OSError as error:
        reason = error.strerror or str(error)
        if blocking := next((parent for parent in path.parents if os.path.isfile(parent)), None):
            reason = f"{blocking} is not a folder"
        hint = "free some space" if error.errno == errno.ENOSPC else "choose another place"
        raise FileAccessError(f"{path} cannot be written: {reason}", hint=hint) from error


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the content of a file in one step; a failure leaves the old content.

    Raises:
        FileAccessError: the file cannot be written.
    """
    with replace_file(path) as part:
        part.write_bytes(content)


@contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """Create a new folder beside `path`, yield it to be filled, flush its files to disk and move it to `path`.

    Links, permissions and leftovers of killed runs: as for `replace_file`.

    Raises:
        OSError: the folder cannot be written, or exists and is not empty.
    """
    with _replacing(path, _new_folder) as part:
        yield part


@contextmanager
def _replacing(path: Path, make: Callable[[Path, bool], None]) -> Iterator[Path]:
    """Create a file or folder beside `path` under an unpredictable name, and move it to `path` at the end.

    It is locked while it is written, which distinguishes it from the leftovers of a killed run.
    """
    target = Path(os.path.realpath(path))
    before = target.stat() if target.exists() else None
    if before and not (stat.S_ISREG(before.st_mode) or stat.S_ISDIR(before.st_mode)):
        raise OSError(errno.EINVAL, "Not a regular file")
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(target)
    part, lock = _part_name(target, secrets.token_hex(8)), None
    try:
        make(part, before is None)
        while (lock := _lock(part, wait=True)) is None:  # another writer took it for a leftover before it was locked
            part = _part_name(target, secrets.token_hex(8))
            make(part, before is None)
        yield part
        for each in [*part.rglob("*"), part]:
            _flush(each)
        if before:
            _copy_owner(before, part)
            part.chmod(stat.S_IMODE(before.st_mode))
        part.replace(target)
        _flush(target.parent)
    finally:
        if lock is not None:
            os.close(lock)
        with suppress(OSError):
            part.unlink()
        shutil.rmtree(part, ignore_errors=True)


def _part_name(target: Path, token: str) -> Path:
    # Use a digest: the name itself may already be as long as the system allows.
    digest = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]
    return target.with_name(f".tarot-{digest}-{token}.part")


def _new_file(part: Path, public: bool) -> None:
    """Create an empty file, never through a link: with the umask's permissions, or for the user only."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    os.close(os.open(part, flags, 0o666 if public else 0o600))


def _new_folder(part: Path, public: bool) -> None:
    part.mkdir(mode=0o777 if public else 0o700)


def _copy_owner(before: os.stat_result, part: Path) -> None:
    with suppress(OSError, AttributeError):  # users who may not change owners, and systems without owners
        os.chown(part, before.st_uid, before.st_gid)


def _remove_leftovers(target: Path) -> None:
    """Remove what killed runs of this user left beside `target`: files and folders whose lock no process holds."""
    if fcntl is None:
        return
    for part in target.parent.glob(_part_name(target, "*").name):
        with suppress(OSError):
            status = part.lstat()
            if stat.S_ISLNK(status.st_mode) or status.st_uid != os.geteuid():
                continue
            if (lock := _lock(part, wait=False)) is None:
                continue
            try:
                if stat.S_ISDIR(status.st_mode):
                    shutil.rmtree(part)
                else:
                    part.unlink()
            finally:
                os.close(lock)


def _lock(part: Path, *, wait: bool) -> int | None:
    """Lock a file or folder, and return the descriptor whose closing unlocks it; None if another writer removed it.

    Raises:
        OSError: another writer holds it, without `wait`.
    """
    try:
        descriptor = os.open(part, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError:
        return None
    try:
        if fcntl is not None:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:  # held, or a file system without locks
                if not wait:
                    raise
        if os.path.samestat(os.fstat(descriptor), part.lstat()):
            return descriptor
    except FileNotFoundError:
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _flush(path: Path) -> None:
    """Wait until a file, or the list of a folder, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems cannot flush a folder
            raise
    finally:
        os.close(descriptor)
