"""Maximising plain functions: direction, resumption, the log, and what may go wrong on the way."""

import errno
import itertools
import json
import math
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from statistics import mean, median

import pytest
import torch
from botorch.models.kernels import InfiniteWidthBNNKernel
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tarot.errors import TarotError, UnknownName
from tarot.search import SEARCHES, Trial, TrialLog, run_search
from tarot.search.acquisition import make_gaussian_process
from tarot.search.adam import EPSILON, HALVING, RATE
from tarot.search.paper import TrialSpan

Objective = Callable[[Tensor], float]
steady = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])


def what(trials: Sequence[Trial]) -> list[tuple]:
    """All of the trials but the seconds; nan as None, so that equal runs compare equal."""
    return [(t.index, t.x, None if math.isnan(t.score) else t.score, t.origin) for t in trials]


def hill(top: float, d: int = 4) -> Objective:
    """-|x - top|^2"""
    return lambda x: -float((x - top).square().sum())


# Direction


@pytest.mark.parametrize(
    ("search", "top", "budget"),
    [
        ("random", 0.1, 60),
        ("random", 0.8, 60),
        ("bo", 0.1, 15),
        ("bo", 0.8, 15),
        ("paper", 0.1, 11),
        ("paper", 0.8, 11),
    ],
)
def test_goes_uphill(search: str, top: float, budget: int):
    """The best beats the identity; where a surrogate proposes, its points beat uniform ones by far, on average."""
    f = hill(top)
    result = run_search(f, 4, search=search, budget=budget, seed=0)
    assert result.identity.score == f(torch.full((4,), 0.5, dtype=torch.float64))
    assert result.best.score > result.identity.score / 2
    assert result.best.score == max(t.score for t in result.trials)
    if search != "random":
        proposed = [t.score for t in result.trials if t.origin == "acquisition"]
        uniform = [f(torch.rand(4, generator=torch.Generator().manual_seed(i))) for i in range(100)]
        assert len(proposed) >= 6
        assert mean(proposed) > mean(uniform)
        assert median(proposed) > mean(uniform) / 2


def test_finds_the_maximum_of_branin():
    """Three maxima of -0.3979."""
    from botorch.test_functions import Branin

    branin = Branin(negate=True)
    low, high = branin.bounds.double()
    result = run_search(lambda x: float(branin(low + (high - low) * x)), 2, budget=25, seed=0)
    assert result.best.score > -0.6


def test_finds_the_hartmann_valley():
    """Six dimensions, one maximum of 3.3224; uniform points have 0.26 on average."""
    from botorch.test_functions import Hartmann

    hartmann = Hartmann(negate=True)
    assert run_search(lambda x: float(hartmann(x)), 6, budget=30, seed=0).best.score > 2.5


def saturating(d: int, seed: int) -> Objective:
    """log sigmoid(a.u - damage |u|^2 - 2): few strong coordinates among many, most points worse than the centre."""
    generator = torch.Generator().manual_seed(seed)
    strength = torch.randn(2, d, generator=generator, dtype=torch.float64)
    a = strength[0] * strength[1].exp()
    a = 2.5 * a / a.norm()

    def f(x: Tensor) -> float:
        u = 2 * x - 1
        return float(torch.nn.functional.logsigmoid(a @ u - 12 / d * u.square().sum() - 2))

    return f


def test_bo_beats_random_where_most_coordinates_hardly_matter():
    f = saturating(40, seed=0)
    bo, random = (run_search(f, 40, search=search, budget=25, seed=0).best.score for search in ("bo", "random"))
    assert bo > random + 0.5


# Proposals

# Budgets that end a few trials after the initial design.
SHORT = [("random", 16), ("bo", 12), ("paper", 7)]


@pytest.mark.parametrize(("search", "budget"), SHORT)
def test_starts_at_the_identity_and_stays_in_the_cube(search: str, budget: int):
    result = run_search(lambda x: float(x.sum()), 3, search=search, budget=budget, seed=5)
    assert result.trials[0].x == (0.5, 0.5, 0.5) and result.trials[0].origin == "identity"
    assert all(0 <= coordinate <= 1 for t in result.trials for coordinate in t.x)
    assert [t.index for t in result.trials] == list(range(budget))


