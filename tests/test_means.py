"""Means of columns and the jackknife: agreement with Student's interval, and what they refuse."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import sem, t

from tarot.errors import TarotError
from tarot.evaluation.statistics.means import Mean, jackknife, mean_intervals

tenths = st.integers(-90, 90).map(lambda n: n / 10)


@given(st.lists(st.tuples(tenths, tenths), min_size=2, max_size=12), st.floats(0.5, 0.99))
def test_means_have_students_interval_column_by_column(rows, level):
    for column, mean in zip(zip(*rows, strict=True), mean_intervals(rows, level=level), strict=True):
        assert mean.value == pytest.approx(sum(column) / len(column), abs=1e-9)
        if len(set(column)) > 1:
            low, high = t.interval(level, len(column) - 1, mean.value, sem(column))
            assert (mean.low, mean.high) == (pytest.approx(low, abs=1e-6), pytest.approx(high, abs=1e-6))
    assert mean_intervals([(0.0, 0.0)] * len(rows)) == [Mean(0.0, 0.0, 0.0)] * 2


def test_one_document_has_an_infinite_interval():
    assert mean_intervals([[3.0]]) == [Mean(3.0, -math.inf, math.inf)]


def test_the_interval_of_a_mean_of_many_documents_is_normal():
    values = np.random.default_rng(0).normal(0.3, 1, 2_000)
    (mean,) = mean_intervals(values[:, None].tolist())
    reach = 1.96 * values.std() / math.sqrt(len(values))
    assert (mean.low, mean.high) == (
        pytest.approx(values.mean() - reach, abs=0.1 * reach),
        pytest.approx(values.mean() + reach, abs=0.1 * reach),
    )


@pytest.mark.parametrize(
    ("rows", "options", "keyword"), [([], {}, "at least 1 document"), ([[1.0]], {"level": 95}, "level .* 95")]
)
def test_means_of_bad_input(rows, options, keyword):
    with pytest.raises(TarotError, match=keyword):
        mean_intervals(rows, **options)


@pytest.mark.parametrize("n_bad", [1, 10, 11])
def test_documents_without_a_finite_value_are_named(n_bad):
    with pytest.raises(TarotError) as error:
        mean_intervals([[0.0, math.nan if row < n_bad else 1.0] for row in range(14)])
    head, _, named = str(error.value).rpartition(":")
    assert f"{n_bad} of 14" in head
    assert [int(row) for row in named.split(",") if row.strip() != "..."] == list(range(min(n_bad, 10)))
    assert ("..." in named) == (n_bad > 10)


@given(st.lists(st.floats(-9, 9), min_size=2, max_size=12), st.floats(0.5, 0.99))
def test_the_jackknife_of_a_mean_is_students_interval(values, level):
    n, mean = len(values), sum(values) / len(values)
    interval = jackknife(mean, [(sum(values) - value) / (n - 1) for value in values], level=level)
    reach = t.ppf((1 + level) / 2, n - 1) * np.std(values, ddof=1) / math.sqrt(n)
    assert (interval.value, interval.high - mean, mean - interval.low) == pytest.approx((mean, reach, reach), abs=1e-6)


def test_the_jackknife_of_one_document_and_of_a_bad_level():
    assert jackknife(0.5, [0.0]) == Mean(0.5, -math.inf, math.inf)
    with pytest.raises(TarotError, match=r"level .* 95"):
        jackknife(0.5, [0.0], level=95)
