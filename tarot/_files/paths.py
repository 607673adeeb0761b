"""Places to write: the cache folder, and whether a file can be written."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

from tarot.errors import TarotError


def cache_folder() -> Path:
    """The user's folder for files that can be made again: `$XDG_CACHE_HOME/tarot`, else `~/.cache/tarot`."""
    return Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache"), "tarot")


def check_writable(path: Path, *, folder: bool = False) -> None:
    """Raise TarotError unless a file, or the files of a folder, can be written there: told before an hour of work."""
    if os.path.exists(path) and not (os.path.isdir(path) if folder else os.path.isfile(path)):
        raise TarotError(f"a {'folder' if folder else 'file'} to write", f"{str(path)!r}, which is none")
    # Not `Path.exists`, which raises where a folder above may not be searched.
    nearest = next(parent for parent in (path, *path.parents) if os.path.exists(parent))
    if (nearest.is_file() and nearest != path) or not os.access(nearest, os.W_OK):
        raise TarotError("a place to write", f"{str(path)!r}; {nearest} cannot be written to")
    try:
        # The mode of a folder does not tell all: its disk may be read-only, or the name too long.
        with TemporaryDirectory(prefix=".tarot-", dir=nearest if nearest.is_dir() else nearest.parent) as scratch:
            for part in path.parts[len(nearest.parts) :]:
                Path(scratch, part).touch()
            if not folder:
                Path(scratch, f".{path.name}.answers.jsonl").touch()  # the longest name beside a file
    except OSError as error:
        raise TarotError("a place to write", f"{str(path)!r}: {error.strerror or error}") from error
