"""Bayesian optimisation: known maxima, batches, and scores that no surrogate can learn from."""

import math
from statistics import mean

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from landscapes import hill, saturating

from tarot.search.algorithms.acquisition import make_gaussian_process
from tarot.search.algorithms.bayesian import REFIT_GROWTH, BayesianOptimisation, last_refit
from tarot.search.loop import run_search
from tarot.search.trials import Trial, best_of


@given(st.integers(1, 10**6))
def test_refits_grow_geometrically(n: int) -> None:
    """The last refit depends on the number of trials alone, and is less than a quarter behind them."""
    m = last_refit(n)
    assert 1 <= m <= n < max(m + 1, int(REFIT_GROWTH * m))
    assert last_refit(m) == m


def test_finds_the_maximum_of_branin() -> None:
    """Branin has three maxima of -0.3979."""
    from botorch.test_functions import Branin

    branin = Branin(negate=True)
    low, high = branin.bounds.double()
    result = run_search(lambda x: float(branin(low + (high - low) * x)), 2, budget=25, seed=0)
    assert result.best.score > -0.6


def test_finds_the_hartmann_valley() -> None:
    """Hartmann has six dimensions and one maximum of 3.3224; uniform points score 0.26 on average."""
    from botorch.test_functions import Hartmann

    hartmann = Hartmann(negate=True)
    assert run_search(lambda x: float(hartmann(x)), 6, budget=30, seed=0).best.score > 2.5


def test_beats_random_search_if_most_coordinates_hardly_matter() -> None:
    f = saturating(40, seed=0)
    bo, random = (run_search(f, 40, search=search, budget=25, seed=0).best.score for search in ("bo", "random"))
    assert bo > random + 0.5


def test_a_batch_climbs_almost_as_fast_as_single_points() -> None:
    """The points of a step do not know each other's scores, which costs a few evaluations."""
    f = saturating(40, seed=0)
    ones, fours, random = (
        run_search(f, 40, search=search, budget=24, seed=0, trials_per_step=n).best.score
        for search, n in (("bo", 1), ("bo", 4), ("random", 1))
    )
    assert fours > random + 0.5 * (ones - random)


def test_the_design_is_uniform_beyond_the_dimensions_of_sobol() -> None:
    result = run_search(lambda x: 0.0, 30_000, budget=3, seed=0)
    assert 0.49 < mean(result.trials[2].x) < 0.51


@pytest.mark.parametrize("search", ["bo", "paper"])
def test_equal_scores_are_followed_by_uniform_draws(search: str) -> None:
    result = run_search(lambda x: 1.0, 2, search=search, budget=9, seed=0)
    assert {t.origin for t in result.trials[6:]} == {"random"}
    assert len({t.x for t in result.trials}) == 9
    assert result.best is result.identity


def test_between_refits_the_noise_is_that_of_the_last_refit() -> None:
    """The hyperparameters of the first eight points also hold for the ninth, unless each score says its own noise."""
    X = torch.rand(9, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    Y = X.sum(1, keepdim=True).sin()
    search = BayesianOptimisation(2, seed=0)
    first, second = search._model(X[:8], Y[:8], None), search._model(X, Y, None)
    assert last_refit(9) == 8
    assert torch.equal(first.likelihood.noise, second.likelihood.noise)
    assert not torch.equal(second.likelihood.noise, make_gaussian_process(X, Y, first.covar_module).likelihood.noise)
    known = search._model(X, Y, torch.full_like(Y, 0.04))
    assert len(known.likelihood.noise) == 9


def test_failed_trials_are_not_proposed_again() -> None:
    """If half of the cube fails, the search leaves that half and climbs in the other."""
    result = run_search(lambda x: math.nan if x[0] > 0.6 else hill(0.3)(x), 3, budget=18, seed=0)
    failed = [t for t in result.trials if math.isnan(t.score)]
    assert len(failed) == len({t.x for t in failed}) > 0
    assert result.best.score > result.identity.score / 5


@given(st.lists(st.floats(-5, 5) | st.just(math.nan), min_size=1, max_size=8))
def test_of_exact_scores_the_highest_is_kept(scores: list[float]) -> None:
    trials = [Trial(i, (i / 8, 0.5), score, "sobol", 0.0, 0.0) for i, score in enumerate(scores)]
    assert BayesianOptimisation(2, seed=0).recommend(trials) is best_of(trials)


@given(st.integers(0, 8), st.integers(0, 8))
@settings(max_examples=10)
def test_a_high_score_that_is_all_noise_is_not_kept(lucky: int, failed: int) -> None:
    """One trial of nine has a high score with a standard error five times as large; the others are nearly exact."""
    f, trials = hill(0.7), []
    for i in range(9):
        x = torch.tensor([i / 8, 0.7], dtype=torch.float64)
        score, error = (2.0, 10.0) if i == lucky else (math.nan if i == failed else f(x), 0.01)
        trials.append(Trial(i, tuple(x.tolist()), score, "sobol", 0.0, 0.0, error=error))
    kept = BayesianOptimisation(2, seed=0).recommend(trials)
    highest = max(
        (f(torch.tensor(trial.x)), -trial.index) for trial in trials if trial.index != failed or failed == lucky
    )
    assert f(torch.tensor(kept.x)) > highest[0] - 0.05
