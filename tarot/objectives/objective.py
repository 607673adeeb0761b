"""Objective: from the angles of an edit to the number that a search maximises."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

from transformers import PreTrainedModel

from tarot.edit.rotation import Angles, Rotation
from tarot.edit.sites import Site
from tarot.objectives.rewards.text_scores import TextScores


class Evaluation(NamedTuple):
    """The score of one edit.

    Attributes:
        score: higher is better; NaN if the edit is refused.
        texts: what the generated texts scored; None for objectives without texts.
        error: standard error of the score; 0 if it is exact.
    """

    score: float
    texts: TextScores | None = None
    error: float = 0.0


class Objective(ABC):
    """Score the edits of a model.

    Attributes:
        model: the model that is edited; unchanged after every call.
        sites: where to rotate.
        rotation: how angles become a rotation.
        target_score: score at which a search ends, since the samples are fitted.
        value_and_grad: score of angles (radians) and its gradient, per radian; None if there is no gradient.
    """

    model: PreTrainedModel
    sites: tuple[Site, ...]
    rotation: Rotation
    target_score: float = math.inf
    value_and_grad: Callable[[Angles], tuple[float, Angles]] | None = None

    @abstractmethod
    def measure(self, angles: Angles) -> Evaluation:
        """Score the edit of these angles, in radians."""

    def __call__(self, angles: Angles) -> float:
        """Return the score of these angles (radians)."""
        return self.measure(angles).score
