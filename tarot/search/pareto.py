"""The Pareto front of a search: trials that no other trial beats in both of two respects."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from tarot.objectives.front import find_front
from tarot.objectives.rewards.text_scores import TextScores
from tarot.search.divergence_log import DivergenceLog
from tarot.search.folder import TRIALS
from tarot.search.kl_limit import recent_kl
from tarot.search.trials import Trial, TrialLog

NOTHING: Mapping[int, float] = MappingProxyType({})


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
        estimated_kl: mean divergence of the last trials up to this one, without the identity, in nats a token: each
            reads another part of the retained contexts.
        measured_kl: divergence on all retained contexts, in nats a token; None where it was not measured.
    """

    index: int
    score: float
    estimated_kl: float
    measured_kl: float | None = None

    @property
    def kl(self) -> float:
        """The measured divergence, else the estimate."""
        return self.estimated_kl if self.measured_kl is None else self.measured_kl


def retention_front(trials: Sequence[Trial], measured: Mapping[int, float] = NOTHING) -> list[FrontPoint]:
    """Return the trials that no other equals or beats in both score and divergence, by rising divergence.

    The arguments are those of `trade_off`.

    Example:
        >>> first = Trial(0, (0.5,), -2.0, "identity", 0.0, 0.1, kl=0.0)
        >>> second = Trial(1, (0.6,), -3.0, "gradient", 0.0, 0.1, kl=0.02)
        >>> retention_front([first, second])
        [FrontPoint(index=0, score=-2.0, estimated_kl=0.0, measured_kl=0.0)]
    """
    points = {point.index: point for point in trade_off(trials, measured)}
    return [points[i] for i in find_front({i: (-point.kl, point.score) for i, point in points.items()})]


def trade_off(trials: Sequence[Trial], measured: Mapping[int, float] = NOTHING) -> list[FrontPoint]:
    """Return score and divergence of each trial that has both.

    Args:
        trials: of a search with a limit, the identity first.
        measured: divergence of trials on all retained contexts, in nats a token, by their index.

    Example:
        >>> trade_off([Trial(0, (0.5,), -2.0, "identity", 0.0, 0.1, kl=0.0)])
        [FrontPoint(index=0, score=-2.0, estimated_kl=0.0, measured_kl=0.0)]
    """
    known = {0: 0.0, **measured}
    return [
        FrontPoint(
            trial.index,
            trial.score,
            recent_kl([each.kl for each in trials[min(1, trial.index) : trial.index + 1]]),
            known.get(trial.index),
        )
        for trial in trials
        if math.isfinite(trial.score) and trial.kl is not None
    ]


def read_front(folder: str | Path) -> list[FrontPoint]:
    """Return the front of a search in its folder, as `retention_front`; errors as for `read_trials`."""
    return retention_front(*_read(folder))


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
    return [(point.kl, point.score) for point in trade_off(*_read(folder))]


def _read(folder: str | Path) -> tuple[Sequence[Trial], Mapping[int, float]]:
    """Return the trials of a search, and the divergences that were measured on all retained contexts, by trial."""
    log = TrialLog.read(Path(folder) / TRIALS)
    divergences = DivergenceLog(Path(folder), str(log.settings.get("retained", "")))
    kls = {trial.index: divergences.measured_kl(trial.point) for trial in log.trials}
    return log.trials, {index: kl for index, kl in kls.items() if kl is not None}
