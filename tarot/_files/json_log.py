"""JSON files that are rewritten as a whole whenever a search knows more."""

import json
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from tarot._files.atomic import write_atomically
from tarot._files.strict_json import Count, parse_json, read_file, validate
from tarot.errors import FileAccessError, InvalidValueError

Entry = TypeVar("Entry")


def write_json(path: Path, content: object, indent: int | None = 1) -> None:
    """Write JSON values and dataclasses of them, in one step.

    Raises:
        FileAccessError: the file cannot be written.
    """
    write_atomically(path, (json.dumps(content, indent=indent, default=vars) + "\n").encode())


def read_intact(path: Path | None, kind: Any) -> Any:
    """Return what a file holds, as a `kind`; None if there is none, or it is damaged."""
    try:
        return validate(kind, parse_json(read_file(path))) if path else None
    except (OSError, ValueError):
        return None


class IndexedLog(Generic[Entry]):
    """An entry for each trial of a search, in a file of the search's folder; a subclass names the file.

    A trial that was interrupted before the search logged it may have an entry, which the resumed search uses or
    replaces.

    Args:
        folder: the search's folder; None keeps nothing on disk.

    Attributes:
        entries: by the trial's index.

    Raises:
        TarotError: the file is damaged or cannot be read.
    """

    file: ClassVar[str]
    kind: ClassVar[Any]
    """Type of an entry, a dataclass."""
    title: ClassVar[str]
    """The entries in words, for errors."""
    indent: ClassVar[int | None] = 1

    def __init__(self, folder: Path | None) -> None:
        self.path = folder / self.file if folder else None
        self.entries: dict[int, Entry] = self.read(folder) if folder and (folder / self.file).exists() else {}

    def add(self, trial: int, entry: Entry) -> None:
        """Keep the entry of a trial.

        Raises:
            TarotError: the file cannot be written.
        """
        self.entries[trial] = entry
        if self.path:
            write_json(self.path, self.entries, self.indent)

    @classmethod
    def read(cls, folder: str | Path) -> dict[int, Entry]:
        """Return the entries in a folder, by trial.

        Raises:
            TarotError: the file is missing or damaged.
        """
        path = Path(folder) / cls.file
        try:
            kind = dict[Count, cls.kind]  # type: ignore[name-defined]  # a type that is known when it runs
            entries: dict[int, Entry] = validate(kind, parse_json(read_file(path)))
        except OSError as error:
            raise FileAccessError(f"Cannot read {path}: {error.strerror or error}", hint="tune again") from error
        except ValueError as error:
            raise InvalidValueError(f"The {cls.title} in {path} are damaged: {error}", hint="tune again") from error
        return entries
