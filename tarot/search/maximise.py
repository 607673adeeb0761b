"""The loop: propose, evaluate, write down."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from time import perf_counter
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from tarot.errors import TarotError, UnknownName
from tarot.search.bo import BayesianOptimisation
from tarot.search.log import TrialLog
from tarot.search.paper import Paper
from tarot.search.points import padded
from tarot.search.proposal import Proposal, Search
from tarot.search.random import Random
from tarot.search.trial import Trial, best_of

SEARCHES: dict[str, type[Search]] = {"bo": BayesianOptimisation, "paper": Paper, "random": Random}


@runtime_checkable
class Domain(Protocol):
    """The cube that is searched, which may gain coordinates on the way.

    Attributes:
        d: number of coordinates.
        starts: points that are worth trying before a search proposes any; read anew whenever the domain has widened.
        trials_per_widening: evaluations after which it is widened, the first time after the identity; None for never.
        widening_cost: what it takes, in evaluations; counted in the budget.
    """

    @property
    def d(self) -> int: ...

    @property
    def starts(self) -> Float[Tensor, "start d"]: ...

    @property
    def trials_per_widening(self) -> int | None: ...

    @property
    def widening_cost(self) -> int: ...

    def widen(self, best: Float[Tensor, "d"]) -> None:
        """Add a coordinate whose centre is where the domain was before; told the best point so far."""
        ...


@dataclass
class Cube:
    """[0, 1]^d as it is."""

    d: int
    starts: Float[Tensor, "start d"] = field(default_factory=lambda: torch.zeros(0, 0))
    trials_per_widening: int | None = None
    widening_cost: int = 0

    def widen(self, best: Float[Tensor, "d"]) -> None:
        """Never called."""


@dataclass(frozen=True)
class Result:
    """What a search found.

    Attributes:
        trials: all of them, those of the log that was resumed first.
        resumed: how many came from the log.
        spent: evaluations, those that widening the domain cost among them.
        widening_seconds: spent on widening the domain; of a resumed search, on doing it once more too.
        interrupted: whether Ctrl-C ended it before its budget was spent.
    """

    trials: tuple[Trial, ...]
    resumed: int
    spent: int
    widening_seconds: float
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
    domain: Domain,
    *,
    search: str = "bo",
    budget: int,
    seed: int,
    log: TrialLog | None = None,
    on_trial: Callable[[Trial, Result], None] | None = None,
) -> Result:
    """argmax f(x) over x in [0, 1]^d, from `budget` evaluations; the first is of the identity, x = 0.5.

    Args:
        f: a float64 point to its score, higher is better. A score that is not finite counts as a failed trial.
        domain: what is searched. Points of a log that are shorter than it are at the centre of what came later.
        search: `bo`, `paper` or `random`.
        budget: evaluations in all: identity, initial design, what widenings cost and the trials of a resumed log
            included. A log that has spent it is returned as it is.
        log: gets each trial before the next begins; the search goes on from the trials it holds.
        on_trial: called after each new trial with it and the result so far.

    Ctrl-C ends the search and keeps what there is, if there is a trial. Any other exception of `f` propagates, and the
    log can be resumed.

    Raises:
        UnknownName: no such search.
        TarotError: the budget is not positive, the log is of another dimension, or cannot be written.
    """
    if search not in SEARCHES:
        raise UnknownName("search", search, SEARCHES)
    if budget < 1:
        raise TarotError("a budget of at least 1 trial", str(budget))
    trials = list(log.trials) if log else []
    resumed = len(trials)
    strategy = SEARCHES[search](seed)
    began, spent, widening = 1, 0, 0.0

    def result(interrupted: bool) -> Result:
        return Result(tuple(trials), resumed, spent, widening, interrupted)

    try:
        for index in count():
            # What a log holds is gone through once more, so that the domain widens as it did when it was written.
            if index and domain.trials_per_widening and (index - 1) % domain.trials_per_widening == 0:
                if spent + domain.widening_cost >= budget:
                    break
                started = perf_counter()
                domain.widen(padded(best_of(trials[:index]).x, domain.d))
                widening += perf_counter() - started
                began, spent = index, spent + domain.widening_cost
            if spent >= budget:
                break
            spent += 1
            if index < resumed:
                _check_dimension(trials[index], domain.d)
                continue
            trial = _trial(f, strategy, domain, began, trials)
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


def _check_dimension(trial: Trial, d: int) -> None:
    if len(trial.x) != d:
        raise TarotError(f"trials of {d} coordinates", f"{len(trial.x)} in the log", "choose another folder")


def _trial(
    f: Callable[[Float[Tensor, "d"]], float], strategy: Search, domain: Domain, began: int, history: Sequence[Trial]
) -> Trial:
    """The next trial in a domain that is as it is since trial `began`."""
    started = perf_counter()
    if 0 <= (start := len(history) - began) < len(domain.starts):
        x, origin = Proposal(domain.starts[start], "start")
    else:
        x, origin = strategy.propose(history, domain.d)
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
