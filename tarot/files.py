"""Files that are there whole or not at all, also when the machine stops in between."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tarot.errors import TarotError

# What `json.loads` raises: the second where brackets stand too deep in one another, as in a file that means harm.
BROKEN_JSON = (ValueError, RecursionError)


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
