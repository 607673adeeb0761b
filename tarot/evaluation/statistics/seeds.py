"""FIXME: one sentence on this module."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from scipy.stats import t

from tarot.evaluation.statistics.gains import Gain
from tarot.evaluation.statistics.intervals import standard_error


@dataclass(frozen=True)
class MeanGain:
    """value = mean of `count` gains, with the two sources of its spread kept apart.

    `between` is the standard deviation of the gains between seeds (None for fewer than two, when it is unknown),
    `within` the root mean square of their standard errors over documents. `low` to `high` combines both.
    A mean over seeds may itself be of means, such as those over draws of shots: what those hold of spread counts as
    spread over documents does, and none of it is assumed to cancel.
    """

    value: float
    low: float
    high: float
    count: int
    between: float | None
    within: float
    level: float = 0.95

    @property
    def error(self) -> float:
        """(high - low) / 2z: the standard error that the interval stands for."""
        return standard_error(self.low, self.high, self.level)


def mean_over_seeds(gains: Sequence[Gain | MeanGain]) -> MeanGain:
    """mean of gains; low = mean - sqrt(rms(value - low)^2 + (t between)^2 / seeds), high likewise.

    Seeds share their documents, so more seeds make the part between seeds smaller, but not the part over documents:
    that one enters as it is for one seed. Student's t has seeds - 1 degrees of freedom. One seed gives its own
    interval, which says nothing about other seeds; none gives [-1, 1]. What holds of seeds holds of anything drawn
    anew and answered on the same documents, such as the shots of a prompt.
    """
    return mean_over_settings([gains])


def mean_over_settings(settings: Sequence[Sequence[Gain | MeanGain]]) -> MeanGain:
    """mean over settings (model, task, shots) of the means over their seeds, each setting once.

    The interval speaks of these settings, not of others. Settings may share documents, and then their errors go
    together: the part over documents is the mean of the settings' own, and none of it is assumed to cancel. Draws of
    seeds do cancel; `between` is pooled over the settings, so that one with a single seed borrows from the others.
    """
    settings = [gains for gains in settings if gains]
    if not settings:
        return MeanGain(0.0, -1.0, 1.0, 0, None, 0.0)
    level = settings[0][0].level
    means = [fmean([gain.value for gain in gains]) for gains in settings]
    value, count = fmean(means), sum(map(len, settings))
    between, reach = None, 0.0
    if freedom := count - len(settings):
        deviations = [gain.value - mean for gains, mean in zip(settings, means, strict=True) for gain in gains]
        between = math.sqrt(math.fsum(d * d for d in deviations) / freedom)
        error = between * math.sqrt(math.fsum(1 / len(gains) for gains in settings)) / len(settings)
        reach = float(t.ppf((1 + level) / 2, freedom)) * error
    below, above, within = (
        fmean([_rms([part(gain) for gain in gains]) for gains in settings])
        for part in (lambda gain: gain.value - gain.low, lambda gain: gain.high - gain.value, lambda gain: gain.error)
    )
    low, high = value - math.hypot(below, reach), value + math.hypot(above, reach)
    return MeanGain(value, max(low, -1.0), min(high, 1.0), count, between, within, level)


def _rms(values: Sequence[float]) -> float:
    return math.sqrt(fmean([value * value for value in values]))
