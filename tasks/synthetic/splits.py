"""A training and a test split from a generator of texts: balanced, without duplicates, the same on every machine.

lm-eval imports each file by its path, so that files beside each other cannot import each other: the task's YAML names
the generator, and it comes in as the argument `source`.
"""

from collections.abc import Sequence
from functools import cache
from itertools import chain
from random import Random
from typing import Protocol

from datasets import Dataset, DatasetDict

SIZES = {"train": 200, "test": 300}


class Source(Protocol):
    """Draws texts. `draw` may give the same text twice; `splits` asks again."""

    choices: Sequence[str]

    @staticmethod
    def draw(random: Random, answer: str) -> str:
        """A text to which `answer`, one of the choices, is right."""


def load(source: Source, **_: object) -> DatasetDict:
    """The splits of seed 0. lm-eval hands its metadata and the model's arguments to every loader, hence `**_`."""
    return splits(source, seed=0)


@cache  # a cell loads its task a dozen times, and most walks that are drawn do not return
def splits(source: Source, seed: int) -> DatasetDict:
    """`train` and `test` of `SIZES`: documents of `id`, `text`, `choices` and `gold`, the index of the right choice.

    Each round holds every choice once, in an order drawn anew: any first k documents, which are the shots of every
    prompt, are as balanced as k allows. `Random` seeded with a string depends on neither process nor platform.
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
