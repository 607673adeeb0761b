"""FIXME: one sentence on this module."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


Ints = NDArray[np.int64]


# of each class, `resample class`: documents that have it as right answer, that are answered with it, both -> scores
Statistic = Callable[[Floats, Floats, Floats], Floats]


# cells `cell 3`, their counts, how many resamples, generator -> cells, counts `resample cell`
Resample = Callable[[Ints, Ints, int, np.random.Generator], tuple[Ints, Ints]]


def count_answers(gold: Ints, *arms: Ints) -> tuple[Ints, Ints]:
    """Distinct rows of right answer and arms' answers with their counts; classes from 0, -1 for what is never right."""
    classes, right = np.unique(gold, return_inverse=True)
    nearest = [np.searchsorted(classes[:-1], answers) for answers in arms]
    known = [np.where(classes[index] == answers, index, -1) for index, answers in zip(nearest, arms, strict=True)]
    cells, counts = np.unique(np.stack([right, *known], axis=1), axis=0, return_counts=True)
    return cells, counts


def score_resamples(statistic: Statistic, cells: Ints, counts: Ints) -> Floats:
    """Score of each arm in each resample, `arm resample`."""
    n_classes = int(cells[:, 0].max()) + 1
    one_hot = np.eye(n_classes + 1)[:, :n_classes][cells.T]  # `column cell class`; class -1 picks the row of zeros
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
    if not len(gold):
        return 0.0, -1.0, 1.0
    value = _difference(statistic, gold, base, edited)
    tail = (1 - level) / 2
    gains = _resampled(statistic, gold, base, edited, _smoothed, resamples, seed)
    return value, min(value, float(np.quantile(gains, tail))), max(value, -float(np.quantile(-gains, tail)))


def permutation_p(statistic: Statistic, gold: Ints, base: Ints, edited: Ints, resamples: int, seed: int) -> float:
    if not len(gold):
        return 1.0
    value = _difference(statistic, gold, base, edited)
    gains = _resampled(statistic, gold, base, edited, _swapped, resamples, seed)
    # Two, and not one: where all flips are on one side, both halves of the resamples are the same draws.
    return float((2 + (abs(gains) >= abs(value) - 1e-12).sum()) / (2 + len(gains)))


def _resampled(
    statistic: Statistic, gold: Ints, base: Ints, edited: Ints, resample: Resample, resamples: int, seed: int
) -> Floats:
    """Gains of resamples, half of them drawn with the arms the other way round: swapping the arms negates the set."""
    gains = []
    for sign, arms in ((1, (base, edited)), (-1, (edited, base))):
        cells, counts = resample(*count_answers(gold, *arms), (resamples + 1) // 2, np.random.default_rng(seed))
        before, after = score_resamples(statistic, cells, counts)
        gains.append(sign * (after - before))
    return np.concatenate(gains)


def _smoothed(cells: Ints, counts: Ints, resamples: int, generator: np.random.Generator) -> tuple[Ints, Ints]:
    """Draws of n documents out of n + 2: those seen, and a gained and a lost one, of the classes seen."""
    n_classes, n = int(cells[:, 0].max()) + 1, counts.sum()
    # A wrong answer that is another class costs that one's precision too: F1 moves farther than by one outside.
    right, wrong = np.nonzero(~np.eye(n_classes, dtype=bool)) if n_classes > 1 else (np.array([0]), np.array([-1]))
    flips = [np.stack(columns, axis=1) for columns in ((right, right, wrong), (right, wrong, right))]
    shares = np.bincount(cells[:, 0], weights=counts)[right] / n / max(n_classes - 1, 1)
    weights = np.concatenate([counts, shares, shares]) / (n + 2)
    return np.concatenate([cells, *flips]), generator.multinomial(n, weights, size=resamples)


def _swapped(cells: Ints, counts: Ints, resamples: int, generator: np.random.Generator) -> tuple[Ints, Ints]:
    """Each document's two answers swapped or not, with even chances."""
    differing = counts * (cells[:, 1] != cells[:, 2])
    moved = generator.binomial(differing, 0.5, size=(resamples, len(counts)))
    return np.concatenate([cells, cells[:, (0, 2, 1)]]), np.concatenate([counts - moved, moved], axis=1)
