"""Means of gains over seeds and settings, with an interval that keeps seeds and documents apart.

Source: Zou and Donner (2008), for adding intervals.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from scipy.stats import t

from tarot.evaluation.statistics.gains import Gain
from tarot.evaluation.statistics.intervals import standard_error


@dataclass(frozen=True)
class MeanGain:
    """A mean of gains, with the two sources of its spread kept apart.

    The gains may be means themselves, such as those over draws of shots. Their whole spread then counts as spread over
    documents and as fully correlated.

    Attributes:
        value: the mean, a fraction.
        low: lower end of the interval that combines both sources of spread, with confidence `level`.
        high: upper end of that interval.
        count: number of gains.
        between: standard deviation of the gains between seeds; None for fewer than two gains.
        within: root mean square of the gains' standard errors over documents.
        level: confidence of the interval, a fraction.
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
        """The standard error of the mean, as a fraction."""
        return standard_error(self.low, self.high, self.level)


def mean_over_seeds(gains: Sequence[Gain | MeanGain]) -> MeanGain:
    """Return the mean of gains; low = mean - sqrt(rms(value - low)^2 + (t between)^2 / seeds), high likewise.

    Seeds share their documents. So more seeds shrink the part between seeds, but not the part over documents, which
    enters as for one seed. Student's t has seeds - 1 degrees of freedom. One seed gives its own interval, which does
    not extend to other seeds; no seed gives [-1, 1]. The same holds for anything else that is drawn anew and answered
    on the same documents, such as the shots of a prompt.

    Example:
        >>> from tarot.evaluation.statistics.gains import accuracy_gain
        >>> gains = [accuracy_gain([0, 1, 1], [0, 0, 0], edited) for edited in ([0, 1, 0], [0, 1, 1])]
        >>> mean_over_seeds(gains).count
        2
    """
    return mean_over_settings([gains])


def mean_over_settings(settings: Sequence[Sequence[Gain | MeanGain]]) -> MeanGain:
    """Return the mean over settings (model, task, shots) of the means over their seeds.

    The interval is for these settings, not for others. Settings may share documents, so that their errors correlate:
    the part over documents is the mean of the settings' own, and none of it is assumed to cancel. The part between
    seeds does cancel. `between` is pooled over the settings: a setting with one seed borrows from the others.

    Args:
        settings: the gains of each setting, one a seed; settings without gains do not count.
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
