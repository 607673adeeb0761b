"""Records of the study: small JSON files, each of which is measured where it is missing."""

import json
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

Record = dict[str, Any]


def measure_records(folder: Path, work: Path, measure: Mapping[str, Callable[[], Record]]) -> None:
    """Measure the records that a folder lacks; stop it and start it again at any time.

    Args:
        folder: where the records are.
        work: folder of the locks: a record that another process measures is skipped.
        measure: returns the record, by its name, in the order in which they are measured.
    """
    n_done = sum((folder / f"{name}.json").exists() for name in measure)
    print(f"{folder} has {n_done} of {len(measure)}", file=sys.stderr, flush=True)
    work.mkdir(parents=True, exist_ok=True)
    for name, make in measure.items():
        path = folder / f"{name}.json"
        with suppress(Timeout), FileLock(work / f"{name}.lock", timeout=0):
            if path.exists():
                continue
            started = time.perf_counter()
            replace_text(path, json.dumps(make(), allow_nan=False) + "\n")
            print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)


def read_records(folder: Path) -> dict[str, Record]:
    """Return the records of a folder, by their names."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def replace_text(path: Path, text: str) -> None:
    """Replace the content of a file in one step; its writers exclude each other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
