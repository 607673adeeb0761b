"""FIXME: one sentence on this module."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from reprlib import repr as short
from typing import TYPE_CHECKING, Any

from tarot._files.strict_json import LARGEST_NUMBER, parse_json, read_file, validate
from tarot.errors import TarotError

if TYPE_CHECKING:
    pass
from tarot.evaluation.results import Comparison

FORMAT = 1


MOST_HEADS = 2**16  # of one cell, that a report draws


def comparisons_to_json(comparisons: Sequence[Comparison]) -> str:
    """Readable and diffable: one list, sorted by cell, one line a field; NaN in a curve as null."""
    ordered = [asdict(comparison) for comparison in sorted(comparisons, key=lambda comparison: comparison.id)]
    for comparison in ordered:
        comparison["curves"] = {
            name: [score if math.isfinite(score) else None for score in curve]
            for name, curve in comparison["curves"].items()
        }
    return json.dumps({"format": FORMAT, "cells": ordered}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


@contextmanager
def open_results(path: str | Path) -> Iterator[dict[str, Any]]:
    """Read the content of a file of results; a ValueError of the body, too, becomes a TarotError that names the file.

    Raises:
        TarotError: no such file, not JSON, a newer format, or values that the schema refuses.
    """
    try:
        content = parse_json(read_file(Path(path)), infinite=True)
        if not isinstance(content, dict):
            raise ValueError(f"{type(content).__name__} instead of an object")
        version = content.get("format")
        if type(version) is not int:
            raise ValueError(f"format: {short(version)} is no integer")
        if version > FORMAT:
            raise TarotError(f"results of format {FORMAT} at most", f"{version} in {path}", "update tarot")
        yield content
    except OSError as error:
        raise TarotError("a file of results", f"{error.strerror} at {path}", "check the path") from error
    except ValueError as error:
        raise TarotError(f"results as tarot writes them in {path}", f"{error}", "measure again") from error


def load_comparisons(path: str | Path) -> list[Comparison]:
    """Read cells that `comparisons_to_json` wrote. Fields that this version does not know are ignored.

    Raises:
        TarotError: no such file, not JSON, a newer format, or a cell whose values the schema refuses.
    """
    with open_results(path) as content:
        comparisons = content.get("cells")
        if not isinstance(comparisons, list):
            raise ValueError(f"cells: {short(comparisons)} is no list")
        return [comparison_from_json(comparison) for comparison in comparisons]


def comparison_from_json(values: object) -> Comparison:
    """Build the cell of which JSON holds these values; ValueError names a field that is missing or wrong."""
    curves = values.get("curves") if isinstance(values, dict) else None
    if isinstance(values, dict) and isinstance(curves, dict):
        # JSON has no NaN: a trial without a finite score is null.
        read = {k: [math.nan if x is None else x for x in v] if isinstance(v, list) else v for k, v in curves.items()}
        values = {**values, "curves": read}
    comparison: Comparison = validate(Comparison, values)
    if not comparison.keys:
        raise ValueError("keys: no documents")
    for name, curve in comparison.curves.items():
        if any(abs(score) > LARGEST_NUMBER for score in curve):
            raise ValueError(f"curves.{name}: a score beyond {LARGEST_NUMBER:g}")
    columns: dict[str, Sequence[object]] = {"gold": comparison.gold, "texts": comparison.texts}
    for arm in comparison.arms:
        if not all(row < len(comparison.keys) for row in arm.without_number):
            raise ValueError(f"{len(comparison.keys)} documents, and others in without_number of {arm.name}")
        columns |= {f"{name} of {arm.name}": getattr(arm, name) for name in ("predicted", "greedy", "gold_probability")}
    check_lengths(len(comparison.keys), columns)
    if comparison.head_angles and len(comparison.head_angles) != len(comparison.layers):
        raise ValueError(f"{len(comparison.layers)} layers and {len(comparison.head_angles)} rows in head_angles")
    if (n := sum(map(len, comparison.head_angles))) > MOST_HEADS:
        raise ValueError(f"head_angles: {n} heads, and at most {MOST_HEADS} can be drawn")
    return comparison


def check_lengths(n: int, columns: Mapping[str, Sequence[object]]) -> None:
    """Raise ValueError for a column of another length than the documents."""
    for name, column in columns.items():
        if len(column) != n:
            raise ValueError(f"{n} documents and {len(column)} in {name}")
