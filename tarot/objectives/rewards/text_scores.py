"""Text scores: reward, fluency and variety of generated texts, and the file that keeps them for each trial.

The three stand side by side everywhere, so that an edit which wins reward by babbling is noticed. This module does not
import torch: reports read scores without loading a model.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import ClassVar

from tarot._files.json_log import IndexedLog
from tarot._files.strict_json import Fraction, Number
from tarot.objectives.rewards.text_metrics import distinct, repetition


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


class TextScoreLog(IndexedLog[TextScores]):
    """The scores of each trial's texts, in the file `outcomes.json` beside a search's trials.

    Example:
        >>> log = TextScoreLog(Path("."))
        >>> log.add(0, TextScores(reward=0.5, fluency=-2.0, distinct_2=0.9, repetition=0.1))
        >>> TextScoreLog.read(".")[0].reward
        0.5
    """

    file, kind, title = "outcomes.json", TextScores, "text scores"
