"""Generated texts, judged: what they are worth, how fluent they are, and how much of them is said twice.

Reward, fluency and variety stand side by side everywhere, so that an edit that wins reward by babbling is seen to. No
torch here: reports read outcomes without loading a model.

Source of distinct-n: Li et al., arXiv 1510.03055.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import ClassVar

from tarot._files.atomic import write_atomically
from tarot._files.strict_json import Count, Fraction, Number, parse_json, read_file, validate
from tarot.errors import TarotError

OUTCOMES = "outcomes.json"


@dataclass(frozen=True)
class TextScores:
    """Judgements summed up: means over texts, but for `distinct_2`, which is of all texts together.

    `reward` is in its own units, `fluency` in nats a token, `distinct_2` and `repetition` are fractions of word pairs.
    A `refused` edit lost more fluency than it was allowed to.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    reward: Number
    fluency: Number
    distinct_2: Fraction
    repetition: Fraction
    refused: bool = False

    @property
    def score(self) -> float:
        """What a search sees: the reward, nan where the edit is refused."""
        return math.nan if self.refused else self.reward


@dataclass(frozen=True)
class ScoredTexts:
    """Texts with what each is worth (in the reward's units) and how fluent it is (nats a token)."""

    texts: tuple[str, ...]
    rewards: tuple[Number, ...]
    fluencies: tuple[Number, ...]

    @cached_property
    def outcome(self) -> TextScores:
        """All of them together."""
        return TextScores(
            fmean(self.rewards), fmean(self.fluencies), distinct(self.texts), fmean(map(repetition, self.texts))
        )


def distinct(texts: Sequence[str], n: int = 2) -> float:
    """distinct n-grams / all n-grams, over the words of all texts: 1 when none comes twice, 0 without any."""
    grams = [gram for text in texts for gram in _grams(text, n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def distinct_without(texts: Sequence[str], n: int = 2) -> list[float]:
    """`distinct` of all texts but one, for each of them in turn."""
    by_text = [Counter(_grams(text, n)) for text in texts]
    every = sum(by_text, Counter[tuple[str, ...]]())
    found = []
    for own in by_text:
        left = every.total() - own.total()
        gone = sum(every[gram] == count for gram, count in own.items())
        found.append((len(every) - gone) / left if left else 0.0)
    return found


def repetition(text: str, n: int = 2) -> float:
    """Share of a text's n-grams that it had said before; 0 without any."""
    grams = list(_grams(text, n))
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _grams(text: str, n: int) -> Iterator[tuple[str, ...]]:
    words = text.lower().split()
    return zip(*(words[i:] for i in range(n)), strict=False)


class TextScoreLog:
    """What each trial of a search wrote, judged, by the trial's index: the file `read_text_scores.json` beside its trials.

    A trial that was killed before the search wrote it down is judged again, to the same numbers.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / OUTCOMES
        self.outcomes = read_text_scores(folder) if self.path.exists() else {}

    def add(self, trial: int, outcome: TextScores) -> None:
        """Write down the outcome of a trial.

        Raises:
            TarotError: the file cannot be written.
        """
        self.outcomes[trial] = outcome
        write_atomically(self.path, (json.dumps(_plain(self.outcomes), indent=1) + "\n").encode())


def _plain(read_text_scores: Mapping[int, TextScores]) -> dict[str, dict[str, float]]:
    return {str(trial): asdict(outcome) for trial, outcome in read_text_scores.items()}


def read_text_scores(folder: str | Path) -> dict[int, TextScores]:
    """Read the outcomes that a search for a reward left in its folder, by trial.

    Raises:
        TarotError: there are none, or the file is damaged.
    """
    path = Path(folder) / OUTCOMES
    try:
        found: dict[int, TextScores] = validate(dict[Count, TextScores], parse_json(read_file(path)))
    except OSError as error:
        raise TarotError(f"the outcomes of a search in {path}", error.strerror or str(error), "tune again") from error
    except ValueError as error:
        raise TarotError(f"outcomes as tarot writes them in {path}", str(error), "tune again") from error
    return found
