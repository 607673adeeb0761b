"""The plain data of one measured cell: a model, a task, a number of shots and a seed, with every arm on the same
documents.

No torch here: reports, gates and terminal summaries read cells without loading a model.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tarot.errors import TarotError
from tarot.files import BROKEN_JSON

if TYPE_CHECKING:
    from pydantic import TypeAdapter

FORMAT = 1
ZERO_SHOT, FEW_SHOT, EDITED = "zero-shot", "few-shot", "edited"  # arms that every cell has
OUTSIDE = -1  # index of an answer that is none of the choices


@dataclass(frozen=True)
class Arm:
    """One way to answer a cell's documents.

    `predicted` is the likeliest choice of each document, `greedy` the choice that greedy decoding over the whole
    vocabulary writes (OUTSIDE where it writes none of them). `gold_probability` is that of the right answer. `labels`
    counts the labelled documents that the arm was allowed to see. `draw` is the place, 1 the best, of one more choice
    and order of the few-shot arm's shots among all that were tried; 0 for every other arm.
    """

    name: str
    labels: int
    predicted: tuple[int, ...]
    greedy: tuple[int, ...]
    gold_probability: tuple[float, ...]
    seconds: float
    draw: int = 0


@dataclass(frozen=True)
class Cell:
    """Arms of one model, task, number of shots and seed, on the same documents.

    `keys` digest the documents and `gold` holds their right answers, in the arms' order. `texts` are the documents as
    asked. `curves` maps a search to its score after each trial, the identity first; `head_angles` is the mean angle in
    radians of each head that was edited, `layer x head`, for the layers listed in `layers`. `command` repeats the cell,
    but for what `not_repeated` says became of the edit: that its search was stopped, or its angles scaled.
    `asked` digests what a grid asked for, so that it is not measured again.
    """

    model: str
    task: str
    num_fewshot: int
    seed: int
    samples: int
    budget: int
    search: str
    space: str
    objective: str
    command: str
    keys: tuple[str, ...]
    gold: tuple[int, ...]
    texts: tuple[str, ...]
    arms: tuple[Arm, ...]
    seconds: float
    reference_seconds: float  # of a fixed workload in the same session: times compare as ratios to it
    adapter: str = "base"  # fingerprint of the edit
    mixed: bool = False  # whether the search's prompts mixed numbers of shots; the documents' have `num_fewshot`
    layers: tuple[int, ...] = ()
    head_angles: tuple[tuple[float, ...], ...] = ()
    curves: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    asked: str = ""
    not_repeated: str = ""

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

    def arm(self, name: str) -> Arm:
        """The arm of that name; TarotError names those there are."""
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise TarotError(f"an arm among {', '.join(arm.name for arm in self.arms)}", repr(name))


# What else cells may differ in, besides model, task, shots and seed, and how it is said.
DETAILS = {"search": "{}", "space": "in {}", "objective": "for {}", "samples": "{} samples", "budget": "budget {}"}


def details(cells: Sequence[Cell]) -> list[str]:
    """Of each cell, in words, what tells its search from those of the others; empty where all searched alike."""
    told: list[tuple[str, ...]] = [()] * len(cells)
    for name, form in DETAILS.items():
        values: dict[tuple[str, ...], set[object]] = defaultdict(set)
        for cell, words in zip(cells, told, strict=True):
            values[words].add(getattr(cell, name))
        if any(len(found) > 1 for found in values.values()):
            told = [(*words, form.format(getattr(cell, name))) for cell, words in zip(cells, told, strict=True)]
    return [", ".join(words) for words in told]


def names_of(cells: Sequence[Cell]) -> list[str]:
    """The cells' names, with what tells their searches apart."""
    return [", ".join(filter(None, each)) for each in zip((cell.id for cell in cells), details(cells), strict=True)]


def to_json(cells: Sequence[Cell]) -> str:
    """Readable and diffable: one list, sorted by cell, one line a field."""
    ordered = sorted(cells, key=lambda cell: cell.id)
    return (
        json.dumps({"format": FORMAT, "cells": [asdict(cell) for cell in ordered]}, indent=1, ensure_ascii=False) + "\n"
    )


@contextmanager
def results(path: str | Path) -> Iterator[dict[str, Any]]:
    """What a file of results holds; whatever is found wrong with it, also by the body, is one TarotError.

    Raises:
        TarotError: no such file, not JSON, a newer format, or something that the body looks for and does not find.
    """
    try:
        content = json.loads(Path(path).read_bytes())
        version = content["format"]
        if isinstance(version, int) and version > FORMAT:
            raise TarotError(f"results of format {FORMAT} at most", f"{version} in {path}", "update tarot")
        yield content
    except OSError as error:
        raise TarotError("a file of results", f"{error.strerror} at {path}", "check the path") from error
    except (*BROKEN_JSON, KeyError, TypeError, AttributeError) as error:
        raise TarotError(
            f"results as tarot writes them in {path}", f"{type(error).__name__}: {error}", "measure again"
        ) from error


def load(path: str | Path) -> list[Cell]:
    """Read cells that `to_json` wrote.

    Raises:
        TarotError: no such file, not JSON, a newer format, or a cell that lacks something.
    """
    with results(path) as content:
        return [from_values(cell) for cell in content["cells"]]


def from_values(values: object) -> Cell:
    """The cell of which JSON holds these values; TypeError where it lacks something, or an arm answers."""
    cell: Cell = parsed(Cell, values)
    columns = {"gold": cell.gold, "texts": cell.texts}
    for arm in cell.arms:
        columns |= {f"{name} of {arm.name}": getattr(arm, name) for name in ("predicted", "greedy", "gold_probability")}
    same_length(len(cell.keys), columns)
    return cell


def parsed(kind: type, values: object) -> Any:
    """The `kind`, a dataclass, of which JSON holds these values; TypeError says what is missing, or of another type."""
    from pydantic import ValidationError  # which takes a while, and nobody needs who reads no file

    try:
        # As text: what is strict of Python's values takes no list for a tuple.
        return _reader(kind).validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        wrong = error.errors()[0]
        raise TypeError(f"{wrong['msg']}: {'.'.join(map(str, wrong['loc']))}") from None


@cache
def _reader(kind: type) -> "TypeAdapter[Any]":
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def same_length(n: int, columns: Mapping[str, Sequence[object]]) -> None:
    """TypeError for a column of another length than the documents."""
    for name, column in columns.items():
        if len(column) != n:
            raise TypeError(f"{n} documents and {len(column)} in {name}")
