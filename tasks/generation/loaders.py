"""Openings of other people's texts: from the hub, or from the folder that the environment variable `TAROT_DATA` names.

The folder holds `imdb/{train,test}.jsonl` and `real-toxicity-prompts/train.jsonl`, records in the hub's own fields.
Every document becomes `id` and `opening`. An opening that came before, in either split, is left out: an evaluated one
must not be among those tuned on. Bad data is a ValueError of one line that names the place.

lm-eval hands its metadata and the model's arguments to every loader, hence `**_`.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from datasets import Dataset, DatasetDict, load_dataset

OPENING_WORDS = 12
EVALUATED = 5  # of the toxic prompts, which come in one split, every so many are evaluated
Place = str  # where a record was read, for messages


def imdb(**_: object) -> DatasetDict:
    """The first words of IMDB's reviews (Maas et al. 2011)."""

    def opening(record: dict) -> str:
        return " ".join(record["text"].replace("<br />", " ").split()[:OPENING_WORDS])

    records = {split: _records("stanfordnlp/imdb", "imdb", split) for split in ("train", "test")}
    return _documents({split: _openings(rows, opening) for split, rows in records.items()})


def toxicity(**_: object) -> DatasetDict:
    """The prompts of RealToxicityPrompts (Gehman et al. 2020) that its authors call challenging."""

    def opening(record: dict) -> str:
        return record["prompt"]["text"].strip() if record["challenging"] else ""

    found = [*_openings(_records("allenai/real-toxicity-prompts", "real-toxicity-prompts", "train"), opening)]
    evaluated = found[EVALUATED - 1 :: EVALUATED]
    return _documents({"train": [text for text in found if text not in evaluated], "test": evaluated})


def _openings(records: Iterable[tuple[Place, dict]], opening: Callable[[dict], str]) -> Iterator[str]:
    for place, record in records:
        try:
            text = opening(record)
        except (KeyError, TypeError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(f"expected a record in the hub's own fields, got {reason!r}; see {place}") from error
        if text:
            yield text


def _documents(openings: dict[str, Iterable[str]]) -> DatasetDict:
    seen: set[str] = set()
    splits: dict[str, Dataset] = {}
    for split, texts in openings.items():
        new = [text for text in dict.fromkeys(texts) if text not in seen]
        seen.update(new)
        if not new:
            raise ValueError(f"expected at least one opening in the split {split!r}, got none; the data is cut off")
        splits[split] = Dataset.from_list([{"id": f"{split}-{row}", "opening": text} for row, text in enumerate(new)])
    return DatasetDict(splits)


def _records(name: str, folder: str, split: str) -> Iterator[tuple[Place, dict]]:
    root = os.environ.get("TAROT_DATA")
    if root is not None:
        yield from _lines(Path(root), Path(root) / folder / f"{split}.jsonl")
        return
    try:
        data = load_dataset(name, split=split)
    except OSError as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(
            f"expected the data set {name} from the hub, got {reason!r}; set TAROT_DATA to a folder that holds it"
        ) from error
    yield from ((f"{name}, {split} {row}", record) for row, record in enumerate(data))


def _lines(root: Path, path: Path) -> Iterator[tuple[Place, dict]]:
    if not root.is_dir():
        raise ValueError(f"expected TAROT_DATA to name a folder, got {str(root)!r}; unset it to read from the hub")
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ValueError(f"expected the file {path}, got {error.strerror!r}; TAROT_DATA must hold it") from error
    for number, line in enumerate(lines, start=1):
        try:
            yield f"{path}:{number}", json.loads(line)
        except ValueError as error:
            reason = str(error)
            raise ValueError(f"expected a JSON object on every line, got {reason!r}; see {path}:{number}") from error