@pytest.mark.parametrize(("search", "budget"), SHORT)
def test_proposal_follows_from_the_history_alone(search: str, budget: int):
    """Not from what the search was asked before, nor from torch's generator."""
    result = run_search(hill(0.3), 3, search=search, budget=budget, seed=1)
    strategy = SEARCHES[search](3, 1)
    for k in (budget - 1, 3, 0, budget - 2):
        torch.manual_seed(k)
        x, origin = strategy.propose(result.trials[:k])
        assert (tuple(x.tolist()), origin) == (result.trials[k].x, result.trials[k].origin)


@pytest.mark.parametrize("search", ["bo", "paper", "random"])
def test_seeds_differ(search: str):
    first, second = (run_search(hill(0.3), 3, search=search, budget=3, seed=seed).trials[1:] for seed in (0, 1))
    assert {t.x for t in first}.isdisjoint(t.x for t in second)


@pytest.mark.parametrize(("search", "budget"), SHORT)
def test_leaves_the_generator_alone(search: str, budget: int):
    torch.manual_seed(17)
    before = torch.get_rng_state()
    run_search(hill(0.3), 2, search=search, budget=budget, seed=0)
    assert torch.equal(torch.get_rng_state(), before)


# Batches


@pytest.mark.parametrize(("search", "batch"), [("random", 4), ("bo", 2), ("bo", 3), ("bo", 8)])
def test_a_batch_is_proposed_before_its_scores_are_known(search: str, batch: int):
    """Other scores change nothing in the batch that gets them, and the next one of a search that looks at scores."""
    first = batch * math.ceil(6 / batch)  # trial of a batch behind the initial design

    def searched(sign: int) -> list[tuple[float, ...]]:
        sizes: list[int] = []
        done = count()

        def evaluate(points: Sequence[Tensor]) -> Iterator[float]:
            sizes.append(len(points))
            return (hill(0.3)(x) * (sign if next(done) >= first else 1) for x in points)

        budget = first + 2 * batch - 1
        result = run_search(hill(0.3), 3, search=search, budget=budget, seed=2, batch=batch, evaluate=evaluate)
        assert sum(sizes) == len({trial.x for trial in result.trials}) == budget
        assert set(sizes[:-1]) == {batch} and sizes[-1] == batch - 1
        return [trial.x for trial in result.trials]

    found = [searched(1), searched(-1)]
    assert found[0][: first + batch] == found[1][: first + batch]
    assert (found[0][first + batch] != found[1][first + batch]) == (search == "bo")


@pytest.mark.parametrize("search", ["random", "bo"])
@given(batch=st.integers(2, 5), kill=st.integers(1, 13))
@settings(steady, max_examples=6)
def test_killed_in_a_batch_and_resumed_equals_uninterrupted(
    search: str, tmp_path_factory: pytest.TempPathFactory, batch: int, kill: int
):
    """Whatever of it was on the disk is not evaluated again; so too where a score of the batch was enough."""
    kind = {"search": search, "seed": 3, "batch": batch, "enough": -0.02}
    whole = run_search(hill(0.45), 3, budget=14, **kind).trials
    path = tmp_path_factory.mktemp("batch") / "trials.jsonl"
    run_search(hill(0.45), 3, budget=kill, **kind, log=TrialLog.open(path, {}, resume=False))
    evaluated: list[Tensor] = []

    def evaluate(points: Sequence[Tensor]) -> Iterator[float]:
        evaluated.extend(points)
        return map(hill(0.45), points)

    log = TrialLog.open(path, {}, resume=True)
    result = run_search(hill(0.45), 3, budget=14, **kind, evaluate=evaluate, log=log)
    assert what(result.trials) == what(whole)
    assert len(evaluated) == len(whole) - min(kill, len(whole)) == len(whole) - result.resumed


def test_a_batch_climbs_as_its_points_one_by_one_do():
    """Within a few evaluations: points of a batch know nothing of each other's scores."""
    f = saturating(40, seed=0)
    ones, fours, random = (
        run_search(f, 40, search=search, budget=32, seed=0, batch=batch).best.score
        for search, batch in (("bo", 1), ("bo", 4), ("random", 1))
    )
    assert fours > random + 0.5 * (ones - random)


