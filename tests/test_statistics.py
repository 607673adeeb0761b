"""Gains: exact symmetries, agreement with scikit-learn and slow oracles, and coverage by simulation."""

import math
from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import accuracy_score, f1_score

from tarot.errors import TarotError
from tarot.evaluation.statistics import resampling
from tarot.evaluation.statistics.gains import Gain, accuracy, accuracy_gain, f1_gain, weighted_f1
from tarot.evaluation.statistics.seeds import MeanGain, mean_over_seeds, mean_over_settings
from tarot.evaluation.statistics.significance import holm, regressed

GAINS = [accuracy_gain, f1_gain]
FEW = 200  # resamples, where the interval's precision does not matter


@st.composite
def arms(draw, max_size=30, n_choices=4):
    """Draw right answers and the answers of two arms; -1 is an answer outside the choices."""
    right, answer = st.integers(0, n_choices - 1), st.integers(-1, n_choices - 1)
    documents = draw(st.lists(st.tuples(right, answer, answer), max_size=max_size))
    return tuple(zip(*documents, strict=True)) if documents else ((), (), ())


@st.composite
def gains(draw):
    low, value, high = sorted(draw(st.tuples(*[st.floats(-1, 1)] * 3)))
    return Gain(value, low, high, draw(st.integers(1, 999)), draw(st.floats(0, 1)), 0, 0)


# Properties


@pytest.mark.parametrize("gain_of", GAINS)
@given(arms())
def test_swapping_the_arms_mirrors_the_gain_exactly(gain_of, documents):
    gold, base, edited = documents
    there, back = gain_of(gold, base, edited, resamples=FEW), gain_of(gold, edited, base, resamples=FEW)
    assert (there.value, there.low, there.high) == (-back.value, -back.high, -back.low)
    assert (there.p, there.gained, there.lost, there.error) == (back.p, back.lost, back.gained, back.error)


@pytest.mark.parametrize("gain_of", GAINS)
@given(arms())
def test_a_gain_is_always_finite_and_inside_its_interval(gain_of, documents):
    gain = gain_of(*documents, resamples=FEW)
    assert -1 <= gain.low <= gain.value <= gain.high <= 1
    assert gain.low < gain.high  # no sample gives certainty
    assert 0 < gain.p <= 1
    assert gain.n == len(documents[0])


@pytest.mark.parametrize("gain_of", GAINS)
@given(arms(), st.randoms(use_true_random=False))
def test_the_order_of_the_documents_does_not_matter(gain_of, documents, random):
    rows = list(zip(*documents, strict=True))
    assume(rows)
    random.shuffle(rows)
    assert gain_of(*zip(*rows, strict=True), resamples=FEW) == gain_of(*documents, resamples=FEW)


@given(arms())
def test_the_numbering_of_choices_does_not_matter(documents):
    gold, base, edited = documents

    def renamed(answers):
        return [7 * answer + 3 if answer in gold else -1 for answer in answers]

    assert f1_gain(*map(renamed, (gold, base, edited)), resamples=FEW) == f1_gain(gold, base, edited, resamples=FEW)


@given(arms())
def test_scores_are_those_of_scikit_learn(documents):
    gold, _, predicted = documents
    assume(gold)
    assert accuracy(gold, predicted) == pytest.approx(accuracy_score(gold, predicted), abs=1e-12)
    expected = f1_score(gold, predicted, average="weighted", zero_division=0)
    if len(set(gold)) == 1:  # with one class it is the accuracy
        expected = accuracy(gold, predicted)
    assert weighted_f1(gold, predicted) == pytest.approx(expected, abs=1e-12)


@given(arms())
def test_a_gain_is_the_difference_of_the_scores(documents):
    gold, base, edited = documents
    for gain_of, score in ((accuracy_gain, accuracy), (f1_gain, weighted_f1)):
        gain = gain_of(gold, base, edited, resamples=FEW)
        assert gain.value == pytest.approx(score(gold, edited) - score(gold, base), abs=1e-12)


@given(arms())
def test_changed_answers_are_counted(documents):
    pairs = [(b == g, e == g) for g, b, e in zip(*documents, strict=True)]
    gain = f1_gain(*documents, resamples=FEW)
    assert (gain.gained, gain.lost) == (pairs.count((False, True)), pairs.count((True, False)))


