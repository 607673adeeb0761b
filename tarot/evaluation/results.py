"""The plain data of one measured cell: a model, a task, a number of shots and a seed, with every arm on the same
documents.

No torch here: reports, gates and terminal summaries read cells without loading a model.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from reprlib import repr as short
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Interval

from tarot._files.strict_json import LARGEST_NUMBER, Count, Fraction, Name, Number, parse_json, read_file, validated
from tarot.errors import TarotError, without_number

if TYPE_CHECKING:
    from tarot.evaluation.statistics import Gain

FORMAT = 1
ZERO_SHOT, FEW_SHOT, EDITED = "zero-shot", "few-shot", "edited"  # arms that every cell has
OUTSIDE = -1  # index of an answer that is none of the choices
MOST_HEADS = 2**16  # of one cell, that a report draws

Choice = Annotated[int, Interval(ge=OUTSIDE, lt=100_000)]
"""Index of a choice, or OUTSIDE."""


@dataclass(frozen=True)
class Arm:
    """One way to answer a cell's documents.

    `predicted` is the likeliest choice of each document, `greedy` the choice that greedy decoding over the whole
    vocabulary writes (OUTSIDE where it writes none of them). `gold_probability` is that of the right answer. `labels`
    counts the labelled documents that the arm was allowed to see. `draw` is the place, 1 the best, of one more choice
    and order of the few-shot arm's shots among all that were tried; 0 for every other arm. `without_number` lists the
    rows of documents whose log-probabilities are NaN or infinite: their answers are OUTSIDE, their probability is 0.
    """

    name: Name
    labels: Count
    predicted: tuple[Choice, ...]
    greedy: tuple[Choice, ...]
    gold_probability: tuple[Fraction, ...]
    seconds: Number
    draw: Count = 0
    without_number: tuple[Count, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Arms of one model, task, number of shots and seed, on the same documents.

    `keys` digest the documents and `gold` holds their right answers, in the arms' order. `texts` are the documents as
    asked. `curves` maps a search to its score after each trial, the identity first; `head_angles` is the mean angle in
    radians of each head that was edited, `layer x head`, for the layers listed in `layers`. `command` repeats the cell,
    but for what `not_repeated` says became of the edit: that its search was stopped, or its angles scaled.
    `asked` digests what a grid asked for, so that it is not measured again.
    """

    model: Name
    task: Name
    num_fewshot: Count
    seed: int
    samples: Count
    budget: Count
    search: Name
    space: Name
    objective: Name
    command: str
    keys: tuple[Name, ...]
    gold: tuple[Choice, ...]
    texts: tuple[str, ...]
    arms: tuple[Arm, ...]
    seconds: Number
    reference_seconds: Number  # of a fixed workload in the same session: times compare as ratios to it
    adapter: Name = "base"  # fingerprint of the edit
    mixed: bool = False  # whether the search's prompts mixed numbers of shots; the documents' have `num_fewshot`
    layers: tuple[Count, ...] = ()
    head_angles: tuple[tuple[Number, ...], ...] = ()
    curves: Mapping[Name, tuple[float, ...]] = field(default_factory=dict)
    versions: Mapping[Name, Name] = field(default_factory=dict)
    asked: str = ""
    not_repeated: str = ""
    dtype: Name = "auto"  # that the model was loaded with

    @cached_property
    def id(self) -> str:
        """What a table calls the cell."""
        return f"{self.model} {self.task} {self.shots}-shot seed {self.seed}"

    @property
    def shots(self) -> str:
        """What the cell was tuned on, as a user writes it: a number, or `mix`."""
        return "mix" if self.mixed else str(self.num_fewshot)

    @property
    def draws(self) -> tuple[Arm, ...]:
        """Further choices and orders of the few-shot arm's shots, the best first."""
        return tuple(sorted((arm for arm in self.arms if arm.draw), key=lambda arm: arm.draw))

    @property
    def base(self) -> Arm:
        """The unedited model under the prompts that the edited one sees."""
        return self.arm(FEW_SHOT if self.num_fewshot else ZERO_SHOT)

    def gain(self, metric: str = "greedy_f1", *, arm: str = EDITED, over: str | None = None) -> "Gain":
        """Score of one arm minus that of another on the same documents, with its 95% interval and p-value.

        Args:
            metric: `greedy_f1`, `greedy_acc`, `f1` or `acc`.
            arm: the arm in question.
            over: the arm it is compared with; None for the base.

        Raises:
            UnknownName: no such metric.
            TarotError: no such arm.

        Example:
            >>> comparison.gain("greedy_f1").low > 0
            True
        """
        from tarot.evaluation.comparison import metric_named  # takes NumPy and SciPy along

        chosen = metric_named(metric)
        before, after = self.base if over is None else self.arm(over), self.arm(arm)
        return chosen.gain(self.gold, chosen.answers(before), chosen.answers(after))

    def arm(self, name: str) -> Arm:
        """The arm of that name; TarotError names those there are."""
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise TarotError(f"an arm among {', '.join(arm.name for arm in self.arms)}", repr(name))


