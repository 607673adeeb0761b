"""Files that are there whole or not at all, also when the machine stops in between."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tarot.errors import TarotError

# What `json.loads` raises: the second where brackets stand too deep in one another, as in a file that means harm.
BROKEN_JSON = (ValueError, RecursionError)


def cache_folder() -> Path:
    """The user's folder for files that can be made again: `$XDG_CACHE_HOME/tarot`, else `~/.cache/tarot`."""
    return Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache"), "tarot")


@contextmanager
def written_atomically(path: Path) -> Iterator[Path]:
    """A file beside `path` to be written in the context, and moved there afterwards once the disk has it.

    Raises:
        TarotError: the file cannot be written, with the system's reason.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise TarotError(
            f"to write {path}", error.strerror or str(error), "free space or choose another place"
        ) from error
    finally:
        with suppress(OSError):
            part.unlink()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file beside its place, and move it there once the disk has it.

    Raises:
        TarotError: the file cannot be written, with the system's reason.
    """
    with written_atomically(path) as part:
        part.write_bytes(content)


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock, which the system takes back from a process that dies; its file stays.

    Raises:
        TarotError: the file cannot be made; or, unless it is waited for, another process holds the lock.
    """
    from filelock import FileLock, Timeout  # which whoever only reads files need not load

    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout as error:
        raise TarotError(f"to be alone in {path.parent}", "another process that writes there", "wait for it") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise TarotError(f"to write in {path.parent}", reason, "choose another folder") from error
    try:
        yield
    finally:
        lock.release()


def check_place(path: Path, *, folder: bool = False) -> None:
    """Raise TarotError unless a file, or the files of a folder, can be written there: told before an hour of work."""
    if os.path.exists(path) and os.path.isdir(path) != folder:
        raise TarotError(f"a {'folder' if folder else 'file'} to write", f"{str(path)!r}, which is none")
    # Not `Path.exists`, which raises where a folder above may not be searched.
    nearest = next(parent for parent in (path, *path.parents) if os.path.exists(parent))
    if (nearest.is_file() and nearest != path) or not os.access(nearest, os.W_OK):
        raise TarotError("a place to write", f"{str(path)!r}; {nearest} cannot be written to")