@given(st.lists(st.floats(0, 1), max_size=6))
def test_holm_is_the_closure_of_bonferroni(p_values):
    def oracle(i):
        others = [j for j in range(len(p_values)) if j != i]
        families = [(i, *rest) for size in range(len(p_values)) for rest in combinations(others, size)]
        return max(min(1.0, len(family) * min(p_values[j] for j in family)) for family in families)

    assert holm(p_values) == pytest.approx([oracle(i) for i in range(len(p_values))])


@given(st.lists(gains(), min_size=1, max_size=6))
def test_means_are_inside_their_interval_and_mirror(some):
    mean = mean_over_seeds(some)
    mirrored = mean_over_seeds([Gain(-g.value, -g.high, -g.low, g.n, g.p, g.lost, g.gained) for g in some])
    assert -1 <= mean.low <= mean.value <= mean.high <= 1
    assert (mean.value, mean.low, mean.high) == (-mirrored.value, -mirrored.high, -mirrored.low)
    assert (mean.between is None) == (len(some) == 1)
    assert mean.value == pytest.approx(np.mean([gain.value for gain in some]))
    if len(some) > 1:
        assert mean.between == pytest.approx(np.std([gain.value for gain in some], ddof=1), abs=1e-12)


@given(gains(), st.integers(1, 5))
def test_equal_seeds_give_the_interval_of_one(gain, seeds):
    mean = mean_over_seeds([gain] * seeds)
    assert (mean.value, mean.low, mean.high) == pytest.approx((gain.value, gain.low, gain.high), abs=1e-7)
    assert mean.within == pytest.approx(gain.error)


@given(st.lists(st.lists(gains(), min_size=1, max_size=4), min_size=1, max_size=3))
def test_a_mean_of_means_is_at_least_as_wide_as_they_are(comparisons):
    """The spread of means over draws is not averaged away among comparisons."""
    inner = [mean_over_seeds(draws) for draws in comparisons]
    outer = mean_over_settings([[mean] for mean in inner])
    assert outer.value == pytest.approx(np.mean([mean.value for mean in inner]), abs=1e-12)
    assert -1 <= outer.low <= outer.value <= outer.high <= 1
    assert outer.between is None
    assert outer.low == pytest.approx(np.mean([mean.low for mean in inner]), abs=1e-9)
    assert outer.high == pytest.approx(np.mean([mean.high for mean in inner]), abs=1e-9)


@given(gains(), st.floats(0, 1))
def test_a_regression_is_both_large_and_unlikely(gain, tolerance):
    assert regressed(gain, tolerance) == (gain.value < -tolerance and gain.p < 0.05)


# Oracles


@given(st.integers(0, 12), st.integers(0, 12))
def test_the_accuracy_test_is_mcnemars(gained, lost):
    flips = gained + lost
    tail = sum(math.comb(flips, k) for k in range(min(gained, lost) + 1)) / 2**flips
    arms = [0] * flips, [1] * gained + [0] * lost, [0] * gained + [1] * lost
    assert accuracy_gain(*arms, resamples=FEW).p == pytest.approx(min(1.0, 2 * tail))


@settings(max_examples=15)
@given(arms(max_size=9, n_choices=3))
def test_the_f1_test_is_the_share_of_swaps_that_are_as_far_from_zero(documents):
    gold, base, edited = documents
    assume(gold)

    def swapped(swaps):
        pairs = [(e, b) if swap else (b, e) for b, e, swap in zip(base, edited, swaps, strict=True)]
        return weighted_f1(gold, [e for _, e in pairs]) - weighted_f1(gold, [b for b, _ in pairs])

    every = [abs(swapped(swaps)) for swaps in product((False, True), repeat=len(gold))]
    exact = np.mean(np.array(every) >= every[0] - 1e-12)
    assert f1_gain(gold, base, edited).p == pytest.approx(exact, abs=0.025)  # 5 standard errors of 10,000 draws


