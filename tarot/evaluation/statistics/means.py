"""FIXME: one sentence on this module."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from scipy.stats import permutation_test, t

from tarot.errors import TarotError
from tarot.evaluation.statistics.intervals import check_settings
from tarot.evaluation.statistics.resampling import Floats


@dataclass(frozen=True)
class Mean:
    """A mean and the interval that holds it over all such documents."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """value = mean(edited - base) of real numbers, in their own units, over `n` documents.

    `low` to `high` holds it over all such documents with confidence `level`; `p` is two-sided, assuming that the arms
    do not differ. Fewer than two documents say nothing of others, and those of which none differs do not say how far
    others might: the interval is then infinite, and p is 1.
    """

    value: float
    low: float
    high: float
    n: int
    p: float
    level: float = 0.95


def difference(
    base: Sequence[float], edited: Sequence[float], *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Difference:
    """mean(edited - base), with the interval of `f1_gain` and scipy's test of random swaps.

    The pseudo-documents gain and lose as much as the one that differs most: in simulations of normal, exponential and
    sparse differences of 20 to 100 documents the interval covers 94% and more at a nominal 95, BCa's 58 to 96%.

    Raises:
        TarotError: arms of different lengths or without documents, values that are no numbers, a level outside (0, 1),
            fewer than 2 resamples.
    """
    check_settings(level, resamples)
    if len(base) != len(edited) or not len(base):
        raise TarotError("as many edited as base documents, and some", f"{len(edited)} and {len(base)}")
    gains = np.asarray(edited, float) - np.asarray(base, float)
    _check_finite(gains)
    value, most = float(gains.mean()), float(abs(gains).max())
    if len(gains) < 2 or not most:
        return Difference(value, -math.inf, math.inf, len(gains), 1.0, level)
    scaled = np.append(gains / most, [1.0, -1.0])  # so that no square of them is too small for a number
    counts = np.random.default_rng(seed).multinomial(len(gains), np.full(len(scaled), 1 / len(scaled)), resamples)
    low, high = most * np.quantile(counts @ scaled, [(1 - level) / 2, (1 + level) / 2]) / len(gains)
    test = permutation_test(
        (scaled[:-2],),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        rng=np.random.default_rng(seed),
    )
    return Difference(value, min(float(low), value), max(float(high), value), len(gains), float(test.pvalue), level)


def mean_intervals(rows: Sequence[Sequence[float]], *, level: float = 0.95) -> list[Mean]:
    """mean over rows of each column, with Student's interval: value +- t s / sqrt(n).

    A row is a document (or a text). Fewer than two documents say nothing of others: the interval is then infinite.
    Percentiles of a bootstrap, of exponential values, cover 79% at five documents and 91% at twenty; this one 88 and
    92%.

    Raises:
        TarotError: no row, values that are not finite, a level outside (0, 1).
    """
    values = np.asarray(rows, np.float64)
    if not len(values):
        raise TarotError("at least 1 document", "none")
    _check_finite(values)
    check_settings(level)
    means, n = values.mean(0), len(values)
    if n < 2:
        return [Mean(float(mean), -math.inf, math.inf) for mean in means]
    reach = t.ppf((1 + level) / 2, n - 1) * values.std(0, ddof=1) / math.sqrt(n)
    return [Mean(*map(float, each)) for each in zip(means, means - reach, means + reach, strict=True)]


def jackknife(value: float, without: Sequence[float], *, level: float = 0.95) -> Mean:
    """value +- t sqrt((n - 1) / n sum_i (without_i - mean)^2), of a statistic of all documents together.

    `without` is the statistic of all documents but each in turn; of a mean this is Student's interval, with n - 1
    degrees of freedom. A bootstrap would draw documents twice, which a count of what is said twice must not.
    Fewer than two documents say nothing of others: the interval is then infinite.

    Raises:
        TarotError: values that are not finite, a level outside (0, 1).
    """
    check_settings(level)
    _check_finite([value, *without])
    n = len(without)
    if n < 2:
        return Mean(value, -math.inf, math.inf)
    mean = fmean(without)
    error = math.sqrt((n - 1) * fmean([(each - mean) ** 2 for each in without]))
    reach = float(t.ppf((1 + level) / 2, n - 1)) * error
    return Mean(value, value - reach, value + reach)


def _check_finite(values: Sequence[float] | Floats) -> None:
    array = np.asarray(values, np.float64)
    finite = np.asarray([np.isfinite(row).all() for row in array], bool)
    if not finite.all():
        rows = np.flatnonzero(~finite)
        named = ", ".join(map(str, rows[:10])) + (", ..." if len(rows) > 10 else "")
        raise TarotError("finite values of every document", f"{len(rows)} of {len(finite)} that are not: {named}")
