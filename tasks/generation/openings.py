"""Openings of film reviews: neutral, and cut off where an opinion could begin.

    opening = frame(plot, place), every plot and place in one split only

The splits therefore share neither texts nor films. All words are neutral in VADER's sentiment lexicon, which a test
checks. The lists and sentences are this project's own.
"""

from itertools import product
from random import Random

from datasets import Dataset, DatasetDict

SIZES = {"train": 80, "test": 160}
FRAMES = (
    "I watched this film {place}. It is about {plot}, and",
    "This is a film about {plot}. I saw it {place}, and",
    "We saw this movie {place}. It follows {plot}, and the acting",
    "The film tells of {plot}. Having seen it {place}, I",
    "{place_first} I sat down to a movie about {plot}. The director",
    "It runs for two hours and follows {plot}. When I saw it {place}, the whole thing",
    "My sister and I saw it {place}. The plot, about {plot},",
    "There is a new film about {plot}. I went to see it {place}, and the story",
)
PLACES = {
    "train": ("at home on Monday", "at a cinema near the station", "on a train to the coast", "with two colleagues"),
    "test": ("last week", "on television", "at a matinee in town", "on a plane", "with my brother", "late on Sunday"),
}
PLOTS = {
    "train": (
        "a baker who moves to another town",
        "two brothers on a farm",
        "a teacher in her first year",
        "a lighthouse keeper and his daughter",
        "a journalist who writes about trains",
        "four students under one roof",
        "a carpenter who builds a boat",
        "a nurse on the night shift",
        "a family that runs a hotel",
        "an actor who returns to his village",
    ),
    "test": (
        "a postman in the mountains",
        "three sisters and their mother",
        "a pilot between two flights",
        "a chess player from a small island",
        "a clerk who finds an old map",
        "the crew of a fishing boat",
        "a translator at a conference",
        "an architect and her first house",
        "two neighbours with one garden",
        "a violinist on a long tour",
        "a taxi driver and his passengers",
        "a botanist in the desert",
        "a photographer who looks for a street",
        "the people of one apartment building",
        "a retired sailor and a parrot",
        "a tailor in the nineteen twenties",
    ),
}


def load(**_: object) -> DatasetDict:
    """Make the splits of seed 0. lm-eval passes its metadata and the model's arguments to every loader, hence `**_`."""
    return DatasetDict({split: Dataset.from_list(openings(split, seed=0)) for split in SIZES})


def openings(split: str, seed: int) -> list[dict]:
    """Make `SIZES[split]` different documents of `id` and `opening`; the same on every machine."""
    combinations = [*product(FRAMES, PLOTS[split], PLACES[split])]
    chosen = Random(f"tarot openings {split} {seed}").sample(combinations, SIZES[split])
    texts = [
        frame.format(plot=plot, place=place, place_first=place[0].upper() + place[1:]) for frame, plot, place in chosen
    ]
    return [{"id": f"{split}-{row}", "opening": text} for row, text in enumerate(texts)]