def test_the_interval_is_that_of_a_loop_over_resampled_documents():
    generator = np.random.default_rng(0)
    gold = generator.integers(0, 3, 60)
    base, edited = (np.where(generator.random(60) < right, gold, generator.integers(-1, 3, 60)) for right in (0.3, 0.6))
    gain = f1_gain(gold, base, edited)
    values = []
    for _ in range(2000):
        drawn = generator.integers(0, 60, 60)
        pseudo = generator.random(60) < 2 / 62
        before = np.where(pseudo, gold[drawn], base[drawn])
        after = np.where(pseudo, (gold[drawn] + generator.integers(1, 3, 60)) % 3, edited[drawn])
        both = np.where(generator.random(60) < 0.5, (before, after), np.where(pseudo, (after, before), (before, after)))
        values.append(weighted_f1(gold[drawn], both[1]) - weighted_f1(gold[drawn], both[0]))
    assert (gain.low, gain.high) == pytest.approx(np.quantile(values, (0.025, 0.975)), abs=0.015)


@given(arms(max_size=9, n_choices=3))
def test_resamples_are_drawn_from_the_documents_and_a_gained_and_a_lost_one(documents):
    gold, base, edited = documents
    assume(gold)
    classes = sorted(set(gold))
    chances = dict.fromkeys(product([classes.index(g) for g in gold], range(-1, 3), range(-1, 3)), 0.0)
    for document in zip(gold, base, edited, strict=True):
        right, before, after = (classes.index(each) if each in classes else -1 for each in document)
        chances[right, before, after] += 1
        others = [each for each in range(len(classes)) if each != right] or [-1]
        for wrong in others:  # the pseudo-documents are spread over the classes
            chances[right, wrong, right] += 1 / len(others) / len(gold)
            chances[right, right, wrong] += 1 / len(others) / len(gold)

    class Recorder:
        def multinomial(self, n, weights, size):
            assert (n, size) == (len(gold), 7) and sum(weights) == pytest.approx(1)
            self.weights = weights

    recorder = Recorder()
    rows, _ = resampling._smoothed(*resampling.count_answers(*map(np.array, documents)), 7, recorder)
    drawn = dict.fromkeys(chances, 0.0)
    for row, weight in zip(rows.tolist(), recorder.weights, strict=True):
        drawn[tuple(row)] += weight * (len(gold) + 2)
    assert drawn == pytest.approx(chances)


# Coverage


def population(n_choices, base_right, edited_right, agreement):
    """Return every (right answer, base's, edited's) and its probability; `agreement` is that of equal answers."""
    generator = np.random.default_rng(n_choices)
    prior = generator.dirichlet(np.full(n_choices, 5.0))

    def answers(right, gold, skew):
        others = np.array([0.1, *([skew] + [1.0] * (n_choices - 1))])
        chances = others / others.sum() * (1 - right)
        chances[gold + 1] += right
        return chances

    rows = list(product(range(n_choices), range(-1, n_choices), range(-1, n_choices)))
    chances = [
        prior[g] * before * (agreement * (b == e) + (1 - agreement) * answers(edited_right, g, 1)[e + 1])
        for g, b, e in rows
        for before in [answers(base_right, g, 3)[b + 1]]
    ]
    return np.array(rows), np.array(chances) / sum(chances)


def coverage(gain_of, score, n, rows, chances, **options):
    """Return the fraction of 1,000 samples of n documents whose interval contains the population's gain."""
    many = np.repeat(rows, np.round(chances * 1e6).astype(int), axis=0).T
    truth = score(many[0], many[2]) - score(many[0], many[1])
    generator = np.random.default_rng(0)
    covered = 0
    for seed in range(1000):
        documents = rows[generator.choice(len(rows), size=n, p=chances)].T
        gain = gain_of(*documents, resamples=400, seed=seed, **options)
        covered += gain.low - 1e-9 <= truth <= gain.high + 1e-9
    return covered / 1000


LARGE_GAIN, HARDLY_ANY = (2, 0.1, 0.7, 0.3), (4, 0.6, 0.65, 0.6)


@pytest.mark.parametrize(("gain_of", "score"), [(accuracy_gain, accuracy), (f1_gain, weighted_f1)])
@pytest.mark.parametrize(("n", "case"), [(44, HARDLY_ANY), (100, LARGE_GAIN)], ids=["44", "100"])
def test_at_a_nominal_95_the_interval_covers_93_to_98(gain_of, score, n, case):
    assert 0.93 <= coverage(gain_of, score, n, *population(*case)) <= 0.98


