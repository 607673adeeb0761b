"""One evaluated point of a search."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from tarot._files.strict_json import Count, Fraction, Number

Origin = Literal["identity", "start", "sobol", "random", "acquisition", "gradient"]


@dataclass(frozen=True)
class Trial:
    """f(x) = score.

    Attributes:
        index: 0 for the identity.
        x: the point, in the unit cube.
        score: higher is better; nan where the objective gave no finite number, or a gradient that is not finite.
        origin: how the point was proposed. `start` is one of the space's, `sobol` one of the initial design (a uniform
            draw in more dimensions than the sequence has). After these, `random` in a search with a surrogate says that
            it failed, or wanted a point again.
        propose_seconds: spent on finding the point.
        evaluate_seconds: spent on the objective, its gradient included; of a batch that is evaluated elsewhere, on
            waiting for it since the trial before.
        gradient: d score / d x, for a search that follows it; else empty.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    index: Count
    x: tuple[Fraction, ...]
    score: float
    origin: Origin
    propose_seconds: Number
    evaluate_seconds: Number
    gradient: tuple[Number, ...] = ()


def best_of(trials: Sequence[Trial]) -> Trial:
    """The first trial with the highest finite score; trial 0 where none is finite."""
    return max(trials, key=lambda trial: trial.score if math.isfinite(trial.score) else -math.inf)
