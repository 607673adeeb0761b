"""The loop: propose, evaluate, write down."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

from jaxtyping import Float
from torch import Tensor

from tarot.errors import TarotError, UnknownName
from tarot.search.bo import BayesianOptimisation
from tarot.search.log import TrialLog
from tarot.search.paper import Paper
from tarot.search.proposal import Proposal, Search
from tarot.search.random import Random
from tarot.search.trial import Trial, best_of

SEARCHES: dict[str, type[Search]] = {"bo": BayesianOptimisation, "paper": Paper, "random": Random}


@dataclass(frozen=True)
class Result:
    """What a search found.

    Attributes:
        trials: all of them, those of the log that was resumed first.
        resumed: how many came from the log.
        interrupted: whether Ctrl-C ended it before its budget was spent.
    """

    trials: tuple[Trial, ...]
    resumed: int
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
    f: Callable[[Float[Tensor, "d"]], float],
    d: int,
    *,
    search: str = "bo",
    budget: int,
    seed: int,
    starts: Float[Tensor, "start d"] | None = None,
    log: TrialLog | None = None,
    on_trial: Callable[[Trial, Result], None] | None = None,
) -> Result:
    """argmax f(x) over x in [0, 1]^d, from `budget` evaluations; the first is of the identity, x = 0.5.

    Args:
        f: a float64 point to its score, higher is better. A score that is not finite counts as a failed trial.
        search: `bo`, `paper` or `random`.
        budget: evaluations in all: identity, initial design and the trials of a resumed log included.
        starts: points to evaluate right after the identity, in this order; a search's own design follows them.
        log: gets each trial before the next begins; the search goes on from the trials it holds.
        on_trial: called after each new trial with it and the result so far.

    Ctrl-C ends the search and keeps what there is, if there is a trial. Any other exception of `f` propagates, and the
    log can be resumed.

    Raises:
        UnknownName: no such search.
        TarotError: the budget is not positive or is spent, the log is of another dimension, or cannot be written.
    """
    if search not in SEARCHES:
        raise UnknownName("search", search, SEARCHES)
    if budget < 1:
        raise TarotError("a budget of at least 1 trial", str(budget))
    trials = list(log.trials) if log else []
    resumed = len(trials)
    if resumed >= budget:
        raise TarotError(
            f"fewer than {budget} trials in the log", f"{resumed}: the budget is spent", "raise the budget to go on"
        )
    for trial in trials:
        if len(trial.x) != d:
            raise TarotError(f"trials of {d} coordinates", f"{len(trial.x)} in the log", "choose another folder")
    strategy = SEARCHES[search](d, seed)
    try:
        while len(trials) < budget:
            trial = _trial(f, strategy, starts, trials)
            if log:
                log.append(trial)
            trials.append(trial)
            if on_trial:
                on_trial(trial, Result(tuple(trials), resumed, interrupted=False))
    except KeyboardInterrupt:
        if not trials:
            raise
        return Result(tuple(trials), resumed, interrupted=True)
    return Result(tuple(trials), resumed, interrupted=False)


def _trial(
    f: Callable[[Float[Tensor, "d"]], float],
    strategy: Search,
    starts: Float[Tensor, "start d"] | None,
    history: Sequence[Trial],
) -> Trial:
    started = perf_counter()
    if starts is not None and 1 <= len(history) <= len(starts):
        x, origin = Proposal(starts[len(history) - 1], "start")
    else:
        x, origin = strategy.propose(history)
    point = tuple(x.tolist())
    proposed = perf_counter()
    score = float(f(x))
    evaluated = perf_counter()
    return Trial(
        index=len(history),
        x=point,
        score=score if math.isfinite(score) else math.nan,
        origin=origin,
        propose_seconds=proposed - started,
        evaluate_seconds=evaluated - proposed,
    )
