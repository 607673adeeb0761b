"""Hold an edit's divergence below a limit while its score rises: an augmented Lagrangian.

    maximise score(x)  subject to  KL(x) <= limit
    direction at trial t:  g / |g| - m_t h / |h|,    g = d score(x_t), h = d KL(x_t)
    m_t = max(0, l_t + PROPORTIONAL min(e_t, LARGEST)),    l_t = max(0, l_(t-1) + INTEGRAL min(e_t, 1)),  l_0 = INITIAL
    e_t = (mean of the last RECENT KLs) / (MARGIN limit) - 1

Each trial reads one of PARTS parts of the retained contexts, in turn, so that they cost little more than the samples.
The mean over the last trials has read half of them. Whether a trial is within the limit is decided on all contexts. At
the end the trial with the highest score is also shrunk towards the identity until it is within.

The multiplier m grows while the divergence is above the limit and falls while it is below, so nobody has to choose a
weight. Both gradients are scaled to length 1, because scores have scales of their own: the weight is then
`m |g| / |h|`, and m = 1 where no direction raises the score without raising the divergence. Everything depends
on the logged trials alone, so a resumed search continues as it would have.

Divergence grows with the square of the angles, so the steps of a search shrink with the root of the limit. Full steps
would leave the limit far behind at once, and take half the search to come back.

Sources: Bertsekas, Constrained Optimization and Lagrange Multiplier Methods, 1982, for inequalities; Stooke, Achiam and
Abbeel, Responsive Safety in Reinforcement Learning by PID Lagrangian Methods, arXiv 2007.03964, for adding the current
violation to its running sum.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from tarot.search.trials import Trial

INITIAL, INTEGRAL, PROPORTIONAL, LARGEST = 0.5, 0.1, 0.3, 3.0
PARTS, RECENT = 16, 8
MARGIN = 0.9  # aim below the limit, so that trials near the aim satisfy it
SHRINKINGS = 4  # times that the best trial is shrunk to come within the limit
# A trial is taken to be above the limit if the mean of the last LAST KLs is above this multiple of it. To read all
# contexts costs as much as several trials.
NOT_WORTH_READING, LAST = 1.1, 2
FULL_STEPS = 0.06  # nats a token: under a limit of at least this, steps are as long as without one


@runtime_checkable
class DivergenceLimit(Protocol):
    """A limit on the divergence of the points that a search chooses."""

    @property
    def max_kl(self) -> float:
        """Return the limit, in nats a token."""
        ...

    def value_and_grad(self, x: Float[Tensor, " d"], index: int) -> tuple[float, Float[Tensor, " d"]]:
        """Return the divergence of a trial's point on the part that its index has, and its gradient."""
        ...

    def kl(self, x: Float[Tensor, " d"], stop_above: float = math.inf) -> float:
        """Return the divergence of a point on all contexts, in nats a token; above `stop_above`, a lower bound."""
        ...


def step_scale(max_kl: float) -> float:
    """Return the length of a step under a limit (nats a token), as a share of a step without one.

    Example:
        >>> step_scale(0.015), step_scale(0.1)
        (0.5, 1.0)
    """
    return min(1.0, math.sqrt(max_kl / FULL_STEPS))


def recent_kl(kls: Sequence[float | None]) -> float:
    """Return the mean divergence of the last trials, each on its part of the contexts; failed ones are left out."""
    known = [kl for kl in kls if kl is not None][-RECENT:]
    return sum(known) / len(known) if known else math.inf


def kl_within(trials: Sequence[Trial], index: int, limit: DivergenceLimit) -> float | None:
    """Return the divergence of a trial on all contexts if it is within the limit, else None."""
    if index == 0:
        return 0.0
    kls = [trial.kl for trial in trials[: index + 1]]
    if recent_kl(kls[-LAST:]) > NOT_WORTH_READING * limit.max_kl:
        return None
    kl = limit.kl(trials[index].point, stop_above=limit.max_kl)
    return kl if kl <= limit.max_kl else None


class Choice(NamedTuple):
    """Result of a search under a limit.

    Attributes:
        trial: the trial; with a strength below 1 its point is shrunk towards the identity, and its score is that of the
            shrunk point.
        kl: its divergence on all contexts, in nats a token.
        strength: share of the trial's angles that is within the limit.
    """

    trial: Trial
    kl: float
    strength: float = 1.0


def choose_trial(
    trials: Sequence[Trial], limit: DivergenceLimit, score: Callable[[Float[Tensor, " d"]], float] | None = None
) -> Choice:
    """Return the trial with the best score within the limit, the identity at least.

    The last trials of a search are often just above the limit. So the trial with the highest score is also shrunk until
    it is within, and returned if it then scores higher.

    Args:
        trials: of the search, at least the identity.
        limit: the limit.
        score: maps a point to its score; None shrinks nothing.
    """
    finite = [trial for trial in trials if math.isfinite(trial.score)]
    ranked = sorted(finite, key=lambda trial: (-trial.score, trial.index))
    chosen = Choice(trials[0], 0.0)
    for trial in ranked:
        if (kl := kl_within(trials, trial.index, limit)) is not None:
            chosen = Choice(trial, kl)
            break
    if score and ranked and ranked[0] is not chosen.trial:
        shrunk = shrink(ranked[0], limit, score)
        if shrunk and shrunk.trial.score > chosen.trial.score:
            return shrunk
    return chosen


def shrink(trial: Trial, limit: DivergenceLimit, score: Callable[[Float[Tensor, " d"]], float]) -> Choice | None:
    """Return a trial whose angles are multiplied by a number of at most 1 so that it is within the limit.

    Divergence grows about with the square of the angles, which gives the number; None if that fails.
    """
    offset = trial.point - 0.5
    whole = limit.kl(trial.point)
    if whole <= limit.max_kl:  # only the parts that the last trials read were above it
        return Choice(trial, whole)
    if not whole < math.inf:
        return None
    strength = math.sqrt(MARGIN * limit.max_kl / whole)
    for _ in range(SHRINKINGS):
        point = 0.5 + strength * offset
        if (kl := limit.kl(point, stop_above=limit.max_kl)) <= limit.max_kl:
            return Choice(replace(trial, x=tuple(point.tolist()), score=score(point)), kl, strength)
        strength *= MARGIN
    return None


def multiplier(kls: Sequence[float], limit: float) -> float:
    """Return the multiplier at the last of these trials.

    Args:
        kls: divergence of each trial so far on its part of the contexts, in nats a token.
        limit: the largest divergence, in nats a token.

    Example:
        >>> multiplier([0.0, 0.02], 0.03) < multiplier([0.0, 0.06], 0.03)
        True
    """
    total, excess = INITIAL, -1.0
    for n in range(1, len(kls) + 1):
        excess = recent_kl(kls[max(0, n - RECENT) : n]) / (MARGIN * limit) - 1
        total = max(0.0, total + INTEGRAL * min(excess, 1.0))
    return max(0.0, total + PROPORTIONAL * min(excess, LARGEST))


def limited_direction(
    gradient: Float[Tensor, " d"], kl_gradient: Float[Tensor, " d"], weight: float
) -> Float[Tensor, " d"]:
    """Return the direction to follow: the unit gradient of the score less the weighted one of the divergence.

    Args:
        gradient: of the score; zero once the score has reached its target.
        kl_gradient: of the divergence; zero at the identity.
        weight: the multiplier.
    """
    return _unit(gradient) - weight * _unit(kl_gradient)


def _unit(vector: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
    length = vector.norm()
    return vector / length if length > 0 else vector
