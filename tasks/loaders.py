"""Loaders of published data sets, from the hub or from the folder named by the environment variable `TAROT_DATA`.

The folder holds `bigbench/<task>/{train,validation}.jsonl`, `ag_news/{train,test}.jsonl`,
`snli/{train,validation}.jsonl`, `imdb/{train,test}.jsonl` and `real-toxicity-prompts/train.jsonl`, with the hub's own
fields. A document with an answer has `id` (`<split>-<row>`, since BIG-bench's `idx` repeats), `text`, `choices` and
`gold`, the index of the right choice; if the answer is written freely, the choices are its accepted spellings. A
document to be continued has `id` and `opening`. Bad data raises a ValueError of one line that names file and line.

lm-eval imports each file by its path and looks for functions below the YAML that names them. So code shared by two
folders of tasks stands above both, and a task's metadata names its `data`. lm-eval also passes the rest of the metadata
and the model's arguments, hence `**_`.
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
EVALUATED_EVERY = 5  # the toxic prompts have one split; every fifth is evaluated
Place = str  # where a record was read, for error messages
Answered = tuple[str, str, list[str]]  # text, answer, choices
Content = TypeVar("Content")


def load(data: str, **options: object) -> DatasetDict:
    """Load the data set `data`, passing `options` to its loader."""
    loaders: dict[str, Callable[..., DatasetDict]] = {
        loader.__name__: loader for loader in (bigbench, bigbench_free, snli, ag_news, imdb, toxicity)
    }
    return loaders[data](**options)


def bigbench(name: str, choices: list[str] | None = None, instruction: str = "", **_: object) -> DatasetDict:
    """Load a BIG-bench task with choices, each record's own if none are given.

    `instruction` is removed from the start of each text, because the task's `description` has it.
    """

    def read(record: dict) -> Answered:
        (answer,) = record["targets"]
        text = record["inputs"].removeprefix(instruction).lstrip()
        return text, answer, choices or list(record["multiple_choice_targets"])

    return _bigbench(name, read)


def bigbench_free(name: str, instruction: str = "", **_: object) -> DatasetDict:
    """Load a BIG-bench task with a free answer; each record lists its accepted spellings."""

    def read(record: dict) -> Answered:
        spellings = list(record["targets"])
        return record["inputs"].removeprefix(instruction).lstrip(), spellings[0], spellings

    return _bigbench(name, read)


def _bigbench(name: str, read: Callable[[dict], Answered]) -> DatasetDict:
    return _answered(("tasksource/bigbench", name), f"bigbench/{name}", ("train", "validation"), read)


def snli(choices: list[str], **_: object) -> DatasetDict:
    """Load SNLI, whose `label` indexes the choices; skip pairs whose annotators disagree (-1)."""

    def read(record: dict) -> Answered | None:
        if (label := record["label"]) == -1:
            return None
        text = f"Premise: {record['premise'].strip()}\nHypothesis: {record['hypothesis'].strip()}\nRelation:"
        return text, dict(enumerate(choices)).get(label, label), choices

    return _answered(("stanfordnlp/snli",), "snli", ("train", "validation"), read)


def ag_news(choices: list[str], **_: object) -> DatasetDict:
    """Load AG News, whose `label` indexes the choices."""

    def read(record: dict) -> Answered:
        label = record["label"]
        return f"Article: {record['text'].strip()}\nTopic:", dict(enumerate(choices)).get(label, label), choices

    return _answered(("fancyzhx/ag_news",), "ag_news", ("train", "test"), read)


def imdb(**_: object) -> DatasetDict:
    """Load the first words of IMDB's reviews (Maas et al. 2011)."""

    def opening(record: dict) -> str | None:
        return " ".join(record["text"].replace("<br />", " ").split()[:OPENING_WORDS]) or None

    return _openings({split: _read(("stanfordnlp/imdb",), "imdb", split, opening) for split in ("train", "test")})


def toxicity(**_: object) -> DatasetDict:
    """Load the challenging prompts of RealToxicityPrompts (Gehman et al. 2020)."""

    def opening(record: dict) -> str | None:
        return record["prompt"]["text"].strip() or None if record["challenging"] else None

    prompts = [*_read(("allenai/real-toxicity-prompts",), "real-toxicity-prompts", "train", opening)]
    evaluated = prompts[EVALUATED_EVERY - 1 :: EVALUATED_EVERY]
    evaluated_texts = {text for _, text in evaluated}
    return _openings({"train": [each for each in prompts if each[1] not in evaluated_texts], "test": evaluated})


def alternate_labels(documents: list[dict], seed: int = 0) -> list[dict]:
    """Reorder documents so that labels alternate: each round has one of every label left, in an order from `seed`.

    The first rows are the shots of every prompt, so any number of shots is as balanced as possible. In file order, a
    file sorted by label would give shots of one label. Documents of one label keep their order.
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
        {
            tuning: Dataset.from_list(alternate_labels(documents[tuning])),
            evaluated: Dataset.from_list(documents[evaluated]),
        }
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
    """Make splits of openings, each only where it occurs first, so that no evaluated opening is tuned on."""
    seen: set[str] = set()
    splits: dict[str, Dataset] = {}
    for split, reading in readings.items():
        new = [text for text in dict.fromkeys(text for _, text in reading) if text not in seen]
        seen.update(new)
        if not new:
            raise ValueError(f"expected at least one opening in the split {split!r}, got none; the data is cut off")
        splits[split] = Dataset.from_list([{"id": f"{split}-{row}", "opening": text} for row, text in enumerate(new)])
    return DatasetDict(splits)


def _read(
    source: tuple[str, ...], folder: str, split: str, read: Callable[[dict], Content | None]
) -> Iterator[tuple[Place, Content]]:
    """Yield the place of each record and what `read` returns for it; skip records for which that is None."""
    for place, record in _records(source, folder, split):
        try:
            content = read(record)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(f"expected a record in the hub's own fields, got {reason!r}; see {place}") from error
        if content is not None:
            yield place, content


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
