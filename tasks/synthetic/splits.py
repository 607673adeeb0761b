"""Splits of generated documents: balanced, without duplicates, the same on every machine.

lm-eval imports each file by its path, so files in one folder cannot import each other. The task's YAML names the
generator of the texts instead, and lm-eval passes it as the argument `source`.
"""

from collections.abc import Sequence
from functools import cache
from itertools import chain
from random import Random
from typing import Protocol

from datasets import Dataset, DatasetDict

SIZES = {"train": 200, "test": 300}


class Source(Protocol):
    """Generator of texts. `draw` may return a text twice; `splits` draws again then."""

    choices: Sequence[str]

    @staticmethod
    def draw(random: Random, answer: str) -> str:
        """Return a text to which `answer`, one of the choices, is right."""


def load(source: Source, **_: object) -> DatasetDict:
    """Make the splits of seed 0. lm-eval passes its metadata and the model's arguments to every loader, hence `**_`."""
    return splits(source, seed=0)


@cache  # a comparison loads its task a dozen times, and most random walks are drawn in vain
def splits(source: Source, seed: int) -> DatasetDict:
    """Make `train` and `test` with `SIZES` documents of `id`, `text`, `choices` and `gold`, the right choice's index.

    Each round has every choice once, in random order, so the first k documents, which are the shots of every prompt,
    are as balanced as k allows. `Random` seeded with a string depends on neither process nor platform.
    """
    random = Random(f"tarot synthetic {seed}")
    seen: set[str] = set()
    choices = list(source.choices)
    documents: dict[str, list[dict]] = {}
    for split, size in SIZES.items():
        rounds = (random.sample(range(len(choices)), len(choices)) for _ in range(0, size, len(choices)))
        golds = list(chain.from_iterable(rounds))[:size]
        documents[split] = []
        for row, gold in enumerate(golds):
            text = source.draw(random, choices[gold])
            while text in seen:
                text = source.draw(random, choices[gold])
            seen.add(text)
            documents[split].append({"id": f"{split}-{row}", "text": text, "choices": choices, "gold": gold})
    return DatasetDict({split: Dataset.from_list(rows) for split, rows in documents.items()})
