"""Lock of a folder between processes, which the system frees when a process dies."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tarot.errors import TarotError


@contextmanager
def hold_lock(path: Path, *, wait: bool = True) -> Iterator[None]:
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
