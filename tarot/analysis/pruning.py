"""Prune an adapter: find a small set of turned heads that keeps a share of its gain."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from tarot.analysis.adapter_objective import adapter_objective
from tarot.analysis.heads import Head, Score, attribute_heads, edited_heads, keep_heads
from tarot.arguments import require_number
from tarot.edit.adapter import Adapter
from tarot.edit.provenance import MEASURED
from tarot.edit.rotation import Angles
from tarot.errors import TarotError
from tarot.models.loaded_model import LoadedModel


@dataclass(frozen=True)
class PruningResult:
    """The angles that are left, and how they were found.

    Attributes:
        angles: radians; zero for the heads that were dropped.
        heads: the heads that are left.
        n_edited: number of heads that were turned before.
        base: score of the unedited model.
        edited: score with all heads.
        score: score with the heads that are left.
        evaluations: number of sets of heads that were scored.
    """

    angles: Angles
    heads: frozenset[Head]
    n_edited: int
    base: float
    edited: float
    score: float
    evaluations: int


def check_keep(keep: float) -> None:
    """Raise InvalidValueError unless the share is above 0 and at most 1."""
    require_number("keep", keep, "a share of the gain, above 0 and at most 1", lambda x: 0 < x <= 1)


def prune_heads(
    score: Score,
    angles: Angles,
    keep: float = 0.9,
    importance: Float[Tensor, "layer head"] | None = None,
    on_score: Callable[[int, int], None] = lambda evaluations, heads: None,
) -> PruningResult:
    """Find a small set of heads with score >= base + keep (edited - base).

    Drop the least important heads first, in batches that double after a success and halve after a failure, down to one
    head. Repeat until no head can be dropped. No single head of the result is superfluous then, but a smaller set of
    other heads may exist. After the first round, a head's importance is the loss measured when it was last dropped
    alone.

    Args:
        score: scores angles on samples; higher is better. NaN rejects the angles.
        angles: radians.
        keep: share of the gain to keep, above 0 and at most 1.
        importance: an estimate of each head's share of the gain; None takes the norm of its angles.
        on_score: called after each evaluation with their number, and with the number of heads still turned.

    Raises:
        TarotError: `keep` is out of range, or the angles gain nothing.
    """
    check_keep(keep)
    scores: dict[frozenset[Head], float] = {}
    kept = all_heads = edited_heads(angles)

    def score_of(heads: frozenset[Head]) -> float:
        if heads not in scores:
            value = score(keep_heads(angles, heads))
            scores[heads] = -math.inf if math.isnan(value) else value
            on_score(len(scores), len(kept))
        return scores[heads]

    base, edited = score_of(frozenset()), score_of(all_heads)
    if not edited > base:
        raise TarotError(
            f"The edit gains nothing on its own samples: {base:.4f} without it and {edited:.4f} with it; tune it first."
        )
    floor = base + keep * (edited - base)
    guess = angles.norm(dim=-1) if importance is None else importance
    worth = {head: float(guess[head]) for head in all_heads}
    at_once = max(1, len(all_heads) // 2)
    while True:
        before, queue = kept, sorted(kept, key=lambda head: (worth[head], head))
        while queue:
            candidates = queue[:at_once]
            value = score_of(kept.difference(candidates))
            if len(candidates) == 1:
                worth[candidates[0]] = score_of(kept) - value
            if value >= floor:
                kept, queue, at_once = kept.difference(candidates), queue[len(candidates) :], 2 * at_once
            elif len(candidates) > 1:
                at_once = len(candidates) // 2
            else:
                queue = queue[1:]
        if kept == before:
            return PruningResult(
                keep_heads(angles, kept), kept, len(all_heads), base, edited, score_of(kept), evaluations=len(scores)
            )
        at_once = 1


def prune_adapter(
    loaded: LoadedModel,
    adapter: Adapter,
    keep: float = 0.9,
    *,
    reward: str | None = None,
    include_path: str | Path | None = None,
    batch_size: int | None = None,
    on_score: Callable[[int, int], None] = lambda evaluations, heads: None,
) -> Adapter:
    """Return the adapter with a small set of turned heads that keeps a share of its gain on its own samples.

    The provenance records the pruning under "pruned".

    Raises:
        TarotError: `keep` is out of range, or the adapter gains nothing or cannot be scored (see `adapter_objective`).

    Example:
        >>> loaded = tarot.load_model("wheel:smollm2-135m")
        >>> smaller = prune_adapter(loaded, adapter, keep=0.8)
        >>> len(edited_heads(smaller.angles)) <= len(edited_heads(adapter.angles))
        True
    """
    objective = adapter_objective(loaded, adapter, reward=reward, include_path=include_path, batch_size=batch_size)
    # A reward has no exact gradient. The norm of the angles is the cheaper guess.
    gradient = objective.value_and_grad
    importance = attribute_heads(gradient, adapter.angles) if gradient else None
    result = prune_heads(objective, adapter.angles, keep, importance, on_score)
    record = {
        "from": adapter.fingerprint,
        "before": adapter.provenance.get("pruned"),
        "keep": keep,
        "heads": len(result.heads),
        "of": result.n_edited,
        "evaluations": result.evaluations,
        "scores": {"identity": result.base, "whole": result.edited, "pruned": result.score},
    }
    kept = {name: value for name, value in adapter.provenance.items() if name not in MEASURED}
    scores = {"identity": result.base, "best": result.score}
    return replace(adapter, angles=result.angles, provenance={**kept, "scores": scores, "pruned": record})
