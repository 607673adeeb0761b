"""The Pareto front of a search: trials that no other trial beats in both of two respects."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tarot.objectives.front import find_front
from tarot.objectives.text_scores import TextScores
from tarot.search.folder import read_trials
from tarot.search.kl_limit import recent_kl
from tarot.search.trials import Trial


def pareto_front(scores: Mapping[int, TextScores]) -> list[int]:
    """Return the trials that no other equals or beats in both reward and fluency, by rising fluency.

    Args:
        scores: of each trial's texts, by its index. Of equal trials the first is returned.

    Example:
        >>> better, worse = TextScores(0.5, -2.0, 1.0, 0.0), TextScores(0.4, -3.0, 1.0, 0.0)
        >>> pareto_front({0: worse, 1: better})
        [1]
    """
    return find_front({i: (scores[i].reward, scores[i].fluency) for i in sorted(scores)})


@dataclass(frozen=True)
class FrontPoint:
    """A trial by score and divergence.

    Attributes:
        index: of the trial.
        score: on the samples.
        kl: mean divergence of this trial and those before it, in nats a token: an estimate, since each reads a part of
            the retained contexts.
    """

    index: int
    score: float
    kl: float


def retention_front(trials: Sequence[Trial]) -> list[FrontPoint]:
    """Return the trials that no other equals or beats in both score and divergence, by rising divergence.

    Example:
        >>> first = Trial(0, (0.5,), -2.0, "identity", 0.0, 0.1, kl=0.0)
        >>> second = Trial(1, (0.6,), -3.0, "gradient", 0.0, 0.1, kl=0.02)
        >>> retention_front([first, second])
        [FrontPoint(index=0, score=-2.0, kl=0.0)]
    """
    points = {point.index: point for point in trade_off(trials)}
    return [points[i] for i in find_front({i: (-point.kl, point.score) for i, point in points.items()})]


def trade_off(trials: Sequence[Trial]) -> list[FrontPoint]:
    """Return score and divergence of each trial that has both.

    Example:
        >>> trade_off([Trial(0, (0.5,), -2.0, "identity", 0.0, 0.1, kl=0.0)])
        [FrontPoint(index=0, score=-2.0, kl=0.0)]
    """
    return [
        FrontPoint(trial.index, trial.score, recent_kl([each.kl for each in trials[: trial.index + 1]]))
        for trial in trials
        if math.isfinite(trial.score) and trial.kl is not None
    ]


def read_trade_off(folder: str | Path) -> list[tuple[float, float]]:
    """Return divergence and score of each trial in a search's folder; empty if the search had no limit.

    Raises:
        TarotError: as for `tarot.search.folder.read_trials`.

    Example:
        >>> config = tarot.TaRotConfig("synth_color", num_samples=8)
        >>> adapter = tarot.tune(model, tokenizer, config, budget=4, output_dir="my-edit")
        >>> read_trade_off("my-edit")[0][0]  # the divergence of the identity
        0.0
    """
    return [(point.kl, point.score) for point in trade_off(read_trials(folder))]
