"""Sentences about people, to be rewritten as JSON.

    text = sentence(name, age, city), every name and city in one split only

The names, cities and sentences are this project's own.
"""

from itertools import product
from random import Random

from datasets import Dataset, DatasetDict

SIZES = {"train": 80, "test": 160}
SENTENCES = (
    "{name} is {age} years old and lives in {city}.",
    "{name}, who is {age}, lives in {city}.",
    "At the age of {age}, {name} moved to {city}.",
    "In {city} lives {name}, aged {age}.",
    "{name} comes from {city} and has just turned {age}.",
    "A person of {age} years called {name} works in {city}.",
)
NAMES = {
    "train": ("Anna", "Bruno", "Chiara", "David", "Elif", "Farid", "Greta", "Hugo", "Ines", "Jonas"),
    "test": (
        "Kemal",
        "Laura",
        "Mateo",
        "Nadia",
        "Oscar",
        "Paula",
        "Quentin",
        "Rosa",
        "Samir",
        "Tessa",
        "Umberto",
        "Vera",
    ),
}
CITIES = {
    "train": ("Oslo", "Porto", "Lyon", "Graz", "Cork", "Turin"),
    "test": ("Bergen", "Seville", "Ghent", "Basel", "Tampere", "Split", "Leeds", "Nantes"),
}
AGES = range(18, 81)


def load(**_: object) -> DatasetDict:
    """Make the splits of seed 0. lm-eval passes its metadata and the model's arguments to every loader, hence `**_`."""
    return DatasetDict({split: Dataset.from_list(records(split, seed=0)) for split in SIZES})


def records(split: str, seed: int) -> list[dict]:
    """Make `SIZES[split]` different documents of `id` and `text`; the same on every machine."""
    random = Random(f"tarot records {split} {seed}")
    chosen = random.sample([*product(SENTENCES, NAMES[split], CITIES[split])], SIZES[split])
    texts = [sentence.format(name=name, city=city, age=random.choice(AGES)) for sentence, name, city in chosen]
    return [{"id": f"{split}-{row}", "text": text} for row, text in enumerate(texts)]
