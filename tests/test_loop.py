"""The search loop: proposals, steps, budgets, interruption and resumption."""

import itertools
import math
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from statistics import mean, median

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from landscapes import comparable, hill, never_called, with_gradient
from torch import Tensor

from tarot.errors import TarotError
from tarot.search.algorithms.registry import SEARCHES
from tarot.search.loop import run_search
from tarot.search.trials import TrialLog

steady = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize(
    ("search", "top", "budget"),
    [
        ("random", 0.1, 60),
        ("random", 0.8, 60),
        ("bo", 0.1, 15),
        ("bo", 0.8, 15),
        ("paper", 0.8, 11),
    ],
)
def test_climbs(search: str, top: float, budget: int) -> None:
    """The best beats the identity; points that a surrogate proposes beat uniform ones by far, on average."""
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


# Budgets that end a few trials after the initial design.
SHORT = [("random", 16), ("bo", 12), ("paper", 7)]


@pytest.mark.parametrize(("search", "budget"), SHORT)
def test_starts_at_the_identity_and_stays_in_the_cube(search: str, budget: int) -> None:
    result = run_search(lambda x: float(x.sum()), 3, search=search, budget=budget, seed=5)
    assert result.trials[0].x == (0.5, 0.5, 0.5) and result.trials[0].origin == "identity"
    assert all(0 <= coordinate <= 1 for t in result.trials for coordinate in t.x)
    assert [t.index for t in result.trials] == list(range(budget))


@pytest.mark.parametrize(("search", "budget"), SHORT)
def test_proposal_depends_on_the_history_alone(search: str, budget: int) -> None:
    """Neither earlier calls nor torch's generator matter."""
    result = run_search(hill(0.3), 3, search=search, budget=budget, seed=1)
    strategy = SEARCHES[search](3, 1)
    for k in (budget - 1, 3, 0, budget - 2):
        torch.manual_seed(k)
        x, origin = strategy.propose(result.trials[:k])
        assert (tuple(x.tolist()), origin) == (result.trials[k].x, result.trials[k].origin)


@pytest.mark.parametrize("search", ["bo", "paper", "random"])
def test_seeds_differ(search: str) -> None:
    first, second = (run_search(hill(0.3), 3, search=search, budget=3, seed=seed).trials[1:] for seed in (0, 1))
    assert {t.x for t in first}.isdisjoint(t.x for t in second)


@pytest.mark.parametrize(("search", "budget"), SHORT)
def test_torchs_generator_is_unchanged(search: str, budget: int) -> None:
    torch.manual_seed(17)
    before = torch.get_rng_state()
    run_search(hill(0.3), 2, search=search, budget=budget, seed=0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("search", "batch"), [("random", 4), ("bo", 3), ("bo", 4)])
def test_a_step_is_proposed_before_its_scores_are_known(search: str, batch: int) -> None:
    """Different scores do not change the step that they belong to; they change the next one of a surrogate."""
    first = batch * math.ceil(6 / batch)  # first trial of a step after the initial design

    def searched(sign: int) -> list[tuple[float, ...]]:
        sizes: list[int] = []
        done = count()

        def evaluate(points: Sequence[Tensor]) -> Iterator[float]:
            sizes.append(len(points))
            return (hill(0.3)(x) * (sign if next(done) >= first else 1) for x in points)

        budget = first + 2 * batch - 1
        result = run_search(
            hill(0.3), 3, search=search, budget=budget, seed=2, trials_per_step=batch, evaluate=evaluate
        )
        assert sum(sizes) == len({trial.x for trial in result.trials}) == budget
        assert set(sizes[:-1]) == {batch} and sizes[-1] == batch - 1
        return [trial.x for trial in result.trials]

    runs = [searched(1), searched(-1)]
    assert runs[0][: first + batch] == runs[1][: first + batch]
    assert (runs[0][first + batch] != runs[1][first + batch]) == (search == "bo")