@pytest.mark.parametrize("search", ["adam", "paper", "published"])
def test_searches_that_want_every_score_refuse_batches(search: str):
    with pytest.raises(TarotError, match=rf"expected a search that proposes in batches: bo, random, got '{search}'"):
        run_search(hill(0.3), 3, search=search, budget=30, seed=0, batch=2, value_and_grad=lambda x: (0.0, x))
    with pytest.raises(TarotError, match="expected at least 1 candidate in a batch, got 0"):
        run_search(hill(0.3), 3, search=search, budget=30, seed=0, batch=0)


# The edges of proposals


def test_sobol_gives_way_to_uniform_draws_beyond_its_dimensions():
    result = run_search(lambda x: 0.0, 30_000, budget=3, seed=0)
    assert 0.49 < mean(result.trials[2].x) < 0.51


# Gradients


def sloped(f: Callable[[Tensor], Tensor]) -> Callable[[Tensor], tuple[float, Tensor]]:
    """A score and its gradient from a differentiable one."""

    def value_and_grad(x: Tensor) -> tuple[float, Tensor]:
        value = f(point := x.clone().requires_grad_())
        return float(value.detach()), torch.autograd.grad(value, point)[0]

    return value_and_grad


def never(x: Tensor) -> float:
    raise AssertionError("a search that follows gradients evaluates nothing else")


@steady
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.integers(1, 12))
def test_adam_goes_where_torch_goes(top: list[float], steps: int):
    def f(x):
        return -((x - torch.tensor(top, dtype=torch.float64)) ** 4).sum()

    result = run_search(never, len(top), search="adam", budget=3 * steps, seed=0, value_and_grad=sloped(f))
    x = torch.full((len(top),), 0.5, dtype=torch.float64, requires_grad=True)
    oracle = torch.optim.Adam([x], lr=RATE, eps=EPSILON, maximize=True)
    falling = torch.optim.lr_scheduler.LambdaLR(oracle, lambda n: 1 / (1 + n / HALVING))
    for trial in result.trials:
        torch.testing.assert_close(torch.tensor(trial.x, dtype=torch.float64), x.detach(), atol=1e-9, rtol=0)
        assert trial.score == pytest.approx(float(f(x.detach())), abs=1e-9)
        oracle.zero_grad()
        f(x).backward()
        oracle.step()
        falling.step()
        with torch.no_grad():
            x.clamp_(0, 1)
    assert (len(result.trials), result.spent) == (steps, 3 * steps)


def test_adam_climbs_what_a_surrogate_of_as_many_evaluations_cannot():
    def f(x):
        return torch.nn.functional.logsigmoid(8 * (2 * x - 1).mean() - 2)

    adam = run_search(never, 400, search="adam", budget=24, seed=0, value_and_grad=sloped(f)).best.score
    bo = run_search(lambda x: float(f(x)), 400, search="bo", budget=24, seed=0).best.score
    assert adam > bo + 0.5


@pytest.mark.parametrize(("budget", "trials"), [(3, 1), (5, 1), (6, 2), (8, 2), (9, 3)])
def test_a_gradient_counts_for_three_evaluations(budget: int, trials: int):
    result = run_search(never, 2, search="adam", budget=budget, seed=0, value_and_grad=sloped(lambda x: x.sum()))
    assert (len(result.trials), result.spent) == (trials, 3 * trials)


@pytest.mark.parametrize("bad", [(math.nan, 1.0), (1.0, math.nan), (math.inf, 1.0), (1.0, -math.inf)])
def test_half_a_step_back_from_what_failed(bad: tuple[float, float]):
    """And again from there, until it is sound; the failed points count for nothing."""

    def value_and_grad(x: Tensor) -> tuple[float, Tensor]:
        score, gradient = (1.0, 1.0) if x < 0.52 else bad
        return score, torch.tensor([gradient], dtype=torch.float64)

    trials = run_search(never, 1, search="adam", budget=12, seed=0, value_and_grad=value_and_grad).trials
    first, failed, half, on = (t.x[0] for t in trials)
    assert failed == pytest.approx(first + RATE) and math.isnan(trials[1].score) and trials[1].gradient == ()
    assert half == pytest.approx((first + failed) / 2) and trials[2].score == 1.0
    assert on > half


