"""Resample the answers of two arms: the smoothed bootstrap and the permutation test of gains.

Answers are counted first: documents with the same right answer and the same two answers are one row of a table. So the
work does not grow with the number of documents.

Sources: Efron and Tibshirani, An Introduction to the Bootstrap (1993); Agresti and Min (2005) for pseudo-documents.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Statistic = Callable[[Floats, Floats, Floats], Floats]
"""From the counts of each class, `resample x class`, the score of each resample.

The counts are of documents with the class as right answer, of documents answered with it, and of those that are both.
"""
Resample = Callable[[Ints, Ints, int, np.random.Generator], tuple[Ints, Ints]]
"""From rows, `row x 3`, their counts, a number of resamples and a generator: rows, and counts `resample x row`."""


def count_answers(gold: Ints, *arms: Ints) -> tuple[Ints, Ints]:
    """Return the distinct rows of right answer and arms' answers, and how many documents have each.

    Classes are numbered from 0; -1 is an answer that is never right.
    """
    classes, right = np.unique(gold, return_inverse=True)
    nearest = [np.searchsorted(classes[:-1], answers) for answers in arms]
    known = [np.where(classes[index] == answers, index, -1) for index, answers in zip(nearest, arms, strict=True)]
    rows, counts = np.unique(np.stack([right, *known], axis=1), axis=0, return_counts=True)
    return rows, counts


def score_resamples(statistic: Statistic, rows: Ints, counts: Ints) -> Floats:
    """Return the score of each arm in each resample, `arm x resample`."""
    n_classes = int(rows[:, 0].max()) + 1
    one_hot = np.eye(n_classes + 1)[:, :n_classes][rows.T]  # `column x row x class`; class -1 picks the row of zeros
    gold, answered = one_hot[:1], one_hot[1:]
    per_class = np.atleast_2d(counts).astype(float) @ np.concatenate([gold, answered, gold * answered])
    n_gold, n_answered, right = np.split(per_class, (1, 1 + len(answered)))
    return np.stack([statistic(n_gold[0], *sums) for sums in zip(n_answered, right, strict=True)])


def _difference(statistic: Statistic, gold: Ints, base: Ints, edited: Ints) -> float:
    before, after = score_resamples(statistic, *count_answers(gold, base, edited))[:, 0]
    return float(after - before)


def bootstrap_interval(
    statistic: Statistic, gold: Ints, base: Ints, edited: Ints, level: float, resamples: int, seed: int
) -> tuple[float, float, float]:
    """Return the difference of the arms' scores with its interval; 0 in [-1, 1] without documents."""
    if not len(gold):
        return 0.0, -1.0, 1.0
    value = _difference(statistic, gold, base, edited)
    tail = (1 - level) / 2
    gains = _resampled(statistic, gold, base, edited, _smoothed, resamples, seed)
    return value, min(value, float(np.quantile(gains, tail))), max(value, -float(np.quantile(-gains, tail)))


def permutation_p(statistic: Statistic, gold: Ints, base: Ints, edited: Ints, resamples: int, seed: int) -> float:
    """Return the two-sided p-value of the difference under random swaps of the arms; 1 without documents."""
    if not len(gold):
        return 1.0
    value = _difference(statistic, gold, base, edited)
    gains = _resampled(statistic, gold, base, edited, _swapped, resamples, seed)
    # Add two rather than one: if all changed answers are on one side, both halves of the resamples are the same draws.
    return float((2 + (abs(gains) >= abs(value) - 1e-12).sum()) / (2 + len(gains)))


def _resampled(
    statistic: Statistic, gold: Ints, base: Ints, edited: Ints, resample: Resample, resamples: int, seed: int
) -> Floats:
    """Return the gains of resamples; half of them swap the arms, so that swapping the arms negates the set."""
    gains = []
    for sign, arms in ((1, (base, edited)), (-1, (edited, base))):
        rows, counts = resample(*count_answers(gold, *arms), (resamples + 1) // 2, np.random.default_rng(seed))
        before, after = score_resamples(statistic, rows, counts)
        gains.append(sign * (after - before))
    return np.concatenate(gains)


def _smoothed(rows: Ints, counts: Ints, resamples: int, generator: np.random.Generator) -> tuple[Ints, Ints]:
    """Draw n documents from n + 2: the observed ones, and a gained and a lost one, spread over the observed classes."""
    n_classes, n = int(rows[:, 0].max()) + 1, counts.sum()
    # A wrong answer that is another class also costs precision there: it changes F1 more than an answer outside.
    right, wrong = np.nonzero(~np.eye(n_classes, dtype=bool)) if n_classes > 1 else (np.array([0]), np.array([-1]))
    pseudo = [np.stack(columns, axis=1) for columns in ((right, right, wrong), (right, wrong, right))]
    shares = np.bincount(rows[:, 0], weights=counts)[right] / n / max(n_classes - 1, 1)
    weights = np.concatenate([counts, shares, shares]) / (n + 2)
    return np.concatenate([rows, *pseudo]), generator.multinomial(n, weights, size=resamples)


def _swapped(rows: Ints, counts: Ints, resamples: int, generator: np.random.Generator) -> tuple[Ints, Ints]:
    """Swap the two answers to each document with probability 1/2."""
    differing = counts * (rows[:, 1] != rows[:, 2])
    moved = generator.binomial(differing, 0.5, size=(resamples, len(counts)))
    return np.concatenate([rows, rows[:, (0, 2, 1)]]), np.concatenate([counts - moved, moved], axis=1)