@pytest.mark.parametrize("search", ["random", "bo"])
@given(batch=st.integers(2, 5), kill=st.integers(1, 13))
@settings(steady, max_examples=6)
def test_killed_in_a_step_and_resumed_equals_uninterrupted(
    search: str, tmp_path_factory: pytest.TempPathFactory, batch: int, kill: int
) -> None:
    """Logged trials are not evaluated again, even if one of them in the step reached the target."""
    kind = {"search": search, "seed": 3, "trials_per_step": batch, "target_score": -0.02}
    uninterrupted = run_search(hill(0.45), 3, budget=14, **kind).trials
    path = tmp_path_factory.mktemp("batch") / "trials.jsonl"
    run_search(hill(0.45), 3, budget=kill, **kind, log=TrialLog.open(path, {}, resume=False))
    evaluated: list[Tensor] = []

    def evaluate(points: Sequence[Tensor]) -> Iterator[float]:
        evaluated.extend(points)
        return map(hill(0.45), points)

    log = TrialLog.open(path, {}, resume=True)
    result = run_search(hill(0.45), 3, budget=14, **kind, evaluate=evaluate, log=log)
    assert comparable(result.trials) == comparable(uninterrupted)
    assert len(evaluated) == len(uninterrupted) - min(kill, len(uninterrupted))


@pytest.mark.parametrize(("budget", "trials"), [(3, 1), (5, 1), (6, 2), (8, 2), (9, 3)])
def test_a_gradient_counts_for_three_evaluations(budget: int, trials: int) -> None:
    result = run_search(
        never_called, 2, search="adam", budget=budget, seed=0, value_and_grad=with_gradient(lambda x: x.sum())
    )
    assert (len(result.trials), result.spent) == (trials, 3 * trials)


@steady
@given(st.floats(-1, 0), st.sampled_from(["adam", "random"]))
def test_ends_with_the_trial_that_reaches_the_target(target_score: float, search: str) -> None:
    """The trials are the first of those that a search without a target makes."""

    def f(x: Tensor) -> Tensor:
        return -((x - 0.8) ** 2).sum()

    given = {"search": search, "budget": 60, "seed": 0, "value_and_grad": with_gradient(f)}
    uninterrupted = run_search(lambda x: float(f(x)), 2, **given).trials
    reached = next((i for i, trial in enumerate(uninterrupted) if trial.score >= target_score), len(uninterrupted) - 1)
    ended = run_search(lambda x: float(f(x)), 2, **given, target_score=target_score)
    assert comparable(ended.trials) == comparable(uninterrupted[: reached + 1])
    assert ended.spent == (3 if search == "adam" else 1) * (reached + 1) and not ended.interrupted


def test_no_gradient_to_follow_is_an_error() -> None:
    with pytest.raises(TarotError, match="gradient"):
        run_search(hill(0.3), 2, search="adam", budget=9, seed=0)


scores = st.floats(allow_nan=True, allow_infinity=True)


@pytest.mark.parametrize(("search", "examples"), [("random", 50), ("bo", 15), ("paper", 2)])
def test_no_score_kills_a_run(search: str, examples: int) -> None:
    @settings(steady, max_examples=examples)
    @given(st.lists(scores, min_size=8, max_size=8))
    def run(values: list[float]) -> None:
        queue = iter(values)
        result = run_search(lambda x: next(queue), 2, search=search, budget=8, seed=0)
        assert [t.score for t in result.trials if not math.isnan(t.score)] == list(filter(math.isfinite, values))
        finite = [value for value in values if math.isfinite(value)]
        assert result.best.score == max(finite) if finite else result.best is result.identity

    run()


def test_keyboard_interrupt_keeps_the_best_so_far(tmp_path: Path) -> None:
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
    assert not finished.interrupted and finished.trials[:5] == result.trials
    assert comparable(finished.trials) == comparable(
        run_search(lambda x: float(x[0]), 2, search="random", budget=9, seed=0).trials
    )


def test_keyboard_interrupt_while_proposing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tarot.search.algorithms.random.uniform", interrupt)
    result = run_search(hill(0.3), 2, search="random", budget=9, seed=0)
    assert result.interrupted and len(result.trials) == 1


def interrupt(*args: object) -> None:
    raise KeyboardInterrupt


def test_keyboard_interrupt_before_the_first_trial_propagates() -> None:
    with pytest.raises(KeyboardInterrupt):
        run_search(interrupt, 2, search="random", budget=9, seed=0)


def test_errors_of_the_objective_propagate_and_the_log_stays_complete(tmp_path: Path) -> None:
    def f(x: Tensor) -> float:
        if len(log.trials) == 3:
            raise ZeroDivisionError
        return 0.0

    log = TrialLog.open(tmp_path / "trials.jsonl", {}, resume=False)
    with pytest.raises(ZeroDivisionError):
        run_search(f, 2, search="random", budget=9, seed=0, log=log)
    assert len(TrialLog.read(log.path).trials) == 3