# What else cells may differ in, besides model, task, shots and seed, and how it is said.
DETAILS = {
    "search": "{}",
    "space": "in {}",
    "objective": "for {}",
    "samples": "{} samples",
    "budget": "budget {}",
    "dtype": "{}",
}


def details(comparisons: Sequence[Comparison]) -> list[str]:
    """Of each cell, in words, what tells its search from those of the others; empty where all searched alike."""
    told: list[tuple[str, ...]] = [()] * len(comparisons)
    for name, form in DETAILS.items():
        values: dict[tuple[str, ...], set[object]] = defaultdict(set)
        for comparison, words in zip(comparisons, told, strict=True):
            values[words].add(getattr(comparison, name))
        if any(len(found) > 1 for found in values.values()):
            told = [
                (*words, form.format(getattr(comparison, name)))
                for comparison, words in zip(comparisons, told, strict=True)
            ]
    return [", ".join(words) for words in told]


def names_of(comparisons: Sequence[Comparison]) -> list[str]:
    """The cells' names, with what tells their searches apart."""
    return [
        ", ".join(filter(None, each))
        for each in zip((comparison.id for comparison in comparisons), details(comparisons), strict=True)
    ]


def number_notes(comparison: Comparison) -> list[str]:
    """State for each arm which documents have no number; empty if all have one."""
    return [
        f"{comparison.id}, {arm.name}: {without_number(arm.without_number, len(comparison.keys))}"
        for arm in comparison.arms
        if arm.without_number
    ]


def to_json(comparisons: Sequence[Comparison]) -> str:
    """Readable and diffable: one list, sorted by cell, one line a field; NaN in a curve as null."""
    ordered = [asdict(comparison) for comparison in sorted(comparisons, key=lambda comparison: comparison.id)]
    for comparison in ordered:
        comparison["curves"] = {
            name: [score if math.isfinite(score) else None for score in curve]
            for name, curve in comparison["curves"].items()
        }
    return json.dumps({"format": FORMAT, "cells": ordered}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


@contextmanager
def results(path: str | Path) -> Iterator[dict[str, Any]]:
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


def load(path: str | Path) -> list[Comparison]:
    """Read cells that `to_json` wrote. Fields that this version does not know are ignored.

    Raises:
        TarotError: no such file, not JSON, a newer format, or a cell whose values the schema refuses.
    """
    with results(path) as content:
        comparisons = content.get("cells")
        if not isinstance(comparisons, list):
            raise ValueError(f"cells: {short(comparisons)} is no list")
        return [from_values(comparison) for comparison in comparisons]


def from_values(values: object) -> Comparison:
    """Build the cell of which JSON holds these values; ValueError names a field that is missing or wrong."""
    curves = values.get("curves") if isinstance(values, dict) else None
    if isinstance(values, dict) and isinstance(curves, dict):
        # JSON has no NaN: a trial without a finite score is null.
        read = {k: [math.nan if x is None else x for x in v] if isinstance(v, list) else v for k, v in curves.items()}
        values = {**values, "curves": read}
    comparison: Comparison = validated(Comparison, values)
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
    same_length(len(comparison.keys), columns)
    if comparison.head_angles and len(comparison.head_angles) != len(comparison.layers):
        raise ValueError(f"{len(comparison.layers)} layers and {len(comparison.head_angles)} rows in head_angles")
    if (n := sum(map(len, comparison.head_angles))) > MOST_HEADS:
        raise ValueError(f"head_angles: {n} heads, and at most {MOST_HEADS} can be drawn")
    return comparison


def same_length(n: int, columns: Mapping[str, Sequence[object]]) -> None:
    """Raise ValueError for a column of another length than the documents."""
    for name, column in columns.items():
        if len(column) != n:
            raise ValueError(f"{n} documents and {len(column)} in {name}")
