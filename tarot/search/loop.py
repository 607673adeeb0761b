"""The search loop: propose points, evaluate them, log the trials."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import NamedTuple

import torch

from tarot.errors import TarotError
from tarot.search.algorithms.base import Point, Proposal, Search
from tarot.search.algorithms.registry import SEARCHES, require_budget, require_trials_per_step
from tarot.search.kl_limit import (
    Choice,
    DivergenceLimit,
    choose_trial,
    kl_within,
    limited_direction,
    multiplier,
    step_scale,
)
from tarot.search.trials import Trial, TrialLog, best_of

Scored = float | tuple[float, float]  # a score, or a score and its standard error
NO_GRADIENT = torch.zeros(0, dtype=torch.float64)


class _Evaluated(NamedTuple):
    """Score of a point, the gradient to follow from there, its divergence, and the standard error of the score."""

    score: float
    gradient: Point = NO_GRADIENT
    kl: float | None = None
    error: float = 0.0


@dataclass(frozen=True)
class SearchResult:
    """The trials of a search.

    Attributes:
        trials: all trials in order, those of a resumed log first.
        spent: evaluations that all trials count for.
        interrupted: whether Ctrl-C ended the search before its budget was spent.
        choice: what the search returns under a limit; None without one.
        recommended: the trial that the search keeps; None while it runs.
    """

    trials: tuple[Trial, ...]
    spent: int
    interrupted: bool
    choice: Choice | None = None
    recommended: Trial | None = None

    @property
    def identity(self) -> Trial:
        """Trial 0, which scores the unedited model."""
        return self.trials[0]

    @property
    def best(self) -> Trial:
        """The trial to keep: the chosen or recommended one, else the first with the highest finite score.

        Trial 0 if no score is finite.
        """
        return self.choice.trial if self.choice else self.recommended or best_of(self.trials)


def run_search(
    f: Callable[[Point], Scored],
    d: int,
    *,
    search: str = "bo",
    budget: int,
    seed: int,
    value_and_grad: Callable[[Point], tuple[float, Point]] | None = None,
    target_score: float = math.inf,
    limit: DivergenceLimit | None = None,
    trials_per_step: int = 1,
    evaluate: Callable[[Sequence[Point]], Iterable[Scored]] | None = None,
    log: TrialLog | None = None,
    on_trial: Callable[[Trial, SearchResult], None] | None = None,
) -> SearchResult:
    """Maximise f(x) over x in [0, 1]^d; trial 0 is the identity, x = 0.5.

    Ctrl-C ends the search and returns the trials so far, if there are any. Any other exception of `f` propagates; the
    log can be resumed.

    Args:
        f: maps a float64 point to its score, higher is better, or to a score and its standard error. A trial whose
            score is not finite has failed.
        d: number of coordinates.
        search: a name in `SEARCHES`.
        budget: number of evaluations, those of a resumed log included. A trial of a search that follows the gradient
            counts for more (`Search.trial_cost`). If the log already covers the budget, nothing is evaluated.
        seed: seeds the proposals.
        value_and_grad: maps a point to its score and gradient; called instead of `f` by a search that follows the
            gradient. The search ends with the identity if that has no finite gradient.
        target_score: end with the step in which a trial within the limit reaches this score, even if budget is left.
        limit: how far a chosen point may diverge; only for a search that follows the gradient.
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
    require_budget(search, budget)
    require_trials_per_step(search, trials_per_step)
    strategy = SEARCHES[search](d, seed)
    if strategy.follows_gradient and value_and_grad is None:
        raise TarotError(f"a gradient for the search {search!r}", "none", "try the search 'bo' in the space 'head'")
    if limit is not None:
        strategy.step_scale = step_scale(limit.max_kl)
    trials = list(log.trials) if log else []
    for trial in trials:
        if len(trial.x) != d:
            raise TarotError(f"trials of {d} coordinates", f"{len(trial.x)} in the log", "choose another folder")

    def result(interrupted: bool) -> SearchResult:
        return SearchResult(tuple(trials), len(trials) * strategy.trial_cost, interrupted)

    def final_result(interrupted: bool) -> SearchResult:
        choice = choose_trial(trials, limit, lambda x: _score(f(x))) if limit else None
        return replace(result(interrupted), choice=choice, recommended=strategy.recommend(trials))

    def follow(x: Point) -> _Evaluated:
        assert value_and_grad is not None
        score, gradient = value_and_grad(x)
        if limit is None:
            return _Evaluated(score, gradient)
        kl, kl_gradient = limit.value_and_grad(x, len(trials))
        # Beyond the target a higher score would only overfit.
        gain = torch.zeros_like(gradient) if score >= target_score else gradient
        weight = multiplier([*(trial.kl for trial in trials if trial.kl is not None), kl], limit.max_kl)
        return _Evaluated(score, limited_direction(gain, kl_gradient, weight), kl)

    try:
        while (remaining := budget // strategy.trial_cost - len(trials)) > 0:
            # A resumed log may end inside a step: complete it without looking at the scores that it has so far.
            n_done = len(trials) % trials_per_step
            history, begun = trials[: len(trials) - n_done], trials[len(trials) - n_done :]
            if _is_over(strategy, history, target_score, limit):
                break
            proposals = _propose(strategy, history, begun, min(trials_per_step - n_done, remaining))
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
        return final_result(True)
    return final_result(False)


def _score(scored: Scored) -> float:
    return scored[0] if isinstance(scored, tuple) else scored


def _is_over(strategy: Search, history: Sequence[Trial], target_score: float, limit: DivergenceLimit | None) -> bool:
    """Return whether the budget cannot help: no gradient, no better score for long, or the target within the limit."""
    if not history:
        return False
    last = len(history) - 1
    if (strategy.follows_gradient and not history[0].gradient) or last - best_of(history).index >= strategy.patience:
        return True
    if limit is None:
        return any(trial.score >= target_score for trial in history)
    # Only the last trial can end the search; earlier ones were checked when they were added.
    return history[last].score >= target_score and kl_within(history, last, limit) is not None


def _propose(
    strategy: Search, history: Sequence[Trial], begun: Sequence[Trial], n: int
) -> list[tuple[Proposal, float]]:
    """Return the next n proposals of a step, whose logged trials are `begun`, and the seconds that each took."""
    pending = [trial.point for trial in begun]
    proposals = []
    for _ in range(n):
        started = perf_counter()
        proposal = strategy.propose(history, pending)
        pending.append(proposal.x)
        proposals.append((proposal, perf_counter() - started))
    return proposals


def _without_gradient(
    f: Callable[[Point], Scored],
    evaluate: Callable[[Sequence[Point]], Iterable[Scored]] | None,
    points: Sequence[Point],
) -> Iterator[_Evaluated]:
    for scored in evaluate(points) if evaluate else map(f, points):
        score, error = scored if isinstance(scored, tuple) else (scored, 0.0)
        yield _Evaluated(score, error=error)


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
    index: int,
    proposal: Proposal,
    evaluated: _Evaluated,
    propose_seconds: float,
    evaluate_seconds: float,
) -> Trial:
    """Return the trial of an evaluated proposal; its score is NaN unless all of its numbers are finite."""
    score, gradient, kl, error = evaluated
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
        error=error if finite else 0.0,
    )
