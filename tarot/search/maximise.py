"""The loop: propose, evaluate, write down."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

from jaxtyping import Float
from torch import Tensor

from tarot.errors import TarotError, UnknownName
from tarot.search.adam import Adam
from tarot.search.bo import BayesianOptimisation
from tarot.search.log import TrialLog
from tarot.search.paper import Paper, Published
from tarot.search.proposal import Proposal, Search
from tarot.search.random import Random
from tarot.search.trial import Trial, best_of

SEARCHES: dict[str, type[Search]] = {
    "adam": Adam,
    "bo": BayesianOptimisation,
    "paper": Paper,
    "published": Published,
    "random": Random,
}
SLOPE_COST = 3  # evaluations that a score and its gradient count for: a pass forward, and one back of twice its work

Point = Float[Tensor, "d"]


@dataclass(frozen=True)
class Result:
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


def maximise(
    f: Callable[[Point], float],
    d: int,
    *,
    search: str = "bo",
    budget: int,
    seed: int,
    starts: Float[Tensor, "start d"] | None = None,
    slope: Callable[[Point], tuple[float, Point]] | None = None,
    enough: float = math.inf,
    log: TrialLog | None = None,
    on_trial: Callable[[Trial, Result], None] | None = None,
) -> Result:
    """argmax f(x) over x in [0, 1]^d, from `budget` evaluations; the first is of the identity, x = 0.5.

    Args:
        f: a float64 point to its score, higher is better. A score that is not finite counts as a failed trial.
        search: a name in `SEARCHES`.
        budget: evaluations in all: identity, initial design and the trials of a resumed log included. A trial of a
            search that follows gradients counts for `SLOPE_COST`. A log that has spent the budget is the result.
        starts: points to evaluate right after the identity, in this order; a search's own design follows them.
        slope: f and its gradient at a point, for a search that follows it, which then evaluates nothing else.
        enough: the search ends with the trial that scores as much, whatever is left of the budget.
        log: gets each trial before the next begins; the search goes on from the trials it holds.
        on_trial: called after each new trial with it and the result so far.

    Ctrl-C ends the search and keeps what there is, if there is a trial. Any other exception of `f` propagates, and the
    log can be resumed.

    Raises:
        UnknownName: no such search.
        TarotError: the budget does not pay for a trial, there is no gradient for a search that follows it, the log is
            of another dimension, or cannot be written.
    """
    if search not in SEARCHES:
        raise UnknownName("search", search, SEARCHES)
    strategy = SEARCHES[search](d, seed)
    if strategy.follows_gradient and slope is None:
        raise TarotError(f"a gradient for the search {search!r}", "none", "try the search 'bo' in the space 'head'")
    cost = trial_cost(search)
    if budget < cost:
        raise TarotError(f"a budget of at least {cost}, what one trial of {search!r} counts for", str(budget))
    trials = list(log.trials) if log else []
    resumed = len(trials)
    for trial in trials:
        if len(trial.x) != d:
            raise TarotError(f"trials of {d} coordinates", f"{len(trial.x)} in the log", "choose another folder")

    def result(interrupted: bool) -> Result:
        return Result(tuple(trials), resumed, cost * len(trials), interrupted)

    try:
        while cost * (len(trials) + 1) <= budget and not any(trial.score >= enough for trial in trials):
            trial = _trial(strategy, f, slope, starts, trials)
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


def trial_cost(search: str) -> int:
    """Evaluations that one trial of this search counts for."""
    return SLOPE_COST if SEARCHES[search].follows_gradient else 1


def _trial(
    strategy: Search,
    f: Callable[[Point], float],
    slope: Callable[[Point], tuple[float, Point]] | None,
    starts: Float[Tensor, "start d"] | None,
    history: Sequence[Trial],
) -> Trial:
    started = perf_counter()
    # What follows gradients goes from each point to the next: it needs no line searched for it.
    if starts is not None and 1 <= len(history) <= len(starts) and not strategy.follows_gradient:
        x, origin = Proposal(starts[len(history) - 1], "start")
    else:
        x, origin = strategy.propose(history)
    point = tuple(x.tolist())
    proposed = perf_counter()
    score, gradient = slope(x) if slope and strategy.follows_gradient else (f(x), x.new_zeros(0))
    evaluated = perf_counter()
    sound = math.isfinite(score) and bool(gradient.isfinite().all())
    return Trial(
        index=len(history),
        x=point,
        score=float(score) if sound else math.nan,
        origin=origin,
        propose_seconds=proposed - started,
        evaluate_seconds=evaluated - proposed,
        gradient=tuple(gradient.tolist()) if sound else (),
    )
