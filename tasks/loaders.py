"""Other people's data: from the hub, or from the folder that the environment variable `TAROT_DATA` names.

The folder holds `bigbench/<task>/{train,validation}.jsonl`, `ag_news/{train,test}.jsonl`,
`snli/{train,validation}.jsonl`, `imdb/{train,test}.jsonl` and `real-toxicity-prompts/train.jsonl`, records in the hub's
own fields. A document that is answered has `id` (`<split>-<row>`, since BIG-bench's `idx` repeats), `text`, `choices`
and `gold`, the index of the right choice; where an answer is free, the choices are the ways to write it. One that is
continued has `id` and `opening`. Bad data is a ValueError of one line that names the place.

lm-eval imports each file by its path and looks for functions below the YAML that names them. So what two folders of
tasks share stands above both, and a task's metadata says which `data` it is. The rest of the metadata and the model's
arguments come in too, hence `**_`.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import zip_longest
from pathlib import Path
from random import Random
from typing import TypeVar

from datasets import Dataset, DatasetDict, load_dataset

OPENING_WORDS = 12
EVALUATED = 5  # of the toxic prompts, which come in one split, every so many are evaluated
Place = str  # where a record was read, for messages
Answered = tuple[str, str, list[str]]  # text, answer, choices
Read = TypeVar("Read")


def load(data: str, **options: object) -> DatasetDict:
    """The data of that name; the rest is for its own loader."""
    loaders: dict[str, Callable[..., DatasetDict]] = {
        loader.__name__: loader for loader in (bigbench, bigbench_free, snli, ag_news, imdb, toxicity)
    }
    return loaders[data](**options)


def bigbench(name: str, choices: list[str] | None = None, instruction: str = "", **_: object) -> DatasetDict:
    """A task of BIG-bench that chooses, among each record's own choices if none are given.

    `instruction` is taken off each text's beginning: the task's `description` has it.
    """

    def read(record: dict) -> Answered:
        (answer,) = record["targets"]
        text = record["inputs"].removeprefix(instruction).lstrip()
        return text, answer, choices or list(record["multiple_choice_targets"])

    return _bigbench(name, read)


def bigbench_free(name: str, instruction: str = "", **_: object) -> DatasetDict:
    """A task of BIG-bench whose answer is written, in any of a record's ways to write it."""

    def read(record: dict) -> Answered:
        ways = list(record["targets"])
        return record["inputs"].removeprefix(instruction).lstrip(), ways[0], ways

    return _bigbench(name, read)


def _bigbench(name: str, read: Callable[[dict], Answered]) -> DatasetDict:
    return _answered(("tasksource/bigbench", name), f"bigbench/{name}", ("train", "validation"), read)


def snli(choices: list[str], **_: object) -> DatasetDict:
    """SNLI, whose `label` counts the choices; pairs on which its annotators did not agree (-1) are left out."""

    def read(record: dict) -> Answered | None:
        if (label := record["label"]) == -1:
            return None
        text = f"Premise: {record['premise'].strip()}\nHypothesis: {record['hypothesis'].strip()}\nRelation:"
        return text, dict(enumerate(choices)).get(label, label), choices

    return _answered(("stanfordnlp/snli",), "snli", ("train", "validation"), read)


def ag_news(choices: list[str], **_: object) -> DatasetDict:
    """AG News, whose `label` counts the choices."""

    def read(record: dict) -> Answered:
        label = record["label"]
        return f"Article: {record['text'].strip()}\nTopic:", dict(enumerate(choices)).get(label, label), choices

    return _answered(("fancyzhx/ag_news",), "ag_news", ("train", "test"), read)


def imdb(**_: object) -> DatasetDict:
    """The first words of IMDB's reviews (Maas et al. 2011)."""

    def opening(record: dict) -> str | None:
        return " ".join(record["text"].replace("<br />", " ").split()[:OPENING_WORDS]) or None

    return _openings({split: _read(("stanfordnlp/imdb",), "imdb", split, opening) for split in ("train", "test")})


def toxicity(**_: object) -> DatasetDict:
    """The prompts of RealToxicityPrompts (Gehman et al. 2020) that its authors call challenging."""

    def opening(record: dict) -> str | None:
        return record["prompt"]["text"].strip() or None if record["challenging"] else None

    found = [*_read(("allenai/real-toxicity-prompts",), "real-toxicity-prompts", "train", opening)]
    evaluated = found[EVALUATED - 1 :: EVALUATED]
    kept_apart = {text for _, text in evaluated}
    return _openings({"train": [each for each in found if each[1] not in kept_apart], "test": evaluated})


def in_turn(documents: list[dict], seed: int = 0) -> list[dict]:
    """The same documents, labels taking turns: each round takes one of every label left, in an order drawn from `seed`.

    The shots of every prompt are the first rows, so any number of them holds each label as equally as it can; in file
    order, a file sorted by label would give shots of one label. Documents of one label keep their order.
    """
    random = Random(seed)
    labels = sorted({document["gold"] for document in documents})
    rounds = zip_longest(*([document for document in documents if document["gold"] == label] for label in labels))
    filled = ([document for document in one_round if document is not None] for one_round in rounds)
    return [document for one_round in filled for document in random.sample(one_round, len(one_round))]


def _answered(
    source: tuple[str, ...], folder: str, splits: tuple[str, str], read: Callable[[dict], Answered | None]
) -> DatasetDict:
    documents = {split: _documents(split, _read(source, folder, split, read)) for split in splits}
    tuning, evaluated = splits
    return DatasetDict(
        {tuning: Dataset.from_list(in_turn(documents[tuning])), evaluated: Dataset.from_list(documents[evaluated])}
    )


def _documents(split: str, readings: Iterable[tuple[Place, Answered]]) -> list[dict]:
    documents: list[dict] = []
    for place, (text, answer, choices) in readings:
        if answer not in choices:
            raise ValueError(f"expected an answer among {', '.join(choices)}, got {answer!r}; see {place}")
        document_id = f"{split}-{len(documents)}"
        documents.append({"id": document_id, "text": text, "choices": choices, "gold": choices.index(answer)})
    if not documents:
        raise ValueError(f"expected at least one record in the split {split!r}, got none; the data is cut off")
    return documents


def _openings(readings: dict[str, Iterable[tuple[Place, str]]]) -> DatasetDict:
    """An opening that came before, in either split, is left out: an evaluated one must not be among those tuned on."""
    seen: set[str] = set()
    splits: dict[str, Dataset] = {}
    for split, found in readings.items():
        new = [text for text in dict.fromkeys(text for _, text in found) if text not in seen]
        seen.update(new)
        if not new:
            raise ValueError(f"expected at least one opening in the split {split!r}, got none; the data is cut off")
        splits[split] = Dataset.from_list([{"id": f"{split}-{row}", "opening": text} for row, text in enumerate(new)])
    return DatasetDict(splits)


def _read(
    source: tuple[str, ...], folder: str, split: str, read: Callable[[dict], Read | None]
) -> Iterator[tuple[Place, Read]]:
    """What `read` makes of each record, with the record's place; records of which it makes None are left out."""
    for place, record in _records(source, folder, split):
        try:
            reading = read(record)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(f"expected a record in the hub's own fields, got {reason!r}; see {place}") from error
        if reading is not None:
            yield place, reading


def _records(source: tuple[str, ...], folder: str, split: str) -> Iterator[tuple[Place, dict]]:
    root = os.environ.get("TAROT_DATA")
    if root is not None:
        yield from _lines(Path(root), Path(root) / folder / f"{split}.jsonl")
        return
    name = "/".join(source)
    try:
        data = load_dataset(*source, split=split)
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
