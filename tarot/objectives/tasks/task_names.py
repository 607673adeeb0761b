"""Task names, looked up without importing lm-eval, so that a misspelt one fails within a second or two.

lm-eval builds its index by parsing 14,000 YAML files, which takes many seconds. Names are looked up first in tarot's
own task files and the user's, which are parsed. Of lm-eval's files only the lines that name a task, group or tag are
read; the names are cached in the user's cache folder, by lm-eval's version.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from difflib import get_close_matches
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from tarot._files.atomic import write_atomically
from tarot._files.paths import cache_folder
from tarot._files.strict_json import BROKEN_JSON, read_file
from tarot.arguments import require_path
from tarot.errors import MissingFileError, TarotError, UnknownName

IGNORED_FOLDERS = frozenset({"__pycache__", ".ipynb_checkpoints"})  # as lm-eval does
# A top-level `task:`, `group:` or `tag:` with the rest of its line and the list items below it.
_NAMING = re.compile(
    rb"^[\"']?(?:task|group|tag)[\"']?[ \t]*:([^\n]*)((?:\n[ \t]*-[ \t][^\n]*|\n[ \t]*(?:#[^\n]*)?(?=\n))*)", re.M
)
_INCLUDED = re.compile(rb"^[\"']?include[\"']?[ \t]*:[ \t]*[\"']?([^\n\"']+)", re.M)
_NAME = re.compile(rb"[^\s,\[\]\"'{}#]+")
_COMMENT = re.compile(rb"(?:^|(?<=\s))#[^\n]*")
_SCAN_VERSION = 2  # part of the cache's stamp; increase it when the scan finds other names
_MIN_SIMILARITY = 0.6  # of a suggested name


_SafeLoader: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader


class _TaskFile(_SafeLoader):
    """Read a task file as data: functions are named, not imported."""


_TaskFile.add_constructor("!function", lambda loader, node: str(node.value))


def tasks_folder() -> Path:
    """Return the folder of tarot's task files: inside the package if installed, beside it in a checkout."""
    inside = Path(__file__).parents[2] / "tasks"
    return inside if inside.is_dir() else Path(__file__).parents[3] / "tasks"


def check_include_path(include_path: str | Path | None) -> None:
    """Raise TarotError if a folder of further task files is given but does not exist."""
    path = require_path("include_path", include_path)
    if path is not None and not path.is_dir():
        raise MissingFileError(
            f"The folder of task files {str(include_path)!r} does not exist.",
            hint="give --include-path an existing folder",
        )


def check_task_names(names: Iterable[str], include_path: str | Path | None = None) -> None:
    """Check that each name is a task, group or tag of tarot, of the user's folder or of lm-eval.

    Raises:
        UnknownName: A name is in none of them. The message suggests the nearest, tarot's and the user's first.
        TarotError: The folder does not exist, or a name is missing and a file of the folder cannot be read.

    Example:
        >>> check_task_names(["synth_color"])
    """
    check_include_path(include_path)
    own_names = {*_bundled_names()}
    broken: list[TarotError] = []
    if include_path is not None:
        own_names |= task_names_in(Path(include_path), broken)
    others = [name for name in names if name not in own_names]
    if not others or not (unknown := [name for name in others if name not in lm_eval_names()]):
        return
    if broken:
        raise broken[0]
    raise unknown_task_error(unknown[0], own_names, lm_eval_names())


@cache
def _bundled_names() -> frozenset[str]:
    """Return the names in tarot's own folder, whose files no process changes."""
    return frozenset(task_names_in(tasks_folder()))


def unknown_task_error(name: str, own_names: Iterable[str], other_names: Iterable[str]) -> UnknownName:
    """Return the error for an unknown task; it suggests one of `own_names` if one is close, else of `other_names`."""
    own_names = sorted(own_names)
    # The higher cutoff keeps a search through thousands of names short.
    nearest = get_close_matches(name, own_names, n=1, cutoff=_MIN_SIMILARITY) or get_close_matches(
        name, list(other_names), n=1, cutoff=0.8
    )
    note = "" if nearest else "a task in a folder of yours needs --include-path (include_path=)"
    return UnknownName("task", name, nearest or own_names, note)


