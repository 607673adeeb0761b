"""The paper's data, and its code's: from the hub, or from the folder that the environment variable `TAROT_DATA` names.

The folder holds `bigbench/<task>/{train,validation}.jsonl`, `ag_news/{train,test}.jsonl` and
`snli/{train,validation}.jsonl`, records in the hub's own fields. Every document becomes `id` (`<split>-<row>`, since
BIG-bench's `idx` repeats), `text`, `choices` and `gold`, the index of the right choice. Where an answer is free, the
choices are the ways to write it. Bad data is a ValueError of one line that names the place.

lm-eval hands its metadata and the model's arguments to every loader; they are of no use here, hence `**_`.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import zip_longest
from pathlib import Path
from random import Random

from datasets import Dataset, DatasetDict, load_dataset

Place = str  # where a record was read, for messages
Reading = tuple[str, str, list[str]]  # text, answer, choices


def bigbench(name: str, choices: list[str] | None = None, instruction: str = "", **_: object) -> DatasetDict:
    """A task of BIG-bench that chooses, among each record's own choices if none are given.

    `instruction` is taken off each text's beginning: the task's `description` has it.
    """

    def read(record: dict) -> Reading:
        (answer,) = record["targets"]
        text = record["inputs"].removeprefix(instruction).lstrip()
        return text, answer, choices or list(record["multiple_choice_targets"])

    return _bigbench(name, read)


def bigbench_free(name: str, instruction: str = "", **_: object) -> DatasetDict:
    """A task of BIG-bench whose answer is written, in any of a record's ways to write it."""

    def read(record: dict) -> Reading:
        ways = list(record["targets"])
        return record["inputs"].removeprefix(instruction).lstrip(), ways[0], ways

    return _bigbench(name, read)


def _bigbench(name: str, read: Callable[[dict], Reading]) -> DatasetDict:
    return _load(("tasksource/bigbench", name), f"bigbench/{name}", ("train", "validation"), read)


def snli(choices: list[str], **_: object) -> DatasetDict:
    """SNLI, whose `label` counts the choices; pairs on which its annotators did not agree (-1) are left out."""

    def read(record: dict) -> Reading | None:
        if (label := record["label"]) == -1:
            return None
        text = f"Premise: {record['premise'].strip()}\nHypothesis: {record['hypothesis'].strip()}\nRelation:"
        return text, dict(enumerate(choices)).get(label, label), choices

    return _load(("stanfordnlp/snli",), "snli", ("train", "validation"), read)


def ag_news(choices: list[str], **_: object) -> DatasetDict:
    """AG News, whose `label` counts the choices."""

    def read(record: dict) -> Reading:
        label = record["label"]
        return f"Article: {record['text'].strip()}\nTopic:", dict(enumerate(choices)).get(label, label), choices

    return _load(("fancyzhx/ag_news",), "ag_news", ("train", "test"), read)


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


def _load(
    source: tuple[str, ...], folder: str, splits: tuple[str, str], read: Callable[[dict], Reading | None]
) -> DatasetDict:
    root = os.environ.get("TAROT_DATA")
    records = _from_hub(source, splits) if root is None else _from_folder(Path(root), folder, splits)
    documents = {split: _documents(split, records[split], read) for split in splits}
    tuning, evaluated = splits
    return DatasetDict(
        {tuning: Dataset.from_list(in_turn(documents[tuning])), evaluated: Dataset.from_list(documents[evaluated])}
    )


def _from_hub(source: tuple[str, ...], splits: Iterable[str]) -> dict[str, Iterable[tuple[Place, dict]]]:
    name = "/".join(source)
    try:
        data = load_dataset(*source)
    except OSError as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(
            f"expected the data set {name} from the hub, got {reason!r}; set TAROT_DATA to a folder that holds it"
        ) from error
    return {split: ((f"{name}, {split} {row}", record) for row, record in enumerate(data[split])) for split in splits}


def _from_folder(root: Path, folder: str, splits: Iterable[str]) -> dict[str, Iterable[tuple[Place, dict]]]:
    if not root.is_dir():
        raise ValueError(f"expected TAROT_DATA to name a folder, got {str(root)!r}; unset it to read from the hub")
    return {split: _lines(root / folder / f"{split}.jsonl") for split in splits}


def _lines(path: Path) -> Iterator[tuple[Place, dict]]:
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


def _documents(split: str, records: Iterable[tuple[Place, dict]], read: Callable[[dict], Reading | None]) -> list[dict]:
    documents: list[dict] = []
    for place, record in records:
        try:
            reading = read(record)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(f"expected a record in the hub's own fields, got {reason!r}; see {place}") from error
        if reading is None:
            continue
        text, answer, choices = reading
        if answer not in choices:
            raise ValueError(f"expected an answer among {', '.join(choices)}, got {answer!r}; see {place}")
        document_id = f"{split}-{len(documents)}"
        documents.append({"id": document_id, "text": text, "choices": choices, "gold": choices.index(answer)})
    if not documents:
        raise ValueError(f"expected at least one record in the split {split!r}, got none; the data is cut off")
    return documents
