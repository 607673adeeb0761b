"""Paired gains: edited minus base on the same documents, with an interval, a test, and what seeds add to both.

Answers are indices of choices; a negative one is an answer outside the choices, which is always wrong. A gain depends
only on how often each (right answer, base's answer, edited answer) occurs, so the order of documents does not matter;
swapping the arms negates the gain and mirrors its interval exactly.

Sources: McNemar (1947), exact form; Efron and Tibshirani, An Introduction to the Bootstrap (1993), also for
the jackknife; Agresti and Min (2005) for pseudo-documents; Holm (1979); Zou and Donner (2008) for adding intervals.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from tarot.errors import TarotError
from tarot.evaluation.statistics.intervals import check_settings, standard_error
from tarot.evaluation.statistics.resampling import (
    Floats,
    Ints,
    Statistic,
    bootstrap_interval,
    count_answers,
    permutation_p,
    score_resamples,
)


@dataclass(frozen=True)
class Gain:
    """value = score(edited) - score(base), a fraction in [-1, 1], on `n` documents.

    `low` to `high` holds the gain over all such documents with confidence `level`; `p` is two-sided, assuming that the
    arms do not differ. `gained` documents went from wrong to right, `lost` ones from right to wrong.
    Without documents nothing is known: value 0, interval [-1, 1], p 1.
    """

    value: float
    low: float
    high: float
    n: int
    p: float
    gained: int
    lost: int
    level: float = 0.95

    @property
    def error(self) -> float:
        """(high - low) / 2z: the standard error over documents that the interval stands for."""
        return standard_error(self.low, self.high, self.level)


def accuracy(gold: Sequence[int], predicted: Sequence[int]) -> float:
    """mean(predicted = gold), a fraction; 0 without documents."""
    return _score(_accuracy, gold, predicted)


def weighted_f1(gold: Sequence[int], predicted: Sequence[int]) -> float:
    """sum_c gold(c) / n * 2 TP(c) / (gold(c) + predicted(c)), a fraction; 0 without documents.

    scikit-learn's `f1_score(average="weighted", zero_division=0)`. Where all documents have the same right answer, as
    those without choices do, that would be 2 a / (1 + a) of the share a that is right: it is then that share.
    """
    return _score(_weighted_f1, gold, predicted)


def accuracy_gain(
    gold: Sequence[int],
    base: Sequence[int],
    edited: Sequence[int],
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Gain:
    """accuracy(edited) - accuracy(base), with the interval of `f1_gain` and McNemar's exact test.

    Raises:
        TarotError: arms of different lengths, a negative right answer, a level outside (0, 1), fewer than 2 resamples.
    """
    arms = _checked(gold, base, edited, level, resamples)
    gained, lost = _flips(*arms)
    p = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    right, before, after = arms
    # Only right (class 0) and wrong (outside) matter: four kinds of documents at most.
    kinds = (np.zeros_like(right), (before == right) - 1, (after == right) - 1)
    value, low, high = bootstrap_interval(_accuracy, *kinds, level, resamples, seed)
    return Gain(value, low, high, len(gold), p, gained, lost, level)


def f1_gain(
    gold: Sequence[int],
    base: Sequence[int],
    edited: Sequence[int],
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Gain:
    """weighted_f1(edited) - weighted_f1(base), with a smoothed bootstrap interval and a permutation test.

    The interval holds the middle `level` of the gain over resamples of `n` documents from the observed ones and two
    pseudo-documents, one gained and one lost, and the value itself. Without these the bootstrap is too sure that what
    it has not seen does not happen: in simulations with a handful of flips on 44 documents its percentiles cover 81 to
    86% at a nominal 95, BCa's 77 to 81%, these 93% and more (99 where hardly a flip happens).

    p is the share of random swaps of the two answers to each document that leave a gain at least as far from 0. For
    accuracy the same test is McNemar's.

    Raises:
        TarotError: arms of different lengths, a negative right answer, a level outside (0, 1), fewer than 2 resamples.
    """
    arms = _checked(gold, base, edited, level, resamples)
    value, low, high = bootstrap_interval(_weighted_f1, *arms, level, resamples, seed)
    p = permutation_p(_weighted_f1, *arms, resamples, seed)
    return Gain(value, low, high, len(gold), p, *_flips(*arms), level)


def _checked(
    gold: Sequence[int], base: Sequence[int], edited: Sequence[int], level: float, resamples: int
) -> tuple[Ints, Ints, Ints]:
    check_settings(level, resamples)
    return (*_answers(gold, base), _answers(gold, edited)[1])


def _answers(gold: Sequence[int], predicted: Sequence[int]) -> tuple[Ints, Ints]:
    if len(gold) != len(predicted):
        raise TarotError("as many answers as documents", f"{len(predicted)} for {len(gold)}")
    right = np.asarray(gold, np.int64)
    if (right < 0).any():
        raise TarotError("right answers that are indices of choices", str(right.min()))
    return right, np.asarray(predicted, np.int64)


def _flips(gold: Ints, base: Ints, edited: Ints) -> tuple[int, int]:
    before, after = base == gold, edited == gold
    return int((after & ~before).sum()), int((before & ~after).sum())


def _accuracy(n_gold: Floats, n_answered: Floats, right: Floats) -> Floats:
    return right.sum(1) / n_gold.sum(1)


def _weighted_f1(n_gold: Floats, n_answered: Floats, right: Floats) -> Floats:
    if n_gold.shape[1] == 1:
        return _accuracy(n_gold, n_answered, right)
    f1 = 2 * right / np.maximum(n_gold + n_answered, 1)  # where a class does not occur, nothing of it is right
    return (n_gold * f1).sum(1) / n_gold.sum(1)


def _score(statistic: Statistic, gold: Sequence[int], predicted: Sequence[int]) -> float:
    right, answers = _answers(gold, predicted)
    return float(score_resamples(statistic, *count_answers(right, answers))[0, 0]) if len(right) else 0.0
