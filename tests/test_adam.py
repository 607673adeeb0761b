"""Adam: the steps of torch's optimiser, failed trials, and resumption."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from landscapes import comparable, never_called, with_gradient
from torch import Tensor

from tarot.search.algorithms.adam import EPSILON, HALVING, MOMENTUM, RATE, SQUARES, _step
from tarot.search.loop import run_search
from tarot.search.trials import TrialLog

steady = settings(deadline=None, derandomize=True)


@steady
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.integers(1, 12))
def test_agrees_with_torch(top: list[float], steps: int) -> None:
    def f(x: Tensor) -> Tensor:
        return -((x - torch.tensor(top, dtype=torch.float64)) ** 4).sum()

    result = run_search(
        never_called, len(top), search="adam", budget=3 * steps, seed=0, value_and_grad=with_gradient(f)
    )
    x = torch.full((len(top),), 0.5, dtype=torch.float64, requires_grad=True)
    oracle = torch.optim.Adam([x], lr=RATE, eps=EPSILON, maximize=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(oracle, lambda n: 1 / (1 + n / HALVING))
    for trial in result.trials:
        torch.testing.assert_close(torch.tensor(trial.x, dtype=torch.float64), x.detach(), atol=1e-9, rtol=0)
        assert trial.score == pytest.approx(float(f(x.detach())), abs=1e-9)
        oracle.zero_grad()
        f(x).backward()
        oracle.step()
        schedule.step()
        with torch.no_grad():
            x.clamp_(0, 1)
    assert (len(result.trials), result.spent) == (steps, 3 * steps)


@steady
@given(st.lists(st.lists(st.floats(-1, 1), min_size=3, max_size=3), min_size=1, max_size=5))
def test_one_scale_keeps_the_direction_of_the_moving_mean(gradients: list[list[float]]) -> None:
    """The step has the length that Adam's would have if all coordinates were alike, and none of its distortion."""
    g = torch.tensor(gradients, dtype=torch.float64)
    assume(float(g.abs().max()) > 1e-3)
    ages = torch.arange(len(g) - 1, -1, -1, dtype=torch.float64)
    momentum, squares = (decay**ages / (decay**ages).sum() for decay in (MOMENTUM, SQUARES))
    root_mean_square = float((squares @ g.square()).mean().sqrt())
    torch.testing.assert_close(_step(gradients, one_scale=True), momentum @ g / root_mean_square, rtol=1e-6, atol=1e-9)


def test_beats_a_surrogate_of_the_same_budget_in_many_dimensions() -> None:
    def f(x: Tensor) -> Tensor:
        return torch.nn.functional.logsigmoid(8 * (2 * x - 1).mean() - 2)

    adam = run_search(never_called, 400, search="adam", budget=24, seed=0, value_and_grad=with_gradient(f))
    bo = run_search(lambda x: float(f(x)), 400, search="bo", budget=24, seed=0)
    assert adam.best.score > bo.best.score + 0.5


@pytest.mark.parametrize("failure", [(math.nan, 1.0), (1.0, math.nan), (math.inf, 1.0), (1.0, -math.inf)])
def test_a_failed_trial_is_followed_by_half_a_step(failure: tuple[float, float]) -> None:
    """The next step starts at the midpoint, and failed trials do not contribute to the means."""

    def value_and_grad(x: Tensor) -> tuple[float, Tensor]:
        score, gradient = (1.0, 1.0) if x < 0.52 else failure
        return score, torch.tensor([gradient], dtype=torch.float64)

    trials = run_search(never_called, 1, search="adam", budget=12, seed=0, value_and_grad=value_and_grad).trials
    first, failed, midpoint, following = (t.x[0] for t in trials)
    assert failed == pytest.approx(first + RATE) and math.isnan(trials[1].score) and trials[1].gradient == ()
    assert midpoint == pytest.approx((first + failed) / 2) and trials[2].score == 1.0
    assert following > midpoint


def test_a_failed_identity_ends_the_search(tmp_path: Path) -> None:
    """Without a first gradient there is no direction; a resumed search does not evaluate the identity again."""

    def value_and_grad(x: Tensor) -> tuple[float, Tensor]:
        return 1.0, torch.full((2,), math.nan, dtype=torch.float64)

    for resume in (False, True):
        log = TrialLog.open(tmp_path / "trials.jsonl", {}, resume=resume)
        result = run_search(never_called, 2, search="adam", budget=9, seed=0, value_and_grad=value_and_grad, log=log)
        assert [t.x for t in result.trials] == [(0.5, 0.5)] and result.best is result.identity


@pytest.mark.parametrize("kill", [1, 2, 5])
def test_resumed_equals_uninterrupted(tmp_path: Path, kill: int) -> None:
    value_and_grad = with_gradient(lambda x: -((x - 0.3) ** 2).sum())
    uninterrupted = run_search(never_called, 3, search="adam", budget=18, seed=0, value_and_grad=value_and_grad)
    log = TrialLog.open(tmp_path / "trials.jsonl", {}, resume=False)
    for trial in uninterrupted.trials[:kill]:
        log.append(trial)
    log = TrialLog.open(tmp_path / "trials.jsonl", {}, resume=True)
    resumed = run_search(never_called, 3, search="adam", budget=18, seed=0, value_and_grad=value_and_grad, log=log)
    assert comparable(resumed.trials) == comparable(uninterrupted.trials)
    assert resumed.trials[:kill] == uninterrupted.trials[:kill]