def test_an_identity_that_failed_ends_the_search(tmp_path: Path):
    """There is nowhere to go from it, and to try it again would give the same, a step of the model each time."""

    def value_and_grad(x):
        return 1.0, torch.full((2,), math.nan, dtype=torch.float64)

    for resume in (False, True):
        log = TrialLog.open(tmp_path / "trials.jsonl", SETTINGS, resume=resume)
        result = run_search(never, 2, search="adam", budget=9, seed=0, value_and_grad=value_and_grad, log=log)
        assert [t.x for t in result.trials] == [(0.5, 0.5)] and result.best is result.identity


@pytest.mark.parametrize("kill", [1, 2, 5])
def test_adam_resumes_as_if_never_interrupted(tmp_path: Path, kill: int):
    value_and_grad = sloped(lambda x: -((x - 0.3) ** 2).sum())
    whole = run_search(never, 3, search="adam", budget=18, seed=0, value_and_grad=value_and_grad)
    log = TrialLog.open(tmp_path / "trials.jsonl", SETTINGS, resume=False)
    for trial in whole.trials[:kill]:
        log.append(trial)
    log = TrialLog.open(tmp_path / "trials.jsonl", SETTINGS, resume=True)
    resumed = run_search(never, 3, search="adam", budget=18, seed=0, value_and_grad=value_and_grad, log=log)
    assert what(resumed.trials) == what(whole.trials) and resumed.resumed == kill


@steady
@given(st.floats(-1, 0), st.sampled_from(["adam", "random"]))
def test_ends_with_the_trial_that_scores_enough(target_score: float, search: str):
    """The trials are the first of those that a search without an end makes; a log that holds enough is the result."""
    f = lambda x: -((x - 0.8) ** 2).sum()  # noqa: E731  # a def would be three times as long
    given = {"search": search, "budget": 60, "seed": 0, "slope": sloped(f)}
    whole = run_search(lambda x: float(f(x)), 2, **given).trials
    reached = next((i for i, trial in enumerate(whole) if trial.score >= target_score), len(whole) - 1)
    ended = run_search(lambda x: float(f(x)), 2, **given, target_score=target_score)
    assert what(ended.trials) == what(whole[: reached + 1])
    assert ended.spent == (3 if search == "adam" else 1) * (reached + 1) and not ended.interrupted


def test_no_gradient_to_follow_is_an_error():
    with pytest.raises(TarotError) as error:
        run_search(hill(0.3), 2, search="adam", budget=9, seed=0)
    assert str(error.value) == (
        "expected a gradient for the search 'adam', got none; try the search 'bo' in the space 'head'"
    )


# Numbers that no surrogate can learn from


scores = st.floats(allow_nan=True, allow_infinity=True)


@pytest.mark.parametrize(("search", "examples"), [("random", 50), ("bo", 15), ("paper", 2)])
def test_no_score_kills_a_run(search: str, examples: int):
    @settings(steady, max_examples=examples)
    @given(st.lists(scores, min_size=8, max_size=8))
    def run(values: list[float]) -> None:
        queue = iter(values)
        result = run_search(lambda x: next(queue), 2, search=search, budget=8, seed=0)
        assert [t.score for t in result.trials if not math.isnan(t.score)] == list(filter(math.isfinite, values))
        finite = [value for value in values if math.isfinite(value)]
        assert result.best.score == max(finite) if finite else result.best is result.identity

    run()


def test_published_goes_downhill_and_paper_uphill():
    """Where one minute's search can tell: a slope in one dimension, and where each spends its proposals."""
    where = {}
    for search in ("paper", "published"):
        trials = run_search(lambda x: float(x[0]), 1, search=search, budget=9, seed=0).trials
        where[search] = mean(trial.x[0] for trial in trials[5:])
    assert where["published"] < 0.3 < 0.7 < where["paper"]


