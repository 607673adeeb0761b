"""Comparisons as a JSON file: written readably, read strictly."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from reprlib import repr as short
from typing import Any

from tarot._files.strict_json import LARGEST_NUMBER, parse_json, read_file, validate
from tarot.errors import TarotError
from tarot.evaluation.results.comparison import Comparison

FORMAT = 1
MOST_HEADS = 2**16
"""Heads of one comparison that a report can draw."""


def comparisons_to_json(comparisons: Sequence[Comparison]) -> str:
    """Return comparisons as JSON: sorted by id, one line a field, and null for NaN in a curve.

    Example:
        >>> comparisons_to_json([comparison]).splitlines()[1]
        ' "format": 1,'
    """
    ordered = sorted(comparisons, key=lambda comparison: comparison.id)
    content = {"format": FORMAT, "cells": [comparison_to_values(comparison) for comparison in ordered]}
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def comparison_to_values(comparison: Comparison) -> dict[str, Any]:
    """Return what JSON holds of a comparison."""
    values = asdict(comparison)
    values["curves"] = {
        name: [score if math.isfinite(score) else None for score in curve] for name, curve in comparison.curves.items()
    }
    return values


@contextmanager
def open_results(path: str | Path) -> Iterator[dict[str, Any]]:
    """Yield the content of a results file; a ValueError in the body becomes a TarotError that names the file.

    Raises:
        TarotError: no such file, not JSON, a newer format, or values that the schema refuses.
    """
    try:
        content = parse_json(read_file(Path(path)), infinite=True)
        if not isinstance(content, dict):
            raise ValueError(f"{type(content).__name__} instead of an object")
        if "format" not in content and "results" in content:
            hint = "tarot compare and tarot bench write comparisons"
            raise TarotError(f"{path} holds results of tarot evaluate or lm-eval, not comparisons.", hint=hint)
        version = content.get("format")
        if type(version) is not int:
            raise ValueError(f"its format is {short(version)}, not a number")
        if version > FORMAT:
            raise TarotError(f"results of format {FORMAT} at most", f"{version} in {path}", "update tarot")
        yield content
    except OSError as error:
        raise TarotError(f"Cannot read the results {path}: {error.strerror or error}", hint="check the path") from error
    except ValueError as error:
        wrong = f"it is not JSON ({error})" if isinstance(error, json.JSONDecodeError) else str(error)
        raise TarotError(f"{path} is not a file of tarot's results: {wrong}.", hint="measure again") from error


def load_comparisons(path: str | Path) -> list[Comparison]:
    """Read the comparisons that `comparisons_to_json` wrote; unknown fields are ignored.

    Raises:
        TarotError: no such file, not JSON, a newer format, texts that a reward scored instead of answers, or a
            comparison whose values the schema refuses.

    Example:
        >>> _ = Path("results.json").write_text(comparisons_to_json([comparison]), encoding="utf-8")
        >>> load_comparisons("results.json") == [comparison]
        True
    """
    with open_results(path) as content:
        if "rewards" in content:
            raise TarotError(f"{path} holds texts that a reward scored, not answers.", hint="tarot report shows them")
        return comparisons_from_content(content)


def comparisons_from_content(content: Mapping[str, Any]) -> list[Comparison]:
    """Build the comparisons of a results file.

    Raises:
        ValueError: names a field that is missing or wrong.
    """
    comparisons = content.get("cells")
    if not isinstance(comparisons, list):
        raise ValueError(f"its cells are {short(comparisons)}, not a list")
    return [comparison_from_values(comparison) for comparison in comparisons]


def comparison_from_values(values: object) -> Comparison:
    """Build a comparison from the values in JSON.

    Raises:
        ValueError: names a field that is missing or wrong.
    """
    if isinstance(values, dict) and isinstance(curves := values.get("curves"), dict):
        values = {**values, "curves": {name: _with_nan(curve) for name, curve in curves.items()}}
    comparison: Comparison = validate(Comparison, values)
    n = len(comparison.keys)
    if not n:
        raise ValueError("keys: no documents")
    for name, curve in comparison.curves.items():
        if any(abs(score) > LARGEST_NUMBER for score in curve):
            raise ValueError(f"curves.{name}: a score beyond {LARGEST_NUMBER:g}")
    columns: dict[str, Sequence[object]] = {"gold": comparison.gold, "texts": comparison.texts}
    for arm in comparison.arms:
        if not all(row < n for row in arm.without_number):
            raise ValueError(f"{n} documents, but without_number of {arm.name} lists others")
        columns |= {f"{name} of {arm.name}": getattr(arm, name) for name in ("predicted", "greedy", "gold_probability")}
        if arm.written:
            columns[f"written of {arm.name}"] = arm.written
    if comparison.choices:
        columns["choices"] = comparison.choices
    check_lengths(n, columns)
    check_choices(comparison)
    if comparison.head_angles and len(comparison.head_angles) != len(comparison.layers):
        raise ValueError(f"{len(comparison.layers)} layers and {len(comparison.head_angles)} rows in head_angles")
    if (n_heads := sum(map(len, comparison.head_angles))) > MOST_HEADS:
        raise ValueError(f"head_angles: {n_heads} heads, but at most {MOST_HEADS} can be drawn")
    return comparison


def _with_nan(curve: object) -> object:
    """Replace null by NaN: JSON has no NaN, so a trial without a finite score is null."""
    return [math.nan if score is None else score for score in curve] if isinstance(curve, list) else curve


def check_choices(comparison: Comparison) -> None:
    """Raise ValueError for an answer that is not among the choices of its document."""
    answers = {"gold": comparison.gold}
    for arm in comparison.arms:
        answers |= {f"predicted of {arm.name}": arm.predicted, f"greedy of {arm.name}": arm.greedy}
    for name, column in answers.items():
        for row, (choices, answer) in enumerate(zip(comparison.choices, column, strict=False)):
            if answer >= len(choices):
                raise ValueError(f"{name}.{row}: {answer}, but the document has {len(choices)} choices")


def check_lengths(n: int, columns: Mapping[str, Sequence[object]]) -> None:
    """Raise ValueError for a column that is not as long as there are documents."""
    for name, column in columns.items():
        if len(column) != n:
            raise ValueError(f"{n} documents and {len(column)} in {name}")
