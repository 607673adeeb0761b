"""Which heads matter: score(one head turned alone) - score(none), and score(all) - score(all but one).

The two differ where heads work together: a head may do nothing alone and still be missed.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tarot.errors import TarotError

# (row of the angles, head in it)
Head = tuple[int, int]
Score = Callable[[Float[Tensor, "layer head angle"]], float]


@dataclass(frozen=True)
class HeadMaps:
    """What each head brings, in the objective's unit; 0 where it is not turned.

    `alone` is the gain of turning it from the unedited model, `missed` the loss of undoing it in the edited one.
    """

    identity: float
    whole: float
    alone: Float[Tensor, "layer head"]
    missed: Float[Tensor, "layer head"]


@dataclass(frozen=True)
class Pruned:
    """Angles with only `heads` left of the `of` that were turned, and the scores of none, all, and these."""

    angles: Float[Tensor, "layer head angle"]
    heads: frozenset[Head]
    of: int
    identity: float
    whole: float
    score: float
    evaluations: int


def turned(angles: Float[Tensor, "layer head angle"]) -> frozenset[Head]:
    """The heads with an angle that is not zero."""
    return frozenset((int(row), int(head)) for row, head in angles.ne(0).any(-1).nonzero())


def only(angles: Float[Tensor, "layer head angle"], heads: Collection[Head]) -> Float[Tensor, "layer head angle"]:
    """The angles of these heads, and zero elsewhere."""
    kept = torch.zeros_like(angles)
    for row, head in heads:
        kept[row, head] = angles[row, head]
    return kept


def head_maps(
    score: Score, angles: Float[Tensor, "layer head angle"], on_score: Callable[[int], None] = lambda evaluations: None
) -> HeadMaps:
    """Turn one head at a time, and undo one at a time: 2 evaluations a turned head, and 2 more.

    Args:
        score: of angles on samples, higher is better.
        angles: radians.
        on_score: called after each evaluation with their number so far.
    """
    heads = turned(angles)
    identity, whole = score(torch.zeros_like(angles)), score(angles)
    alone, missed = torch.zeros(2, *angles.shape[:2], dtype=torch.float64)
    for done, head in enumerate(sorted(heads)):
        alone[head] = score(only(angles, [head])) - identity
        missed[head] = whole - score(only(angles, heads - {head}))
        on_score(2 * done + 4)
    return HeadMaps(identity, whole, alone, missed)


def prune(
    score: Score,
    angles: Float[Tensor, "layer head angle"],
    keep: float = 0.9,
    on_score: Callable[[int, int], None] = lambda evaluations, heads: None,
) -> Pruned:
    """A smallest set of heads with  score >= identity + keep (whole - identity).

    In rounds: every head is undone alone, and as many of the least missed are dropped together as a bisection finds to
    be spared. The last round finds none, so that no single head of the result could be left out; a smaller set of other
    heads is not ruled out.

    Args:
        score: of angles on samples, higher is better.
        angles: radians.
        keep: share of the gain to keep, above 0 and at most 1.
        on_score: called after each evaluation with their number and that of the heads still turned.

    Raises:
        TarotError: a share outside (0, 1], or angles that do not gain anything.
    """
    if not 0 < keep <= 1:
        raise TarotError("a share of the gain to keep, above 0 and at most 1", repr(keep), "for example 0.9")
    known: dict[frozenset[Head], float] = {}
    kept = everything = turned(angles)

    def scored(heads: frozenset[Head]) -> float:
        if heads not in known:
            known[heads] = score(only(angles, heads))
            on_score(len(known), len(kept))
        return known[heads]

    identity, whole = scored(frozenset()), scored(everything)
    if not whole > identity:
        raise TarotError(
            "an edit that gains on its own samples", f"{identity:.4f} without it and {whole:.4f} with it", "tune it"
        )
    floor = identity + keep * (whole - identity)
    while True:
        without = {head: scored(kept - {head}) for head in sorted(kept)}
        least_missed = sorted(kept, key=lambda head: (-without[head], head))
        if not without[least_missed[0]] >= floor:
            return Pruned(
                only(angles, kept), kept, len(everything), identity, whole, scored(kept), evaluations=len(known)
            )
        # `spared` may go together, `too_many` not: all of them would leave the identity.
        spared, too_many = 1, len(least_missed)
        while too_many - spared > 1:
            middle = (spared + too_many) // 2
            enough = scored(kept - frozenset(least_missed[:middle])) >= floor
            spared, too_many = (middle, too_many) if enough else (spared, middle)
        kept -= frozenset(least_missed[:spared])