@steady
@given(n=st.integers(2, 6), d=st.integers(1, 9), seed=st.integers(0, 2**32))
def test_the_span_of_the_trials_is_all_that_the_papers_process_sees(n: int, d: int, seed: int):
    """Mean and variance of any point, its own trials too, are those in all coordinates, and so are their slopes."""
    generator = torch.Generator().manual_seed(seed)
    X, Y, x = (torch.rand(size, generator=generator, dtype=torch.float64) for size in ((n, d), (n, 1), (3, d)))
    said = []
    for input_transform in (None, TrialSpan(X)):
        model = make_gaussian_process(X, Y, InfiniteWidthBNNKernel(depth=3), input_transform=input_transform).eval()
        points = torch.cat([x, X]).requires_grad_()
        posterior = model.posterior(points)
        told = torch.cat([posterior.mean, posterior.variance])
        (slopes,) = torch.autograd.grad(told.sum(), points)
        said.append((told.detach(), slopes[:3]))
    torch.testing.assert_close(said[0], said[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("search", ["bo", "paper"])
def test_equal_scores_fall_back_to_uniform_draws(search: str):
    result = run_search(lambda x: 1.0, 2, search=search, budget=9, seed=0)
    assert {t.origin for t in result.trials[6:]} == {"random"}
    assert len({t.x for t in result.trials}) == 9
    assert result.best is result.identity


def test_failed_trials_are_not_proposed_again():
    """Half of the cube fails; the search learns to leave it and climbs."""
    result = run_search(lambda x: math.nan if x[0] > 0.6 else hill(0.3)(x), 3, budget=18, seed=0)
    failed = [t for t in result.trials if math.isnan(t.score)]
    assert len(failed) == len({t.x for t in failed}) > 0
    assert result.best.score > result.identity.score / 5


# Ends


def test_keyboard_interrupt_keeps_the_best_so_far(tmp_path: Path):
    def f(x: Tensor) -> float:
        if len(log.trials) == 5:
            raise KeyboardInterrupt
        return float(x[0])

    log = TrialLog.open(tmp_path / "trials.jsonl", {}, resume=False)
    result = run_search(f, 2, search="random", budget=9, seed=0, log=log)
    assert result.interrupted and len(result.trials) == 5
    assert result.best.score == max(t.score for t in result.trials)
    resumed = TrialLog.open(log.path, {}, resume=True)
    finished = run_search(lambda x: float(x[0]), 2, search="random", budget=9, seed=0, log=resumed)
    assert not finished.interrupted and finished.resumed == 5
    assert what(finished.trials) == what(run_search(lambda x: float(x[0]), 2, search="random", budget=9, seed=0).trials)


def test_keyboard_interrupt_while_proposing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tarot.search.random.uniform", interrupt)
    result = run_search(hill(0.3), 2, search="random", budget=9, seed=0)
    assert result.interrupted and len(result.trials) == 1


def interrupt(*args: object) -> None:
    raise KeyboardInterrupt


def test_keyboard_interrupt_before_there_is_a_trial_is_passed_on():
    with pytest.raises(KeyboardInterrupt):
        run_search(interrupt, 2, search="random", budget=9, seed=0)


def test_errors_of_the_objective_propagate_and_the_log_stays_whole(tmp_path: Path):
    def f(x: Tensor) -> float:
        if len(log.trials) == 3:
            raise ZeroDivisionError
        return 0.0

    log = TrialLog.open(tmp_path / "trials.jsonl", {}, resume=False)
    with pytest.raises(ZeroDivisionError):
        run_search(f, 2, search="random", budget=9, seed=0, log=log)
    assert len(TrialLog.read(log.path).trials) == 3


def test_tells_of_each_trial_and_the_result_so_far():
    seen = []
    result = run_search(
        hill(0.3),
        2,
        search="random",
        budget=4,
        seed=0,
        on_trial=lambda trial, so_far: seen.append((trial, so_far.best, so_far.identity, len(so_far.trials))),
    )
    assert [trial for trial, *_ in seen] == list(result.trials)
    assert [count for *_, count in seen] == [1, 2, 3, 4]
    assert seen[-1][1] == result.best and seen[-1][2] == result.identity


def test_the_first_of_equals_is_the_best():
    assert run_search(lambda x: 2.0, 2, search="random", budget=4, seed=0).best.index == 0


def test_times_are_those_of_the_parts(monkeypatch: pytest.MonkeyPatch):
    now = itertools.count()
    monkeypatch.setattr(sys.modules["tarot.search.loop"], "perf_counter", lambda: float(next(now)))
    result = run_search(lambda x: 100 * float(next(now) > 0), 2, search="random", budget=2, seed=0)
    assert [t.evaluate_seconds for t in result.trials] == [2.0, 2.0]  # one reading within, one at the end
    assert {t.propose_seconds for t in result.trials} <= {0.0, 1.0}


@pytest.mark.parametrize("budget", [0, -3])
def test_budget_must_be_positive(budget: int):
    with pytest.raises(
        TarotError, match=f"^expected a budget of at least 1, what one trial of 'bo' counts for, got {budget}$"
    ):
        run_search(hill(0.3), 2, budget=budget, seed=0)


def test_unknown_search_offers_the_nearest():
    with pytest.raises(UnknownName, match=r"got 'papier'; did you mean 'paper'\?"):
        run_search(hill(0.3), 2, search="papier", budget=3, seed=0)


# Resuming


SETTINGS = {"seed": 3, "search": "random", "layers": [0, 1]}


def run(path: Path, budget: int, search: str = "random", d: int = 3) -> list[tuple]:
    """All trials of a run that begins at `path`, or goes on there."""
    log = TrialLog.open(path, SETTINGS | {"search": search}, resume=True)

    def f(x):
        return math.nan if x[0] > 0.9 else hill(0.3)(x)

    result = run_search(f, d, search=search, budget=budget, seed=3, log=log)
    assert what(TrialLog.read(path).trials) == what(result.trials)
    return what(result.trials)


@steady
@given(st.floats(0, 1, exclude_max=True))
def test_killed_at_any_byte_and_resumed_equals_uninterrupted(tmp_path: Path, share: float):
    path = tmp_path / "trials.jsonl"
    path.unlink(missing_ok=True)
    whole = run(path, budget=8)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert run(path, budget=8) == whole


@pytest.mark.parametrize(("search", "kills"), [("bo", [1, 6, 7, 12]), ("paper", [2, 5])])
def test_surrogates_resume_as_if_never_interrupted(tmp_path: Path, search: str, kills: list[int]):
    """The hyperparameters of a resumed run are those of the run it continues."""
    budget = max(kills) + 2
    whole = run(tmp_path / "whole.jsonl", budget, search)
    lines = (tmp_path / "whole.jsonl").read_bytes().splitlines(keepends=True)
    for kill in kills:
        path = tmp_path / f"{kill}.jsonl"
        path.write_bytes(b"".join(lines[: 1 + kill]) + lines[1 + kill][:20])
        assert run(path, budget, search) == whole


KILLED_RUN = """
import os, signal, sys
from tarot.search import TrialLog, maximise
log = TrialLog.open(sys.argv[1], {}, resume=False)

def score(x):
    if len(log.trials) == 12:
        os.kill(os.getpid(), signal.SIGKILL)
    return -float(x.square().sum())

maximise(score, 3, budget=1000, seed=0, log=log)
"""


def test_killed_by_the_system_and_resumed_equals_uninterrupted(tmp_path: Path):
    path = tmp_path / "trials.jsonl"
    killed = subprocess.run([sys.executable, "-c", KILLED_RUN, str(path)])
    assert killed.returncode == -signal.SIGKILL
    log = TrialLog.open(path, {}, resume=True)
    assert len(log.trials) == 12
    budget = len(log.trials) + 3

    def f(x):
        return -float(x.square().sum())

    resumed = run_search(f, 3, budget=budget, seed=0, log=log)
    assert resumed.resumed == budget - 3
    assert what(resumed.trials) == what(run_search(f, 3, budget=budget, seed=0).trials)


def test_larger_budget_continues_where_the_smaller_ended(tmp_path: Path):
    short = run(tmp_path / "a.jsonl", budget=12, search="bo")
    assert run(tmp_path / "a.jsonl", budget=15, search="bo") == run(tmp_path / "b.jsonl", budget=15, search="bo")
    assert short == run(tmp_path / "c.jsonl", budget=12, search="bo")


def test_a_log_that_has_spent_the_budget_is_the_result(tmp_path: Path):
    whole = run(tmp_path / "trials.jsonl", budget=4)
    assert run(tmp_path / "trials.jsonl", budget=4) == whole
    assert run(tmp_path / "trials.jsonl", budget=2) == whole


def test_log_of_another_dimension_is_an_error(tmp_path: Path):
    run(tmp_path / "trials.jsonl", budget=2, d=3)
    with pytest.raises(
        TarotError, match=r"^expected trials of 4 coordinates, got 3 in the log; choose another folder$"
    ):
        run(tmp_path / "trials.jsonl", budget=4, d=4)


# The log


fields = st.fixed_dictionaries(
    {
        "x": st.lists(st.floats(0, 1), min_size=1, max_size=4).map(tuple),
        "score": st.floats(allow_infinity=False),
        "origin": st.sampled_from(["identity", "sobol", "random", "acquisition"]),
        "propose_seconds": st.floats(0, 1e6),
        "evaluate_seconds": st.floats(0, 1e6),
        "gradient": st.lists(st.floats(-1e9, 1e9), max_size=4).map(tuple),
    }
)


@steady
@given(st.lists(fields, max_size=4))
def test_trials_come_back_exactly(tmp_path: Path, rows: list[dict]):
    path = tmp_path / "trials.jsonl"
    path.unlink(missing_ok=True)
    log = TrialLog.open(path, SETTINGS, resume=False)
    made = [Trial(index=index, **row) for index, row in enumerate(rows)]
    for trial in made:
        log.append(trial)
    for again in (log, TrialLog.read(path), TrialLog.open(path, SETTINGS, resume=True)):
        assert what(again.trials) == what(made)
        assert [t.propose_seconds for t in again.trials] == [t.propose_seconds for t in made]
        assert [t.gradient for t in again.trials] == [t.gradient for t in made]
    assert TrialLog.read(path).settings == SETTINGS


def test_form_of_the_file(tmp_path: Path):
    log = TrialLog.open(tmp_path / "trials.jsonl", {"task": "näve"}, resume=False)
    log.append(Trial(0, (0.5, 0.1), math.nan, "identity", 0.25, 1.5))
    settings_line, trial_line = log.path.read_text().splitlines()
    assert json.loads(settings_line) == {"format": 1, "settings": {"task": "näve"}}
    assert json.loads(trial_line) == {
        "index": 0,
        "x": [0.5, 0.1],
        "score": None,
        "origin": "identity",
        "propose_seconds": 0.25,
        "evaluate_seconds": 1.5,
    }


def test_every_trial_is_synced_before_the_next_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    log = TrialLog.open(tmp_path / "trials.jsonl", {}, resume=False)

    def f(x: Tensor) -> float:
        assert synced[-1] == log.path.stat().st_size and len(synced) == len(log.trials) + 1
        return 0.0

    run_search(f, 2, search="random", budget=4, seed=0, log=log)
    assert len(synced) == 5


def test_reading_does_not_touch_a_line_that_is_being_written(tmp_path: Path):
    path = tmp_path / "trials.jsonl"
    run(path, budget=3)
    torn = path.read_bytes()[:-5]
    path.write_bytes(torn)
    assert len(TrialLog.read(path).trials) == 2
    assert path.read_bytes() == torn


def broken(path: Path, line: int, text: str) -> None:
    lines = path.read_text().splitlines()
    lines[line - 1] = text
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("line", "text", "message"),
    [
        (1, "no", "expected the settings of a search in line 1 of {path}, got Expecting value"),
        (1, "[]", "expected the settings of a search in line 1 of {path}, got the file: "),
        (1, '{"format": true, "settings": {}}', "expected the settings of a search in line 1 of {path}, got format: "),
        (1, '{"format": 1e999}', "expected the settings of a search in line 1 of {path}, got the number inf"),
        (
            1,
            '{"format": 2, "settings": {}}',
            "expected a trial log of format 1 or older, got format 2 in {path}; use a newer tarot",
        ),
        (2, '{"index"', "expected trial 0 in line 2 of {path}, got Expecting ':' delimiter"),
        (3, "", "expected trial 1 in line 3 of {path}, got Expecting value"),
        (4, "{}", "expected trial 2 in line 4 of {path}, got index: Field required"),
        (4, "null", "expected trial 2 in line 4 of {path}, got the file: "),
    ],
)
def test_broken_lines_are_named(tmp_path: Path, line: int, text: str, message: str):
    path = tmp_path / "trials.jsonl"
    run(path, budget=3)
    broken(path, line, text)
    before = path.read_bytes()
    with pytest.raises(TarotError) as caught:
        TrialLog.open(path, SETTINGS, resume=True)
    assert str(caught.value).startswith(message.format(path=path))
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("index", 7),
        ("index", True),
        ("x", [1]),
        ("x", ["a", "b"]),
        ("x", [0.5, 10**400]),
        ("x", [0.5, 1.5]),
        ("score", "a"),
        ("score", 1e300),
        ("score", float("inf")),
        ("origin", "dream"),
        ("gradient", [0.5]),
        ("evaluate_seconds", None),
        ("unknown", 1),
    ],
)
def test_a_field_of_a_trial_that_is_wrong_is_named(tmp_path: Path, field: str, value: object) -> None:
    path = tmp_path / "trials.jsonl"
    trials = [Trial(i, (0.5, 0.25), 0.5 * i, "random", 0.5, 0.5) for i in range(2)]
    log = TrialLog.open(path, SETTINGS, resume=False)
    for trial in trials:
        log.append(trial)
    assert TrialLog.read(path).trials == trials
    lines = path.read_text().splitlines()
    lines[2] = json.dumps(json.loads(lines[2]) | {field: value})
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(TarotError, match=rf"^expected trial 1 in line 3 of .*, got .*({field}|integer|number)"):
        TrialLog.read(path)


