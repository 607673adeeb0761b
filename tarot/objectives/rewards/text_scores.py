"""Text scores: reward, fluency and variety of generated texts, and the file that keeps them for each trial.

The three stand side by side everywhere, so that an edit which wins reward by babbling is noticed. This module does not
import torch: reports read scores without loading a model.
"""

import json
import math
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import ClassVar

from tarot._files.atomic import write_atomically
from tarot._files.strict_json import Count, Fraction, Number, parse_json, read_file, validate
from tarot.errors import FileAccessError, InvalidValueError
from tarot.objectives.rewards.text_metrics import distinct, repetition

TEXT_SCORES_FILE = "outcomes.json"


@dataclass(frozen=True)
class TextScores:
    """Scores of a set of texts: means over the texts, but `distinct_2` is computed over all texts together.

    Attributes:
        reward: in the reward's units.
        fluency: in nats per token, under the unedited model.
        distinct_2: fraction of different word pairs.
        repetition: fraction of word pairs that repeat an earlier one of the same text.
        refused: whether the edit lost more fluency than its floor allows.

    Example:
        >>> TextScores(reward=0.5, fluency=-2.0, distinct_2=0.9, repetition=0.1, refused=True).score
        nan
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    reward: Number
    fluency: Number
    distinct_2: Fraction
    repetition: Fraction
    refused: bool = False

    @property
    def score(self) -> float:
        """Return what a search maximises: the reward, NaN if the edit is refused."""
        return math.nan if self.refused else self.reward


@dataclass(frozen=True)
class ScoredTexts:
    """Texts with their rewards (in the reward's units) and fluencies (nats per token).

    Example:
        >>> ScoredTexts(("so good", "so bad"), (1.0, 0.0), (-2.0, -3.0)).summary.reward
        0.5
    """

    texts: tuple[str, ...]
    rewards: tuple[Number, ...]
    fluencies: tuple[Number, ...]

    @cached_property
    def summary(self) -> TextScores:
        """Return the scores of all texts together."""
        return TextScores(
            fmean(self.rewards), fmean(self.fluencies), distinct(self.texts), fmean(map(repetition, self.texts))
        )


class TextScoreLog:
    """Keep the scores of each trial's texts in the file `outcomes.json` beside a search's trials.

    A trial that was interrupted before the search logged it is scored again, to the same numbers.

    Attributes:
        scores: by the trial's index.

    Example:
        >>> log = TextScoreLog(Path("."))
        >>> log.add(0, TextScores(reward=0.5, fluency=-2.0, distinct_2=0.9, repetition=0.1))
        >>> read_text_scores(".")[0].reward
        0.5
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / TEXT_SCORES_FILE
        self.scores = read_text_scores(folder) if self.path.exists() else {}

    def add(self, trial: int, scores: TextScores) -> None:
        """Write the scores of a trial.

        Raises:
            TarotError: The file cannot be written.
        """
        self.scores[trial] = scores
        content = {str(index): asdict(each) for index, each in self.scores.items()}
        write_atomically(self.path, (json.dumps(content, indent=1) + "\n").encode())


def read_text_scores(folder: str | Path) -> dict[int, TextScores]:
    """Read the text scores that a search for a reward left in its folder, by trial.

    Raises:
        TarotError: The file is missing or damaged.
    """
    path = Path(folder) / TEXT_SCORES_FILE
    try:
        scores: dict[int, TextScores] = validate(dict[Count, TextScores], parse_json(read_file(path)))
    except OSError as error:
        raise FileAccessError(f"Cannot read {path}: {error.strerror or error}", hint="tune again") from error
    except ValueError as error:
        raise InvalidValueError(f"The text scores in {path} are damaged: {error}", hint="tune again") from error
    return scores
