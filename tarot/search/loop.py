"""The search loop: propose points, evaluate them, log the trials."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tarot.errors import TarotError
from tarot.search.kl_limit import limited_direction, multiplier
from tarot.search.protocol import Point, Proposal, Search
from tarot.search.registry import SEARCHES, check_budget, check_trials_per_step, trial_cost
from tarot.search.trials import Trial, TrialLog, best_of, is_within

NO_GRADIENT = torch.zeros(0, dtype=torch.float64)


class _Evaluated(NamedTuple):
    """Score of a point, the gradient to follow from there, and its divergence."""

    score: float
    gradient: Point = NO_GRADIENT
    kl: float | None = None


@dataclass(frozen=True)
class SearchResult:
    """The trials of a search.

    Attributes:
        trials: all trials in order, those of a resumed log first.
        resumed: number of trials that came from the log.
        spent: evaluations that all trials count for.
        interrupted: whether Ctrl-C ended the search before its budget was spent.
        max_kl: limit of a trial's divergence, in nats a token.
    """

    trials: tuple[Trial, ...]
    resumed: int
    spent: int
    interrupted: bool
    max_kl: float = math.inf

    @property
    def identity(self) -> Trial:
        """Trial 0, which scores the unedited model."""
        return self.trials[0]

    @property
    def best(self) -> Trial:
        """The first trial with the highest finite score within the limit; trial 0 if there is none."""
        return best_of(self.trials, self.max_kl)


def run_search(
    f: Callable[[Point], float],
    d: int,
    *,
    search: str = "bo",
    budget: int,
    seed: int,
    starts: Float[Tensor, "start d"] | None = None,
    value_and_grad: Callable[[Point], tuple[float, Point]] | None = None,
    target_score: float = math.inf,
    kl_and_grad: Callable[[Point], tuple[float, Point]] | None = None,
    max_kl: float = math.inf,
    trials_per_step: int = 1,
    evaluate: Callable[[Sequence[Point]], Iterable[float]] | None = None,
    log: TrialLog | None = None,
    on_trial: Callable[[Trial, SearchResult], None] | None = None,
) -> SearchResult:
    """Maximise f(x) over x in [0, 1]^d; trial 0 is the identity, x = 0.5.

    Ctrl-C ends the search and returns the trials so far, if there are any. Any other exception of `f` propagates; the
    log can be resumed.

    Args:
        f: maps a float64 point to its score, higher is better. A trial whose score is not finite has failed.
        d: number of coordinates.
        search: a name in `SEARCHES`.
        budget: number of evaluations, those of a resumed log included. A trial of a search that follows the gradient
            counts for `GRADIENT_COST`. If the log already covers the budget, nothing is evaluated.
        seed: seeds the proposals.
        starts: points to evaluate right after the identity, in this order, instead of the search's own design. A search
            that follows the gradient ignores them.
        value_and_grad: maps a point to its score and gradient; called instead of `f` by a search that follows the
            gradient. The search ends with the identity if that has no finite gradient.
        target_score: end with the step in which a trial within `max_kl` reaches this score, even if budget is left.
        kl_and_grad: maps a point to its divergence in nats a token and the gradient of that; only for a search that
            follows the gradient.
        max_kl: limit of the divergence; see `tarot.search.kl_limit`.
        trials_per_step: points that are proposed together, before the score of any of them is known.
        evaluate: maps the points of a step to their scores, in order; None calls `f` for one after another.
        log: receives each trial as soon as its score is known; the search continues from the trials in it.
        on_trial: called after each new trial with the trial and the result so far.

    Returns:
        All trials, those of the log included.

    Raises:
        UnknownName: no search has this name.
        TarotError: the budget does not pay for a trial, the search needs a gradient or cannot propose several trials at
            a time, or the log has another dimension or cannot be written.

    Example:
        >>> result = run_search(lambda x: -float((x - 0.8).square().sum()), 2, search="random", budget=8, seed=0)
        >>> len(result.trials), result.best.score > result.identity.score
        (8, True)
    """
    check_budget(search, budget)
    check_trials_per_step(search, trials_per_step)
    strategy = SEARCHES[search](d, seed)
    if strategy.follows_gradient and value_and_grad is None:
        raise TarotError(f"a gradient for the search {search!r}", "none", "try the search 'bo' in the space 'head'")
    cost = trial_cost(search)
    trials = list(log.trials) if log else []
    resumed = len(trials)
    for trial in trials:
        if len(trial.x) != d:
            raise TarotError(f"trials of {d} coordinates", f"{len(trial.x)} in the log", "choose another folder")

    def result(interrupted: bool) -> SearchResult:
        return SearchResult(tuple(trials), resumed, cost * len(trials), interrupted, max_kl)

    def follow(x: Point) -> _Evaluated:
        assert value_and_grad is not None
        score, gradient = value_and_grad(x)
        if kl_and_grad is None:
            return _Evaluated(score, gradient)
        kl, kl_gradient = kl_and_grad(x)
        # Beyond the target a higher score would only overfit.
        gain = gradient if score < target_score else torch.zeros_like(gradient)
        weight = multiplier([*(trial.kl for trial in trials if trial.kl is not None), kl], max_kl)
        return _Evaluated(score, limited_direction(gain, kl_gradient, weight), kl)

    try:
        while (remaining := budget // cost - len(trials)) > 0:
            # A resumed log may end inside a step: complete it without looking at the scores that it has so far.
            n_done = len(trials) % trials_per_step
            history, begun = trials[: len(trials) - n_done], trials[len(trials) - n_done :]
            if _is_over(strategy, history, target_score, max_kl):
                break
            proposals = _propose(strategy, starts, history, begun, min(trials_per_step - n_done, remaining))
            points = [proposal.x for proposal, _ in proposals]
            evaluations = map(follow, points) if strategy.follows_gradient else _without_gradient(f, evaluate, points)
            for (proposal, propose_seconds), (evaluated, seconds) in zip(
                proposals, _timed(iter(evaluations)), strict=True
            ):
                trial = _trial(len(trials), proposal, evaluated, propose_seconds, seconds)
                if log:
                    log.append(trial)
                trials.append(trial)
                if on_trial:
                    on_trial(trial, result(interrupted=False))
    except KeyboardInterrupt:
        if not trials:
            raise
        return result(interrupted=True)
    return result(interrupted=False)


def _is_over(strategy: Search, history: Sequence[Trial], target_score: float, max_kl: float) -> bool:
    """Return whether the budget cannot help: no gradient to follow, or the target is reached within the limit."""
    lost = strategy.follows_gradient and bool(history) and not history[0].gradient
    return lost or any(trial.score >= target_score and is_within(trial, max_kl) for trial in history)


def _propose(
    strategy: Search, starts: Float[Tensor, "start d"] | None, history: Sequence[Trial], begun: Sequence[Trial], n: int
) -> list[tuple[Proposal, float]]:
    """Return the next n proposals of a step, and the seconds that each took.

    Args:
        strategy: the search.
        starts: points to evaluate right after the identity.
        history: trials of earlier steps.
        begun: trials of this step, in a resumed log; their scores are not used.
        n: number of proposals.
    """
    pending = [torch.tensor(trial.x, dtype=torch.float64) for trial in begun]
    proposals = []
    for _ in range(n):
        started = perf_counter()
        index = len(history) + len(pending)
        if starts is not None and 1 <= index <= len(starts) and not strategy.follows_gradient:
            proposal = Proposal(starts[index - 1], "start")
        else:
            proposal = strategy.propose(history, pending)
        pending.append(proposal.x)
        proposals.append((proposal, perf_counter() - started))
    return proposals


def _without_gradient(
    f: Callable[[Point], float], evaluate: Callable[[Sequence[Point]], Iterable[float]] | None, points: Sequence[Point]
) -> Iterator[_Evaluated]:
    return (_Evaluated(score) for score in (evaluate(points) if evaluate else map(f, points)))


def _timed(evaluations: Iterator[_Evaluated]) -> Iterator[tuple[_Evaluated, float]]:
    """Yield each evaluation with the seconds spent waiting for it."""
    while True:
        started = perf_counter()
        try:
            evaluated = next(evaluations)
        except StopIteration:
            return
        yield evaluated, perf_counter() - started


def _trial(
    index: int, proposal: Proposal, evaluated: _Evaluated, propose_seconds: float, evaluate_seconds: float
) -> Trial:
    """Return the trial of an evaluated proposal; its score is NaN unless all of its numbers are finite."""
    score, gradient, kl = evaluated
    finite = math.isfinite(score) and bool(gradient.isfinite().all()) and (kl is None or math.isfinite(kl))
    return Trial(
        index=index,
        x=tuple(proposal.x.tolist()),
        score=float(score) if finite else math.nan,
        origin=proposal.origin,
        propose_seconds=propose_seconds,
        evaluate_seconds=evaluate_seconds,
        gradient=tuple(gradient.tolist()) if finite else (),
        kl=kl if finite else None,
    )