def test_lost_line_is_named(tmp_path: Path):
    path = tmp_path / "trials.jsonl"
    run(path, budget=4)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:2] + lines[3:]))
    with pytest.raises(TarotError, match=r"^expected trial 1 in line 3 of "):
        TrialLog.open(path, SETTINGS, resume=True)


def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path):
    path = tmp_path / "trials.jsonl"
    path.write_text("my notes")
    with pytest.raises(TarotError, match=r"^expected the settings of a search in line 1 of"):
        TrialLog.open(path, SETTINGS, resume=True)
    assert path.read_text() == "my notes"


def test_existing_log_is_not_overwritten(tmp_path: Path):
    path = tmp_path / "trials.jsonl"
    TrialLog.open(path, SETTINGS, resume=False)
    with pytest.raises(TarotError) as caught:
        TrialLog.open(path, SETTINGS, resume=False)
    assert str(caught.value) == (
        f"expected a new trial log, got {path}, which exists; resume it, or choose another folder"
    )


def test_other_settings_are_named(tmp_path: Path):
    path = tmp_path / "trials.jsonl"
    TrialLog.open(path, SETTINGS, resume=False)
    with pytest.raises(TarotError) as caught:
        TrialLog.open(path, {"seed": 4, "search": "random", "layers": (0, 1), "task": "a"}, resume=True)
    assert str(caught.value) == (
        f"expected the settings that {path} was begun with, got seed 4 instead of 3, task 'a' instead of None; "
        "resume with the same, or choose another folder"
    )


