"""Which heads matter: score(one head turned alone) - score(none), and score(all) - score(all but one).

The two differ where heads work together: a head may do nothing alone and still be missed.
"""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tarot.errors import TarotError

# (row of the angles, head in it)
Head = tuple[int, int]
Score = Callable[[Float[Tensor, "layer head angle"]], float]
# angles -> score, and its gradient per radian
ValueAndGrad = Callable[[Float[Tensor, "layer head angle"]], tuple[float, Float[Tensor, "layer head angle"]]]


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
class PruningResult:
    """Angles with only `heads` left of the `of` that were turned, and the scores of none, all, and these."""

    angles: Float[Tensor, "layer head angle"]
    heads: frozenset[Head]
    of: int
    identity: float
    whole: float
    score: float
    evaluations: int


def edited_heads(angles: Float[Tensor, "layer head angle"]) -> frozenset[Head]:
    """The heads with an angle that is not zero."""
    return frozenset((int(row), int(head)) for row, head in angles.ne(0).any(-1).nonzero())


def keep_heads(angles: Float[Tensor, "layer head angle"], heads: Collection[Head]) -> Float[Tensor, "layer head angle"]:
    """The angles of these heads, and zero elsewhere."""
    kept = torch.zeros_like(angles)
    for row, head in heads:
        kept[row, head] = angles[row, head]
    return kept


def head_effects(
    score: Score,
    angles: Float[Tensor, "layer head angle"],
    groups: Sequence[Collection[Head]],
    on_score: Callable[[int], None] = lambda evaluations: None,
) -> tuple[float, float, list[tuple[float, float]]]:
    """score(none), score(all), and of each group of heads what it gains alone and what is lost without it.

    Args:
        score: of angles on samples, higher is better.
        angles: radians.
        groups: heads that are turned and undone together; 2 evaluations each, and 2 more.
        on_score: called after each group with the number of evaluations so far.
    """
    heads = edited_heads(angles)
    identity, whole = score(torch.zeros_like(angles)), score(angles)
    found = []
    for done, group in enumerate(groups):
        gained = score(keep_heads(angles, group)) - identity
        found.append((gained, whole - score(keep_heads(angles, heads.difference(group)))))
        on_score(2 * done + 4)
    return identity, whole, found


def head_maps(
    score: Score, angles: Float[Tensor, "layer head angle"], on_score: Callable[[int], None] = lambda evaluations: None
) -> HeadMaps:
    """Turn one head at a time, and undo one at a time: 2 evaluations a turned head, and 2 more.

    Arguments as for `head_effects`.
    """
    heads = sorted(edited_heads(angles))
    identity, whole, found = head_effects(score, angles, [[head] for head in heads], on_score)
    alone, missed = torch.zeros(2, *angles.shape[:2], dtype=torch.float64)
    for head, values in zip(heads, found, strict=True):
        alone[head], missed[head] = values
    return HeadMaps(identity, whole, alone, missed)


def attributed(
    value_and_grad: ValueAndGrad, angles: Float[Tensor, "layer head angle"], points: int = 4
) -> Float[Tensor, "layer head"]:
    """mean over strengths t of  d score / d angles (t angles) . angles,  of each head: integrated gradients.

    Over all heads they add up to score(angles) - score(0), but for the few points t.

    Source: Sundararajan, Taly and Yan, arXiv 1703.01365.
    """
    slopes = [value_and_grad(angles * (i + 0.5) / points)[1] for i in range(points)]
    return (torch.stack(slopes).mean(0) * angles).sum(-1)


def check_keep(keep: float) -> None:
    """Raise TarotError for a share that is not above 0 and at most 1."""
    if not 0 < keep <= 1:
        raise TarotError("a share of the gain to keep, above 0 and at most 1", repr(keep), "for example 0.9")


def prune_heads(
    score: Score,
    angles: Float[Tensor, "layer head angle"],
    keep: float = 0.9,
    importance: Float[Tensor, "layer head"] | None = None,
    on_score: Callable[[int, int], None] = lambda evaluations, heads: None,
) -> PruningResult:
    """A small set of heads with  score >= identity + keep (whole - identity).

    Heads are dropped in the order of their importance, the least first: as many together as can be spared, twice as
    many after every success, half as many after a failure, one at a time where it is close. This goes round until none
    can be spared, so that no single head of the result could be left out; a smaller set of other heads is not ruled
    out. After the first round, importance is what the head was missed by when it was last tried alone.

    Args:
        score: of angles on samples, higher is better; nan for what must not be.
        angles: radians.
        keep: share of the gain to keep, above 0 and at most 1.
        importance: a guess of what each head brings; None for the norm of its angles.
        on_score: called after each evaluation with their number and that of the heads still turned.

    Raises:
        TarotError: a share outside (0, 1], or angles that do not gain anything.
    """
    check_keep(keep)
    known: dict[frozenset[Head], float] = {}
    kept = everything = edited_heads(angles)

    def scored(heads: frozenset[Head]) -> float:
        if heads not in known:
            value = score(keep_heads(angles, heads))
            known[heads] = -math.inf if math.isnan(value) else value
            on_score(len(known), len(kept))
        return known[heads]

    identity, whole = scored(frozenset()), scored(everything)
    if not whole > identity:
        raise TarotError(
            "an edit that gains on its own samples", f"{identity:.4f} without it and {whole:.4f} with it", "tune it"
        )
    floor = identity + keep * (whole - identity)
    guess = angles.norm(dim=-1) if importance is None else importance
    worth = {head: float(guess[head]) for head in everything}
    at_once = max(1, len(everything) // 2)
    while True:
        before, queue = kept, sorted(kept, key=lambda head: (worth[head], head))
        while queue:
            tried = queue[:at_once]
            found = scored(kept.difference(tried))
            if len(tried) == 1:
                worth[tried[0]] = scored(kept) - found
            if found >= floor:
                kept, queue, at_once = kept.difference(tried), queue[len(tried) :], 2 * at_once
            elif len(tried) > 1:
                at_once = len(tried) // 2
            else:
                queue = queue[1:]
        if kept == before:
            return PruningResult(
                keep_heads(angles, kept), kept, len(everything), identity, whole, scored(kept), evaluations=len(known)
            )
        at_once = 1
