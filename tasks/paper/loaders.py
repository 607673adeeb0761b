"""The paper's classification data: from the hub, or from the folder that the environment variable `TAROT_DATA` names.

The folder holds `bigbench/<task>/{train,validation}.jsonl` and `ag_news/{train,test}.jsonl`, records in the hub's own
fields. Every document becomes `id` (`<split>-<row>`, since BIG-bench's `idx` repeats), `text`, `choices` and `gold`,
the index of the right choice. Bad data is a ValueError of one line that names the place.

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
Reading = tuple[str, str]  # text, answer


def bigbench(name: str, choices: list[str], instruction: str = "", **_: object) -> DatasetDict:
    """A task of BIG-bench. `instruction` is taken off each text's beginning: the task's `description` has it."""

    def read(record: dict) -> Reading:
        (answer,) = record["targets"]
        return record["inputs"].removeprefix(instruction).lstrip(), answer

    return _load(("tasksource/bigbench", name), f"bigbench/{name}", ("train", "validation"), choices, read)


def ag_news(choices: list[str], **_: object) -> DatasetDict:
    """AG News, whose `label` counts the choices."""

    def read(record: dict) -> Reading:
        label = record["label"]
        return f"Article: {record['text'].strip()}\nTopic:", dict(enumerate(choices)).get(label, label)

    return _load(("fancyzhx/ag_news",), "ag_news", ("train", "test"), choices, read)


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
    source: tuple[str, ...], folder: str, splits: tuple[str, str], choices: list[str], read: Callable[[dict], Reading]
) -> DatasetDict:
    root = os.environ.get("TAROT_DATA")
    records = _from_hub(source, splits) if root is None else _from_folder(Path(root), folder, splits)
    documents = {split: _documents(split, records[split], choices, read) for split in splits}
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


def _documents(
    split: str, records: Iterable[tuple[Place, dict]], choices: list[str], read: Callable[[dict], Reading]
) -> list[dict]:
    documents: list[dict] = []
    for place, record in records:
        try:
            text, answer = read(record)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(f"expected a record in the hub's own fields, got {reason!r}; see {place}") from error
        if answer not in choices:
            raise ValueError(f"expected an answer among {', '.join(choices)}, got {answer!r}; see {place}")
        document_id = f"{split}-{len(documents)}"
        documents.append({"id": document_id, "text": text, "choices": choices, "gold": choices.index(answer)})
    if not documents:
        raise ValueError(f"expected at least one record in the split {split!r}, got none; the data is cut off")
    return documents