@pytest.mark.parametrize(("gained", "lost"), [(0.03, 0), (0.08, 0), (0.045, 0.02)])
def test_a_few_changes_between_two_choices_are_covered_at_least_as_often(gained, lost):
    """With 44 documents; each changed answer also changes the precision of the other choice."""
    rows = np.array([(0, 0, 0), (0, 0, 1), (1, 1, 1), (1, 0, 0), (1, 0, 1)])
    assert coverage(f1_gain, weighted_f1, 44, rows, np.array([0.6 - lost, lost, 0.26, 0.14 - gained, gained])) >= 0.94


def test_the_check_of_coverage_can_fail():
    assert not 0.93 <= coverage(accuracy_gain, accuracy, 100, *population(*LARGE_GAIN), level=0.9) <= 0.97


def test_the_mean_over_seeds_covers_at_least_its_level():
    """Three edits of random strength answer the same documents; the truth is the mean over all edits and documents."""
    generator = np.random.default_rng(0)

    def right(difficulty, strength):
        return difficulty + 0.3 * generator.standard_normal(difficulty.shape) < 0.6 + 0.08 * strength

    truth = right(generator.random(10**6), generator.standard_normal(10**6)).mean() - 0.4
    n, trials, covered = 60, 400, 0
    for _ in range(trials):
        difficulty = generator.random(n)
        edits = [right(difficulty, generator.standard_normal()) for _ in range(3)]
        gains = [accuracy_gain([1] * n, difficulty < 0.4, edit, resamples=FEW) for edit in edits]
        mean = mean_over_seeds(gains)
        covered += mean.low <= truth <= mean.high
    assert covered / trials >= 0.93


# Examples


@pytest.mark.parametrize("gain_of", GAINS)
def test_without_documents_the_interval_is_everything(gain_of):
    assert gain_of([], [], []) == Gain(0.0, -1.0, 1.0, 0, 1.0, 0, 0)


@pytest.mark.parametrize("gain_of", GAINS)
@pytest.mark.parametrize("edited", [0, 1])
def test_one_document_has_a_wide_interval(gain_of, edited):
    gain = gain_of([1], [0], [edited])
    assert (gain.value, gain.low, gain.high, gain.p) == (edited, -1.0, 1.0, 1.0)


