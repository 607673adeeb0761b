"""Names of tasks, looked up without importing lm-eval, so that a misspelt one is refused within a second or two.

lm-eval builds its own index by parsing 14,000 YAML files, which takes many seconds. A name is looked for in tarot's
own tasks and the user's folder first; those files are parsed. Of lm-eval's files only the lines that name a task, group
or tag are read, and the names are kept in the user's cache folder, by lm-eval's version.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from difflib import get_close_matches
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from tarot._files.atomic import write_atomically
from tarot._files.paths import cache_folder
from tarot._files.strict_json import BROKEN_JSON
from tarot.errors import TarotError, UnknownName

IGNORED_FOLDERS = frozenset({"__pycache__", ".ipynb_checkpoints"})  # as lm-eval does
# A top-level `task:`, `group:` or `tag:` with the rest of its line and the list items below it.
_NAMING = re.compile(
    rb"^[\"']?(?:task|group|tag)[\"']?[ \t]*:([^\n]*)((?:\n[ \t]*-[ \t][^\n]*|\n[ \t]*(?:#[^\n]*)?(?=\n))*)", re.M
)
_INCLUDED = re.compile(rb"^[\"']?include[\"']?[ \t]*:[ \t]*[\"']?([^\n\"']+)", re.M)
_NAME = re.compile(rb"[^\s,\[\]\"'{}#]+")
_CLOSE = 0.6  # similarity of names that are suggested


class _TaskFile(yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader):  # type: ignore[misc]  # one of two bases
    """Reads a task file as data: functions are named, not imported."""


_TaskFile.add_constructor("!function", lambda loader, node: str(node.value))


def tasks_folder() -> Path:
    """The task files that come with tarot: inside the package when installed, beside it in a checkout."""
    inside = Path(__file__).parents[1] / "tasks"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "tasks"


def check_include_path(include_path: str | Path | None) -> None:
    """Raise TarotError unless the folder of further task files, where there is one, exists."""
    if include_path is not None and (not str(include_path) or not Path(include_path).is_dir()):
        raise TarotError("a folder of task files", f"{str(include_path)!r}", "give --include-path an existing folder")


def check_task_names(names: Iterable[str], include_path: str | Path | None = None) -> None:
    """Check that each name is a task, group or tag of tarot, of the user's folder or of lm-eval.

    Args:
        names: as a user gives them.
        include_path: folder of further task files.

    Raises:
        UnknownName: a name that none of them has; the nearest is offered, those of tarot and of the user first.
        TarotError: the folder does not exist, or a name is missing and a file of the folder cannot be read.

    Example:
        >>> check_task_names(["synth_color"])
    """
    check_include_path(include_path)
    near = task_names_in(tasks_folder())
    broken: list[TarotError] = []
    if include_path is not None:
        near |= task_names_in(Path(include_path), broken)
    missing = [name for name in names if name not in near]
    if not missing or not (absent := [name for name in missing if name not in lm_eval_names()]):
        return
    if broken:
        raise broken[0]
    raise unknown_task_error(absent[0], near, lm_eval_names())


def unknown_task_error(name: str, near: Iterable[str], far: Iterable[str]) -> UnknownName:
    """The error for a name that is no task; suggestions come from `near` before `far`."""
    near = sorted(near)
    # The higher cutoff keeps a search through thousands of names short.
    found = get_close_matches(name, near, n=1, cutoff=_CLOSE) or get_close_matches(name, list(far), n=1, cutoff=0.8)
    return UnknownName("task", name, found or near)


def task_names_in(folder: Path, broken: list[TarotError] | None = None) -> set[str]:
    """Names of the tasks, groups and tags in a folder; a file that cannot be read adds an error to `broken`."""
    names: set[str] = set()
    for path in _task_files(folder):
        try:
            names |= _names_of(read_task_file(path))
        except TarotError as error:
            if broken is not None:
                broken.append(error)
    return names


def read_task_file(path: Path) -> dict[str, Any]:
    """The contents of a task file, those that it includes merged in; nothing is imported or run.

    Raises:
        TarotError: it cannot be read, or is no mapping.
    """
    try:
        return _merged(path.resolve(), ())
    except Exception as error:  # syntax, encodings, types, and files that it includes
        reason = " ".join(str(error).split())
        raise TarotError("task files that lm-eval can read", f"{str(path)!r}: {reason}", "mend that one") from error


def _merged(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    if path in above:
        raise ValueError(f"Include cycle at {path}")
    with path.open("rb") as file:
        content = yaml.load(file, Loader=_TaskFile)  # a safe loader
    if not isinstance(content, dict):
        raise ValueError(f"Expected YAML dict from {path}, got {type(content).__name__}")
    includes = content.pop("include", None) or []
    merged: dict[str, Any] = {}
    for include in [includes] if isinstance(includes, str) else includes:
        merged |= _merged((path.parent / include).resolve(), (*above, path))
    return merged | content


def _names_of(content: dict[str, Any]) -> set[str]:
    named = [content.get("task"), content.get("group")]
    tags = content.get("tag") or []
    return {name for name in [*named, *([tags] if isinstance(tags, str) else tags)] if isinstance(name, str)}


def lm_eval_names() -> frozenset[str]:
    """Names of lm-eval's own tasks, groups and tags, from the cache folder where it has them for this version."""
    spec = find_spec("lm_eval")
    folder = Path(spec.origin or "").parent / "tasks" if spec else Path()
    stamp = [version("lm-eval"), str(folder), folder.stat().st_mtime_ns]
    kept = cache_folder() / "lm-eval-tasks.json"
    with suppress(OSError, *BROKEN_JSON):
        content = json.loads(kept.read_text(encoding="utf-8"))
        if isinstance(content, dict) and content.get("of") == stamp:
            return frozenset(map(str, content["names"]))
    names = sorted(_scanned(folder))
    with suppress(TarotError):
        write_atomically(kept, json.dumps({"of": stamp, "names": names}).encode())
    return frozenset(names)


def _scanned(folder: Path) -> set[str]:
    """Names on the lines that name tasks, groups and tags, in the task files of a folder and in what they include."""
    names: set[str] = set()
    todo = list(_task_files(folder))
    seen = set(todo)
    for path in todo:  # which grows
        try:
            content = path.read_bytes()
        except OSError:
            continue  # an included file that does not exist
        for named, items in _NAMING.findall(content):
            names |= {name.decode(errors="replace") for name in _NAME.findall(named + items)}
        included = {path.parent / name.decode(errors="replace") for name in _INCLUDED.findall(content)}
        todo += included - seen
        seen |= included
    return names


def _task_files(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(set(folders) - IGNORED_FOLDERS)
        yield from (Path(parent, name) for name in sorted(files) if name.endswith(".yaml"))