def test_reading_what_is_not_there_is_an_error(tmp_path: Path):
    with pytest.raises(TarotError) as caught:
        TrialLog.read(tmp_path / "none.jsonl")
    assert str(caught.value) == (
        f"expected a trial log {tmp_path / 'none.jsonl'}, got No such file or directory; run the search first"
    )


def test_folder_that_is_not_there_is_an_error(tmp_path: Path):
    with pytest.raises(TarotError) as caught:
        TrialLog.open(tmp_path / "none" / "trials.jsonl", {}, resume=False)
    assert str(caught.value) == (
        f"expected to write {tmp_path / 'none' / 'trials.jsonl'}, got No such file or directory; "
        "free some space, or choose another folder"
    )


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes, as on a full disk: the write that would is cut short."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk_ends_the_run_with_a_whole_log(tmp_path: Path):
    whole = run(tmp_path / "whole.jsonl", budget=6)
    path = tmp_path / "trials.jsonl"
    run(path, budget=3)
    size = path.stat().st_size
    with file_size_limit(size + 30), pytest.raises(TarotError) as caught:
        run(path, budget=6)
    assert str(caught.value) == (
        f"expected to write {path}, got {os.strerror(errno.EFBIG)}; free some space, or choose another folder"
    )
    assert path.stat().st_size == size
    assert run(path, budget=6) == whole


def test_full_disk_leaves_no_log_without_settings(tmp_path: Path):
    with file_size_limit(10), pytest.raises(TarotError):
        TrialLog.open(tmp_path / "trials.jsonl", SETTINGS, resume=False)
    assert not (tmp_path / "trials.jsonl").exists()
