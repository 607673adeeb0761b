"""Paired gains: edited minus base on the same documents, with an interval and a test.

Answers are indices of choices; a negative one is an answer outside the choices, which is always wrong. A gain depends
only on how often each (right answer, base's answer, edited answer) occurs. So the order of documents does not matter,
and swapping the arms negates the gain and mirrors its interval exactly.

Source: McNemar (1947), exact form.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from tarot.errors import TarotError
from tarot.evaluation.results.changes import changed_rows
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
    """A paired gain: value = score(edited) - score(base), a fraction in [-1, 1].

    Without documents the value is 0 in [-1, 1] with p = 1.

    Attributes:
        value: the gain on the documents at hand.
        low: lower end of the interval that contains the gain over all such documents with confidence `level`.
        high: upper end of that interval.
        n: number of documents.
        p: two-sided p-value of the hypothesis that the arms do not differ.
        gained: documents that went from wrong to right.
        lost: documents that went from right to wrong.
        level: confidence of the interval, a fraction.
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
        """The standard error over documents, as a fraction."""
        return standard_error(self.low, self.high, self.level)


def accuracy(gold: Sequence[int], predicted: Sequence[int]) -> float:
    """Return mean(predicted = gold), a fraction; 0 without documents.

    Example:
        >>> accuracy(gold=[0, 1, 1], predicted=[0, 1, -1])
        0.6666666666666666
    """
    return _score(_accuracy, gold, predicted)


def weighted_f1(gold: Sequence[int], predicted: Sequence[int]) -> float:
    """Return sum_c gold(c) / n * 2 TP(c) / (gold(c) + predicted(c)), a fraction; 0 without documents.

    This is scikit-learn's `f1_score(average="weighted", zero_division=0)`, with one exception. If all documents have
    the same right answer, as documents without choices do, that F1 would be 2a / (1 + a) for an accuracy of a; return
    the accuracy itself.

    Example:
        >>> weighted_f1(gold=[0, 0, 1], predicted=[0, 1, 1])
        0.6666666666666666
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
    """Return accuracy(edited) - accuracy(base), with the interval of `f1_gain` and McNemar's exact test.

    Args:
        gold: right choices, one a document.
        base: answers of the base arm, in the same order.
        edited: answers of the edited arm, in the same order.
        level: confidence of the interval, a fraction.
        resamples: number of bootstrap resamples.
        seed: seed of the resamples.

    Raises:
        TarotError: arms of different lengths, a negative right answer, a level outside (0, 1), fewer than 2 resamples.

    Example:
        >>> gain = accuracy_gain(gold=[0, 1, 1, 0], base=[0, 0, 0, 0], edited=[0, 1, 1, 0])
        >>> gain.value, gain.gained, gain.lost
        (0.5, 2, 0)
    """
    arms = _check_arms(gold, base, edited, level, resamples)
    gained, lost = map(len, changed_rows(gold, base, edited))
    p = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    right, before, after = arms
    # Only right (class 0) and wrong (outside) count, so the table has four rows at most.
    correctness = (np.zeros_like(right), (before == right) - 1, (after == right) - 1)
    value, low, high = bootstrap_interval(_accuracy, *correctness, level, resamples, seed)
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
    """Return weighted_f1(edited) - weighted_f1(base), with a smoothed bootstrap interval and a permutation test.

    The interval contains the value, and the middle `level` of the gains of resamples. Each resample draws `n` documents
    from the observed ones and two pseudo-documents, one gained and one lost. Without these the bootstrap is
    overconfident: in simulations with a handful of changed answers on 44 documents its percentiles cover 81 to 86% at a
    nominal 95%, BCa's 77 to 81%, these 93% and more (99% with hardly a changed answer).

    p is the share of random swaps of the two answers to each document whose gain is at least as far from 0. For
    accuracy the same test is McNemar's.

    Args:
        gold: right choices, one a document.
        base: answers of the base arm, in the same order.
        edited: answers of the edited arm, in the same order.
        level: confidence of the interval, a fraction.
        resamples: number of bootstrap resamples, and of random swaps.
        seed: seed of the resamples.

    Raises:
        TarotError: arms of different lengths, a negative right answer, a level outside (0, 1), fewer than 2 resamples.

    Example:
        >>> gain = f1_gain(gold=[0, 1, 1, 0], base=[0, 0, 0, 0], edited=[0, 1, 1, 0])
        >>> gain.low <= gain.value <= gain.high
        True
    """
    arms = _check_arms(gold, base, edited, level, resamples)
    value, low, high = bootstrap_interval(_weighted_f1, *arms, level, resamples, seed)
    p = permutation_p(_weighted_f1, *arms, resamples, seed)
    gained, lost = map(len, changed_rows(gold, base, edited))
    return Gain(value, low, high, len(gold), p, gained, lost, level)


def _check_arms(
    gold: Sequence[int], base: Sequence[int], edited: Sequence[int], level: float, resamples: int
) -> tuple[Ints, Ints, Ints]:
    check_settings(level, resamples)
    return (*_check_answers(gold, base), _check_answers(gold, edited)[1])


def _check_answers(gold: Sequence[int], predicted: Sequence[int]) -> tuple[Ints, Ints]:
    if len(gold) != len(predicted):
        raise TarotError("as many answers as documents", f"{len(predicted)} for {len(gold)}")
    right = np.asarray(gold, np.int64)
    if (right < 0).any():
        raise TarotError("right answers that are indices of choices", str(right.min()))
    return right, np.asarray(predicted, np.int64)


def _accuracy(n_gold: Floats, n_answered: Floats, right: Floats) -> Floats:
    return right.sum(1) / n_gold.sum(1)


def _weighted_f1(n_gold: Floats, n_answered: Floats, right: Floats) -> Floats:
    if n_gold.shape[1] == 1:
        return _accuracy(n_gold, n_answered, right)
    f1 = 2 * right / np.maximum(n_gold + n_answered, 1)  # right is 0 for a class that does not occur
    return (n_gold * f1).sum(1) / n_gold.sum(1)


def _score(statistic: Statistic, gold: Sequence[int], predicted: Sequence[int]) -> float:
    right, answers = _check_answers(gold, predicted)
    return float(score_resamples(statistic, *count_answers(right, answers))[0, 0]) if len(right) else 0.0
