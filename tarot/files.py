"""Files that are there whole or not at all, also when the machine stops in between."""

import os
from contextlib import suppress
from pathlib import Path

from tarot.errors import TarotError


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file beside its place, and move it there once the disk has it.

    Raises:
        TarotError: the file cannot be written, with the system's reason.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise TarotError(
            f"to write {path}", error.strerror or str(error), "free space or choose another place"
        ) from error
