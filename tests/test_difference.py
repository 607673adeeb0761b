"""Differences of paired values: symmetry, coverage by simulation, and refused input."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tarot.errors import TarotError
from tarot.evaluation.statistics.means import difference

reals = st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=2, max_size=12)


@settings(max_examples=40)
@given(reals)
def test_a_difference_is_the_mean_inside_its_interval(pairs):
    base, edited = zip(*pairs, strict=True)
    change = difference(base, edited, resamples=200)
    assert change.value == pytest.approx(np.mean(edited) - np.mean(base), abs=1e-9)
    assert change.low <= change.value <= change.high
    assert 0 < change.p <= 1 and change.n == len(pairs)
    mirrored = difference(edited, base, resamples=200)
    assert (mirrored.value, mirrored.p) == pytest.approx((-change.value, change.p), abs=0.05)


@settings(max_examples=25)
@given(st.lists(st.integers(-5, 5), min_size=2, max_size=5), st.sampled_from([0.5, 0.9, 0.95]))
def test_interval_and_p_are_those_of_all_resamples_and_swaps(gains, level):
    assume(any(gains))
    change = difference([0] * len(gains), gains, level=level, resamples=4000)
    largest = max(map(abs, gains))
    means = np.array([np.mean(drawn) for drawn in product([*gains, largest, -largest], repeat=len(gains))])
    for end, tail in ((change.low, (1 - level) / 2), (change.high, (1 + level) / 2)):
        outside = {np.mean(means <= end + 1e-9), np.mean(means < end - 1e-9)}
        if end != change.value:  # the interval is widened to hold the mean
            assert min(outside) - 0.04 <= tail <= max(outside) + 0.04
    swapped = np.array([np.mean(np.array(signs) * gains) for signs in product((1, -1), repeat=len(gains))])
    tails = np.mean(swapped >= change.value - 1e-9), np.mean(swapped <= change.value + 1e-9)
    assert change.p == pytest.approx(min(1.0, 2 * min(tails)))
    assert change.level == level


@given(reals, st.sampled_from([1e-170, 0.5, 1e100]))
def test_a_difference_has_the_unit_of_its_values(pairs, unit):
    base, edited = np.array(pairs).T.round(3)
    assume((base != edited).any())
    change, scaled = (difference(base * by, edited * by, resamples=50) for by in (1, unit))
    assert (scaled.value, scaled.low, scaled.high) == pytest.approx(
        (change.value * unit, change.low * unit, change.high * unit), rel=1e-6, abs=1e-9 * unit
    )


def test_level_resamples_and_seed_decide_a_difference():
    base, edited = [0.0] * 20, np.random.default_rng(0).normal(0.3, 1, 20)
    change = difference(base, edited)
    assert change == difference(base, edited, level=0.95, resamples=10_000, seed=0)
    assert change.low != difference(base, edited, seed=1).low
    wide = difference(base, edited, level=0.99)
    assert wide.low < change.low < change.high < wide.high
    few = difference(base, edited, resamples=49)
    assert few.p * 50 == pytest.approx(round(few.p * 50)) and few.p >= 2 / 50
    assert difference(base[:1], edited[:1], level=0.9).level == 0.9


def test_truth_values_are_numbers():
    values = [False, True, False], [True, True, False]
    assert difference(*values) == difference(*(list(map(float, each)) for each in values))


@pytest.mark.parametrize("n", [20, 100])
@pytest.mark.parametrize(
    ("draw", "mean"),
    [
        (lambda generator, n: generator.normal(0.3, 1, n), 0.3),
        (lambda generator, n: generator.exponential(size=n), 1),
        (lambda generator, n: 1.0 * (generator.random(n) < 0.05), 0.05),  # what happens rarely, such as a toxic text
        (lambda generator, n: 1.0 * (generator.random(n) < 0.05) - (generator.random(n) < 0.02), 0.03),
    ],
    ids=["normal", "skewed", "rare", "rare both ways"],
)
def test_at_a_nominal_95_the_interval_of_a_difference_covers_its_mean(draw, mean, n):
    generator = np.random.default_rng(0)
    covered = []
    for seed in range(300):
        change = difference(np.zeros(n), draw(generator, n), resamples=400, seed=seed)
        covered.append(change.low - 1e-9 <= mean <= change.high + 1e-9)
    assert np.mean(covered) >= 0.92


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_difference_of_infinite_values_is_refused(value):
    with pytest.raises(TarotError, match="expected finite values of every document, got 1 of 2 that are not"):
        difference([0.0, 0.0], [1.0, value])


def test_a_difference_that_does_not_vary():
    same = difference([0.5] * 9, [0.75] * 9)
    assert same.low < same.value == same.high == 0.25 and same.p < 0.01
    for nothing in (difference([0.5] * 9, [0.5] * 9), difference([0.0], [1.0])):
        assert (nothing.low, nothing.high, nothing.p) == (-math.inf, math.inf, 1.0)


@pytest.mark.parametrize(
    ("arguments", "options", "keyword"),
    [
        (([1.0], [1.0, 2.0]), {}, "2 and 1"),
        (([], []), {}, "0 and 0"),
        (([1.0], [1.0]), {"level": 1.0}, "level .* 1.0"),
        (([1.0], [1.0]), {"resamples": 1}, "resamples .* 1"),
    ],
)
def test_a_difference_of_bad_input(arguments, options, keyword):
    with pytest.raises(TarotError, match=keyword):
        difference(*arguments, **options)
