"""The limit of divergence: on problems whose constrained optimum is known, and its resumption."""

import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from landscapes import comparable

from tarot.search.kl_limit import choose_trial, limited_direction, multiplier
from tarot.search.loop import SearchResult, run_search
from tarot.search.trials import Trial, TrialLog

D = 20
LIMIT = 0.03
RUN = {"d": D, "search": "adam", "seed": 0}
# Of each part of the contexts; the first half of the coordinates is free.
COSTS = torch.tensor(
    [[0.0] * (D // 2) + [4 + 3.2 * math.cos(k * math.pi / 2 + i) for i in range(D // 2)] for k in range(4)],
    dtype=torch.float64,
)
TOP = torch.linspace(0.3, 0.7, D, dtype=torch.float64)


def score(x: torch.Tensor, scale: float = 1.0) -> tuple[float, torch.Tensor]:
    """A hill whose top is far from the identity."""
    return -scale * float((x - TOP).square().sum()), -2 * scale * (x - TOP)


@dataclass
class Limit:
    """Like a KL divergence, quadratic at the identity, and different on each part of the contexts."""

    max_kl: float = LIMIT

    def value_and_grad(self, x: torch.Tensor, index: int) -> tuple[float, torch.Tensor]:
        costs = COSTS[index % 4]
        return float((costs * (x - 0.5).square()).sum()), 2 * costs * (x - 0.5)

    def kl(self, x: torch.Tensor, stop_above: float = math.inf) -> float:
        return float((COSTS.mean(0) * (x - 0.5).square()).sum())


class Broken(Limit):
    """A divergence that is not finite, except at the identity."""

    def value_and_grad(self, x: torch.Tensor, index: int) -> tuple[float, torch.Tensor]:
        return (0.0 if x[0] == 0.5 else math.nan), torch.zeros(D, dtype=torch.float64)


class Forbidding(Limit):
    """A limit that only the identity keeps."""

    def value_and_grad(self, x: torch.Tensor, index: int) -> tuple[float, torch.Tensor]:
        return float(x[0] != 0.5), torch.zeros(D, dtype=torch.float64)

    def kl(self, x: torch.Tensor, stop_above: float = math.inf) -> float:
        return 1.0


def kl_of(trial: Trial) -> float:
    return Limit().kl(torch.tensor(trial.x, dtype=torch.float64))


def search(budget: int = 120, scale: float = 1.0, **options: object) -> SearchResult:
    given = {"value_and_grad": lambda x: score(x, scale), "limit": Limit(), **RUN, **options}
    return run_search(lambda x: score(x, scale)[0], budget=budget, **given)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_finds_the_constrained_optimum(scale: float) -> None:
    """What costs nothing is moved to its best; the rest as far as the limit allows, whatever the score's scale."""
    result = search(240, scale)
    free = search(240, scale, limit=None)
    assert kl_of(free.best) > 3 * LIMIT
    assert result.choice.kl == kl_of(result.best) <= LIMIT
    distance = TOP - 0.5
    costly = distance[D // 2 :]
    reach = math.sqrt(LIMIT / 4) / float(costly.norm())  # of the way to the top
    optimum = -scale * float(((1 - reach) * costly).square().sum())
    start = -scale * float(distance.square().sum())
    assert (result.best.score - start) / (optimum - start) > 0.9


def test_the_target_alone_does_not_end_the_search() -> None:
    target = -0.6 * float((TOP - 0.5).square().sum())
    result = search(240, target_score=target)
    reached = [trial for trial in result.trials if trial.score >= target]
    assert reached[0].index < reached[-1].index == result.trials[-1].index < 79
    # The mean of two trials decides whether all contexts are read, so one that is within may be passed over.
    assert min(map(kl_of, reached[:-1])) > 0.7 * LIMIT
    assert result.best == reached[-1]
    assert result.choice.kl == kl_of(result.best) <= LIMIT


def test_the_identity_remains_if_nothing_else_is_within() -> None:
    result = search(30, limit=Forbidding())
    assert (result.best.index, result.choice.kl) == (0, 0.0)


def test_a_divergence_that_is_not_finite_fails_the_trial() -> None:
    result = search(9, limit=Broken())
    assert math.isnan(result.trials[1].score) and result.trials[1].kl is None
    assert result.best.index == 0


@given(st.integers(1, 12))
@settings(max_examples=5)
def test_a_resumed_search_makes_the_same_trials(tmp_path_factory: pytest.TempPathFactory, kill: int) -> None:
    path: Path = tmp_path_factory.mktemp("log") / "trials.jsonl"
    search(3 * kill, log=TrialLog.open(path, {}, resume=False))
    resumed = search(45, log=TrialLog.open(path, {}, resume=True))
    expected = search(45)
    assert comparable(resumed.trials) == comparable(expected.trials)
    assert [trial.kl for trial in resumed.trials] == [trial.kl for trial in expected.trials]
    assert [trial.gradient for trial in resumed.trials] == [trial.gradient for trial in expected.trials]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.floats(1e-4, 1))
def test_multiplier_is_never_negative_and_rises_with_the_last_divergence(kls: list[float], limit: float) -> None:
    value = multiplier(kls, limit)
    assert 0 <= value <= multiplier([*kls[:-1], kls[-1] + limit], limit)
    assert multiplier([*kls, *[2 * limit] * 100], limit) > 5
    assert multiplier([*kls, *[0.0] * 300], limit) == 0


@given(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6))
def test_direction_does_not_depend_on_scales(a: float, b: float) -> None:
    g, h = torch.tensor([1.0, 2.0], dtype=torch.float64), torch.tensor([0.5, -1.0], dtype=torch.float64)
    assert torch.allclose(limited_direction(a * g, b * h, 0.7), limited_direction(g, h, 0.7))
    assert torch.equal(limited_direction(g, 0 * h, 0.7), g / g.norm())


def test_chooses_the_best_trial_within_the_limit() -> None:
    result = search(60)
    assert result.best.score == max(trial.score for trial in result.trials if kl_of(trial) <= LIMIT)
    assert result.best.score < max(trial.score for trial in result.trials)


def test_the_best_trial_is_kept_whole_where_only_its_parts_were_above_the_limit() -> None:
    """Each trial reads a part of the contexts, and parts differ: all of them decide."""

    class Even(Limit):
        def kl(self, x: torch.Tensor, stop_above: float = math.inf) -> float:
            return 0.019 * float((x - 0.5).abs().max() / 0.2) ** 2

    values = [(0.5, -4.0, 0.0), (0.6, -2.0, 0.022), (0.7, -1.0, 0.0225)]
    trials = [Trial(i, (x,), score, "gradient", 0.0, 0.1, kl=kl) for i, (x, score, kl) in enumerate(values)]
    choice = choose_trial(trials, Even(0.02), lambda x: -1.0)
    assert choice.trial is trials[2] and choice.strength == 1 and choice.kl == pytest.approx(0.019)


@given(st.integers(1, 60), st.floats(0.05, 1))
@settings(max_examples=15)
def test_the_best_trial_is_shrunk_to_the_limit_where_that_scores_higher(budget: int, share: float) -> None:
    tighter = Limit(share * LIMIT)
    trials = search(3 * budget).trials  # held below a wider limit
    unshrunk = choose_trial(trials, tighter)
    assert unshrunk.strength == 1 and unshrunk.trial in trials
    choice = choose_trial(trials, tighter, lambda x: score(x)[0])
    x = torch.tensor(choice.trial.x, dtype=torch.float64)
    assert choice.trial.score >= unshrunk.trial.score
    assert choice.kl == kl_of(choice.trial) <= tighter.max_kl or choice.trial.index == 0
    if choice.strength < 1:
        whole = trials[choice.trial.index]
        assert whole.score == max(trial.score for trial in trials)
        torch.testing.assert_close(x - 0.5, choice.strength * (torch.tensor(whole.x, dtype=torch.float64) - 0.5))
        assert choice.trial.score == score(x)[0] > unshrunk.trial.score


def test_a_small_budget_still_edits() -> None:
    """After a few steps every trial but the first is above the limit."""
    result = search(15, limit=Limit(1e-3))
    assert 0 < result.choice.kl <= 1e-3
    assert result.choice.strength < 1
    assert result.best.score > result.identity.score