@pytest.mark.parametrize("gain_of", GAINS)
def test_equal_arms_gain_nothing_and_more_documents_narrow_the_interval(gain_of):
    widths = []
    for n in (10, 100, 1000):
        gain = gain_of([0, 1] * (n // 2), [0] * n, [0] * n)
        assert (gain.value, gain.p, gain.gained, gain.lost, gain.low) == (0.0, 1.0, 0, 0, -gain.high)
        widths.append(gain.high)
    assert widths[0] > widths[1] > widths[2] > 0


@pytest.mark.parametrize("gain_of", GAINS)
def test_seed_and_level_decide_the_interval(gain_of):
    arms = [0, 1] * 20, [0] * 40, ([0, 1, 1] * 14)[:40]
    gain = gain_of(*arms)
    assert gain_of(*arms) == gain == gain_of(*arms, level=0.95, resamples=10_000, seed=0)
    others = [gain_of(*arms, resamples=51, seed=seed) for seed in range(4)]
    assert len({(other.low, other.high) for other in others}) > 1
    assert others[0] == gain_of(*arms, resamples=51)
    wide, narrow = gain_of(*arms, level=0.99), gain_of(*arms, level=0.5)
    assert wide.low < gain.low < narrow.low < narrow.high < gain.high < wide.high
    assert (wide.level, gain.level, narrow.level) == (0.99, 0.95, 0.5)
    assert wide.error == pytest.approx(narrow.error, rel=0.25)
    for each in (gain, wide, narrow):
        assert each.error == pytest.approx((each.high - each.low) / (2 * norm.ppf((1 + each.level) / 2)))


@pytest.mark.parametrize(("resamples", "n"), [(9, 10), (10, 10), (11, 12)])
def test_half_of_the_resamples_swap_the_arms(resamples, n):
    gain = f1_gain([0, 1] * 20, [1, 0] * 20, [0, 1] * 20, resamples=resamples)
    assert gain.p == pytest.approx(2 / (n + 2))  # none is as far from 0


def test_the_work_of_a_gain_does_not_grow_with_the_documents(monkeypatch: pytest.MonkeyPatch):
    """Documents with the same answers are one row with a count, so 15,000 take as many sums as 1,500."""
    generator = np.random.default_rng(0)
    gold = generator.integers(0, 10, 1500)
    base = np.where(generator.random(1500) < 0.4, gold, generator.integers(-1, 10, 1500))
    edited = np.where(generator.random(1500) < 0.6, base, generator.integers(-1, 10, 1500))
    work: list[int] = []
    scores = resampling.score_resamples

    def counted(statistic: object, comparisons: np.ndarray, counts: np.ndarray) -> np.ndarray:
        work.append(counts.size)
        return scores(statistic, comparisons, counts)

    monkeypatch.setattr(resampling, "score_resamples", counted)
    f1_gain(gold, base, edited, resamples=100)
    few = sum(work)
    work.clear()
    f1_gain(*(np.tile(answers, 10) for answers in (gold, base, edited)), resamples=100)
    assert sum(work) == few
    assert max(work) < 1500 * 100


def test_a_planted_loss_is_a_regression_and_noise_is_not():
    gold, right = [0, 1] * 50, [0, 1] * 50
    wrong = [1 - answer for answer in right]
    assert regressed(accuracy_gain(gold, right, wrong), tolerance=0.05)
    assert regressed(f1_gain(gold, right, wrong), tolerance=0.05)
    for same in (right, wrong, [0] * 100):
        assert not regressed(f1_gain(gold, same, same), tolerance=0.0)
    one_worse = [1, *right[1:]]
    assert not regressed(accuracy_gain(gold, right, one_worse), tolerance=0.0)


def test_a_loss_as_large_as_the_tolerance_or_as_likely_as_chance_is_no_regression():
    loss = Gain(-0.25, -0.5, 0.0, 50, 0.01, 0, 9)
    assert regressed(loss, 0.2) and not regressed(loss, 0.25)
    assert not regressed(replace(loss, p=1 - loss.level), 0.2)


@pytest.mark.parametrize("values", [(-0.1,), (0.5, 1.5), (math.nan,)])
def test_what_is_no_probability_is_not_corrected(values):
    with pytest.raises(TarotError, match=f"p-values from 0 to 1, got {values[-1]}"):
        holm(values)


@pytest.mark.parametrize("changes", [{"value": math.nan}, {"p": math.nan}, {"tolerance": math.nan}])
def test_a_loss_that_is_no_number_is_not_judged(changes):
    tolerance = changes.pop("tolerance", 0.0)
    with pytest.raises(TarotError, match="tolerance, got NaN"):
        regressed(replace(Gain(-0.25, -0.5, 0.0, 50, 0.01, 0, 9), **changes), tolerance)


def test_the_mean_of_no_gains():
    nothing = MeanGain(0.0, -1.0, 1.0, 0, None, 0.0)
    assert mean_over_seeds([]) == mean_over_settings([]) == mean_over_settings([[], []]) == nothing
    assert holm([]) == ()


def test_a_mean_over_settings_counts_each_once_and_only_seeds_cancel():
    first = [Gain(value, value - 0.1, value + 0.1, 50, 1.0, 0, 0) for value in (0.1, 0.2, 0.3)]
    second = [Gain(-0.4, -0.7, -0.3, 50, 1.0, 0, 0)]
    mean = mean_over_settings([first, second])
    assert (mean.value, mean.count) == pytest.approx((-0.1, 4))
    assert mean.between == pytest.approx(0.1)  # of the first: the second has one seed
    reach = 4.302653 * 0.1 * math.sqrt(1 / 3 + 1) / 2  # t of 2 degrees of freedom
    assert mean.low == pytest.approx(-0.1 - math.hypot((0.1 + 0.3) / 2, reach))
    assert mean.high == pytest.approx(-0.1 + math.hypot((0.1 + 0.1) / 2, reach))


@pytest.mark.parametrize("gain_of", GAINS)
@pytest.mark.parametrize(
    ("arguments", "options", "keyword"),
    [
        (([0, 1], [0], [0, 1]), {}, "1 for 2"),
        (([0, 1], [0, 1], [0]), {}, "1 for 2"),
        (([0, -1], [0, 1], [0, 1]), {}, "indices .* -1"),
        (([0], [0], [0]), {"level": 95}, "level .* 95"),
        (([0], [0], [0]), {"level": math.nan}, "level .* nan"),
        (([0], [0], [0]), {"resamples": 1}, "resamples .* 1"),
    ],
)
def test_bad_input(gain_of, arguments, options, keyword):
    with pytest.raises(TarotError, match=keyword):
        gain_of(*arguments, **options)


# Real numbers
