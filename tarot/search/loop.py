"""The loop: propose, evaluate, write down."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from time import perf_counter

import torch
from jaxtyping import Float
from torch import Tensor

from tarot.errors import TarotError, UnknownName
from tarot.search.protocol import Point, Proposal, Search
from tarot.search.registry import SEARCHES, trial_cost
from tarot.search.trials import Trial, TrialLog, best_of

NO_GRADIENT = torch.zeros(0, dtype=torch.float64)


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        trials: all of them, those of the log that was resumed first.
        resumed: how many came from the log.
        spent: evaluations that all of them count for.
        interrupted: whether Ctrl-C ended it before its budget was spent.
    """

    trials: tuple[Trial, ...]
    resumed: int
    spent: int
    interrupted: bool

    @property
    def identity(self) -> Trial:
        """Trial 0."""
        return self.trials[0]

    @property
    def best(self) -> Trial:
        """The first trial with the highest finite score; the identity where none is finite."""
        return best_of(self.trials)


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
    batch: int = 1,
    evaluate: Callable[[Sequence[Point]], Iterable[float]] | None = None,
    log: TrialLog | None = None,
    on_trial: Callable[[Trial, SearchResult], None] | None = None,
) -> SearchResult:
    """argmax f(x) over x in [0, 1]^d, from `budget` evaluations; the first is of the identity, x = 0.5.

    Args:
        f: a float64 point to its score, higher is better. A score that is not finite counts as a failed trial.
        search: a name in `SEARCHES`.
        budget: evaluations in all: identity, initial design and the trials of a resumed log included. A trial of a
            search that follows gradients counts for `GRADIENT_COST`. A log that has spent the budget is the result.
        starts: points to evaluate right after the identity, in this order, in the place of a search's own design.
        slope: f and its gradient at a point, for a search that follows it, which then evaluates nothing else.
            Where the identity has none, the search ends with it.
        enough: the search ends with the batch of a trial that scores as much, whatever is left of the budget.
        batch: points that are proposed before the score of any of them is known, to be evaluated beside each other.
        evaluate: points of a batch to their scores, in their order; None calls f for one after another.
        log: gets each trial as soon as its score is known; the search goes on from the trials it holds.
        on_trial: called after each new trial with it and the result so far.

    Ctrl-C ends the search and keeps what there is, if there is a trial. Any other exception of `f` propagates, and the
    log can be resumed.

    Raises:
        UnknownName: no such search.
        TarotError: the budget does not pay for a trial, there is no gradient for a search that follows it, batches of a
            search that wants every score, the log is of another dimension, or cannot be written.
    """
    check_batch(search, batch)
    strategy = SEARCHES[search](d, seed)
    if strategy.follows_gradient and value_and_grad is None:
        raise TarotError(f"a gradient for the search {search!r}", "none", "try the search 'bo' in the space 'head'")
    cost = trial_cost(search)
    if budget < cost:
        raise TarotError(f"a budget of at least {cost}, what one trial of {search!r} counts for", str(budget))
    trials = list(log.trials) if log else []
    resumed = len(trials)
    for trial in trials:
        if len(trial.x) != d:
            raise TarotError(f"trials of {d} coordinates", f"{len(trial.x)} in the log", "choose another folder")

    def result(interrupted: bool) -> SearchResult:
        return SearchResult(tuple(trials), resumed, cost * len(trials), interrupted)

    gradients = value_and_grad if value_and_grad and strategy.follows_gradient else None

    def values(points: Sequence[Point]) -> Iterable[tuple[float, Point]]:
        if gradients:
            return map(gradients, points)
        return ((score, NO_GRADIENT) for score in (evaluate(points) if evaluate else map(f, points)))

    try:
        while (left := budget // cost - len(trials)) > 0:
            done = len(trials) % batch  # of this batch: a run was killed in it
            history, begun = trials[: len(trials) - done], trials[len(trials) - done :]
            lost = strategy.follows_gradient and history and not history[0].gradient
            if lost or any(trial.score >= target_score for trial in history):
                break
            proposed = _batch(strategy, starts, history, begun, min(batch - done, left))
            evaluated = iter(values([proposal.x for proposal, _ in proposed]))
            for proposal, seconds in proposed:
                started = perf_counter()
                score, gradient = next(evaluated)
                sound = math.isfinite(score) and bool(gradient.isfinite().all())
                trial = Trial(
                    index=len(trials),
                    x=tuple(proposal.x.tolist()),
                    score=float(score) if sound else math.nan,
                    origin=proposal.origin,
                    propose_seconds=seconds,
                    evaluate_seconds=perf_counter() - started,
                    gradient=tuple(gradient.tolist()) if sound else (),
                )
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


def check_batch(search: str, batch: int) -> None:
    """Raise unless there is such a search, and it can propose so many points at a time."""
    if search not in SEARCHES:
        raise UnknownName("search", search, SEARCHES)
    if batch < 1:
        raise TarotError("at least 1 candidate in a batch", str(batch))
    if batch > 1 and not SEARCHES[search].in_batches:
        able = ", ".join(name for name, known in SEARCHES.items() if known.in_batches)
        raise TarotError(f"a search that proposes in batches: {able}", repr(search), "leave the batch out")


def _batch(
    strategy: Search, starts: Float[Tensor, "start d"] | None, history: Sequence[Trial], begun: Sequence[Trial], n: int
) -> list[tuple[Proposal, float]]:
    """The next n proposals beside what the batch has begun with, and the seconds that each took."""
    pending = [torch.tensor(trial.x, dtype=torch.float64) for trial in begun]
    proposed = []
    for _ in range(n):
        started = perf_counter()
        index = len(history) + len(pending)
        # What follows gradients goes from each point to the next: it needs no line searched for it.
        if starts is not None and 1 <= index <= len(starts) and not strategy.follows_gradient:
            proposal = Proposal(starts[index - 1], "start")
        else:
            proposal = strategy.propose(history, pending)
        pending.append(proposal.x)
        proposed.append((proposal, perf_counter() - started))
    return proposed