def test_on_trial_gets_each_trial_and_the_result_so_far() -> None:
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


def test_the_first_of_equals_is_the_best() -> None:
    assert run_search(lambda x: 2.0, 2, search="random", budget=4, seed=0).best.index == 0


def test_seconds_are_measured_around_each_part(monkeypatch: pytest.MonkeyPatch) -> None:
    now = itertools.count()
    monkeypatch.setattr(sys.modules["tarot.search.loop"], "perf_counter", lambda: float(next(now)))
    result = run_search(lambda x: 100 * float(next(now) > 0), 2, search="random", budget=2, seed=0)
    assert [t.evaluate_seconds for t in result.trials] == [2.0, 2.0]  # one reading within, one at the end
    assert {t.propose_seconds for t in result.trials} <= {0.0, 1.0}


SETTINGS = {"seed": 3, "search": "random", "layers": [0, 1]}


def run(path: Path, budget: int, search: str = "random", d: int = 3) -> list[tuple]:
    """Run a search that starts or resumes at `path`, and return all its trials."""
    log = TrialLog.open(path, SETTINGS | {"search": search}, resume=True)

    def f(x):
        return math.nan if x[0] > 0.9 else hill(0.3)(x)

    result = run_search(f, d, search=search, budget=budget, seed=3, log=log)
    assert comparable(TrialLog.read(path).trials) == comparable(result.trials)
    return comparable(result.trials)


@steady
@given(st.floats(0, 1, exclude_max=True))
def test_killed_at_any_byte_and_resumed_equals_uninterrupted(tmp_path: Path, share: float) -> None:
    path = tmp_path / "trials.jsonl"
    path.unlink(missing_ok=True)
    uninterrupted = run(path, budget=8)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert run(path, budget=8) == uninterrupted


@pytest.mark.parametrize(("search", "kills"), [("bo", [6, 12]), ("paper", [5])])
def test_surrogates_resume_as_if_never_interrupted(tmp_path: Path, search: str, kills: list[int]) -> None:
    """A resumed run computes the hyperparameters of the run it continues."""
    budget = max(kills) + 2
    uninterrupted = run(tmp_path / "uninterrupted.jsonl", budget, search)
    lines = (tmp_path / "uninterrupted.jsonl").read_bytes().splitlines(keepends=True)
    for kill in kills:
        path = tmp_path / f"{kill}.jsonl"
        path.write_bytes(b"".join(lines[: 1 + kill]) + lines[1 + kill][:20])
        assert run(path, budget, search) == uninterrupted


KILLED_RUN = """
import os, signal, sys
from tarot.search.loop import run_search
from tarot.search.trials import TrialLog
log = TrialLog.open(sys.argv[1], {}, resume=False)

def score(x):
    if len(log.trials) == 12:
        os.kill(os.getpid(), signal.SIGKILL)
    return -float(x.square().sum())

run_search(score, 3, search="random", budget=1000, seed=0, log=log)
"""


def test_killed_by_the_system_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    killed = subprocess.run([sys.executable, "-c", KILLED_RUN, str(path)])
    assert killed.returncode == -signal.SIGKILL
    log = TrialLog.open(path, {}, resume=True)
    assert len(log.trials) == 12
    budget = len(log.trials) + 3

    def f(x):
        return -float(x.square().sum())

    resumed = run_search(f, 3, search="random", budget=budget, seed=0, log=log)
    assert comparable(resumed.trials) == comparable(run_search(f, 3, search="random", budget=budget, seed=0).trials)


def test_a_larger_budget_continues_a_smaller_one(tmp_path: Path) -> None:
    smaller = run(tmp_path / "a.jsonl", budget=12, search="bo")
    larger = run(tmp_path / "b.jsonl", budget=15, search="bo")
    assert run(tmp_path / "a.jsonl", budget=15, search="bo") == larger and larger[:12] == smaller


def test_a_log_that_covers_the_budget_is_the_result(tmp_path: Path) -> None:
    uninterrupted = run(tmp_path / "trials.jsonl", budget=4)
    assert run(tmp_path / "trials.jsonl", budget=4) == uninterrupted
    assert run(tmp_path / "trials.jsonl", budget=2) == uninterrupted


def test_log_of_another_dimension_is_an_error(tmp_path: Path) -> None:
    run(tmp_path / "trials.jsonl", budget=2, d=3)
    with pytest.raises(TarotError, match="4 coordinates"):
        run(tmp_path / "trials.jsonl", budget=4, d=4)
