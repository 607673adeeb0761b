"""Lock of a folder between processes, which the system frees when a process dies."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tarot.errors import FileAccessError, TarotError


@contextmanager
def hold_lock(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock while the context is open. The lock's file is kept afterwards.

    Args:
        path: the lock's file.
        wait: wait for another process that holds the lock, instead of raising.

    Raises:
        FileAccessError: the file cannot be created.
        TarotError: another process holds the lock, without `wait`.

    Example:
        >>> with hold_lock(folder / ".lock"):
        ...     (folder / "file").touch()
    """
    from filelock import FileLock, Timeout  # not needed by those who only read files

    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout as error:
        raise TarotError(f"Another process writes in {path.parent}.", hint="wait for it") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise FileAccessError(f"{path.parent} cannot be written: {reason}", hint="choose another folder") from error
    try:
        yield
    finally:
        lock.release()