def task_names_in(folder: Path, broken: list[TarotError] | None = None) -> set[str]:
    """Return the tasks, groups and tags in a folder; a file that cannot be read adds an error to `broken`."""
    names: set[str] = set()
    for path in _task_files(folder):
        try:
            names |= _names_in_file(read_task_file(path))
        except TarotError as error:
            if broken is not None:
                broken.append(error)
    return names


def read_task_file(path: Path) -> dict[str, Any]:
    """Return the contents of a task file with its includes merged in; nothing is imported or run.

    Raises:
        TarotError: The file cannot be read, or is not a mapping.

    Example:
        >>> read_task_file(tasks_folder() / "synthetic" / "color.yaml")["task"]
        'synth_color'
    """
    try:
        return _merge_includes(path.resolve(), ())
    except Exception as error:  # syntax, encoding, types, included files
        reason = " ".join(str(error).split())
        raise TarotError(
            f"lm-eval cannot read the task file {str(path)!r}: {reason}", hint="correct that file"
        ) from error


def _merge_includes(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    if path in above:
        raise ValueError(f"Include cycle at {path}")
    content = yaml.load(read_file(path), Loader=_TaskFile)  # derives from the safe loader
    if not isinstance(content, dict):
        raise ValueError(f"Expected YAML dict from {path}, got {type(content).__name__}")
    includes = content.pop("include", None) or []
    merged: dict[str, Any] = {}
    for include in [includes] if isinstance(includes, str) else includes:
        merged |= _merge_includes((path.parent / include).resolve(), (*above, path))
    return merged | content


def _names_in_file(content: dict[str, Any]) -> set[str]:
    named = [content.get("task"), content.get("group")]
    tags = content.get("tag") or []
    return {name for name in [*named, *([tags] if isinstance(tags, str) else tags)] if isinstance(name, str)}


def lm_eval_names() -> frozenset[str]:
    """Return lm-eval's own tasks, groups and tags, from the cache folder if it has them for this version."""
    spec = find_spec("lm_eval")
    folder = Path(spec.origin or "").parent / "tasks" if spec else Path()
    stamp = [_SCAN_VERSION, version("lm-eval"), str(folder), folder.stat().st_mtime_ns]
    cache = cache_folder() / "lm-eval-tasks.json"
    with suppress(OSError, *BROKEN_JSON):
        content = json.loads(read_file(cache))
        if isinstance(content, dict) and content.get("of") == stamp:
            return frozenset(map(str, content["names"]))
    names = sorted(_scan_names(folder))
    with suppress(TarotError):
        write_atomically(cache, json.dumps({"of": stamp, "names": names}).encode())
    return frozenset(names)


def _scan_names(folder: Path) -> set[str]:
    """Return the names of tasks, groups and tags in the task files of a folder and the files that they include."""
    names: set[str] = set()
    todo = list(_task_files(folder))
    seen = set(todo)
    for path in todo:  # grows while it is read
        try:
            content = read_file(path)
        except OSError:
            continue  # an included file that does not exist
        for named, items in _NAMING.findall(content):
            names |= {name.decode(errors="replace") for name in _NAME.findall(_COMMENT.sub(b"", named + items))}
        included = {path.parent / name.decode(errors="replace") for name in _INCLUDED.findall(content)}
        todo += included - seen
        seen |= included
    return names


def task_file_stamps(folder: Path) -> Iterator[tuple[Path, int, int]]:
    """Yield path, time and size of each task file in a folder."""
    for path in _task_files(folder):
        with suppress(OSError):  # a link to a file that does not exist
            status = path.stat()
            yield path, status.st_mtime_ns, status.st_size


def _task_files(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(set(folders) - IGNORED_FOLDERS)
        for path in (Path(parent, name) for name in sorted(files) if name.endswith(".yaml")):
            if path.exists() and not path.is_file():  # lm-eval would read a pipe without end
                raise TarotError("regular task files", str(path), "remove it")
            yield path
