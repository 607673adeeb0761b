"""Paths: the cache folder, and whether a file or folder can be written."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

from tarot.errors import FileAccessError


def cache_folder() -> Path:
    """Return the user's cache folder: `$XDG_CACHE_HOME/tarot`, else `~/.cache/tarot`."""
    return Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache"), "tarot")


def check_writable(path: Path | None, *, folder: bool = False) -> None:
    """Raise FileAccessError unless `path`, a file or a folder, can be written: before the work, not after it.

    None is allowed.
    """
    if path is None:
        return
    if os.path.exists(path) and not (os.path.isdir(path) if folder else os.path.isfile(path)):
        raise FileAccessError(f"{str(path)!r} is not a {'folder' if folder else 'regular file'}.")
    # Not `Path.exists`, which raises if a parent folder may not be searched.
    nearest = next(parent for parent in (path, *path.parents) if os.path.exists(parent))
    if (nearest.is_file() and nearest != path) or not os.access(nearest, os.W_OK):
        raise FileAccessError(f"{str(path)!r} cannot be written: {nearest} is not writable or not a folder.")
    try:
        # The permissions do not suffice: the disk may be read-only, or the name too long.
        with TemporaryDirectory(prefix=".tarot-", dir=nearest if nearest.is_dir() else nearest.parent) as scratch:
            for part in path.parts[len(nearest.parts) :]:
                Path(scratch, part).touch()
            if not folder:
                Path(scratch, f".{path.name}.answers.jsonl").touch()  # the longest name beside a file
    except OSError as error:
        raise FileAccessError(f"{str(path)!r} cannot be written: {error.strerror or error}") from error
