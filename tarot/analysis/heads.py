"""Which heads matter: score(one head turned alone) - score(none), and score(all) - score(all but one).

The two differ where heads work together: a head may do nothing on its own, yet removing it may hurt.
"""

from collections.abc import Callable, Collection, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from tarot.analysis.results import HeadMaps, LayerEffects
from tarot.edit.rotation import Angles
from tarot.models.progress import OnStep, ignore_step

Head = tuple[int, int]
"""Row of the angles, and head in it."""
Score = Callable[[Angles], float]
"""Scores angles on samples; higher is better."""
ValueAndGrad = Callable[[Angles], tuple[float, Angles]]
"""Returns the score of angles and its gradient per radian."""


def edited_heads(angles: Angles) -> frozenset[Head]:
    """Return the heads with an angle that is not zero."""
    return frozenset((int(row), int(head)) for row, head in angles.ne(0).any(-1).nonzero())


def keep_heads(angles: Angles, heads: Collection[Head]) -> Angles:
    """Return the angles with all but these heads set to zero."""
    kept = torch.zeros_like(angles)
    for row, head in heads:
        kept[row, head] = angles[row, head]
    return kept


def group_effects(
    score: Score,
    angles: Angles,
    groups: Sequence[Collection[Head]],
    step: str,
    on_step: OnStep = ignore_step,
) -> tuple[float, float, list[tuple[float, float]]]:
    """Return score(none), score(all), and for each group of heads its gain alone and the loss without it.

    Args:
        score: scores angles on samples; higher is better.
        angles: radians.
        groups: heads that are turned and undone together; costs 2 x groups + 2 evaluations.
        step: name of the work, for its progress in evaluations.
        on_step: shows the progress.
    """
    heads = edited_heads(angles)
    base, edited = score(torch.zeros_like(angles)), score(angles)
    effects = []
    for done, group in enumerate(groups):
        gain = score(keep_heads(angles, group)) - base
        effects.append((gain, edited - score(keep_heads(angles, heads.difference(group)))))
        on_step(step, 2 * done + 4, 2 * len(groups) + 2)
    return base, edited, effects


def measure_head_maps(
    score: Score,
    angles: Angles,
    layers: Sequence[int],
    unit: str,
    on_step: OnStep = ignore_step,
) -> HeadMaps:
    """Turn each head alone, and undo each head alone: two evaluations a turned head, and two more.

    Args:
        score: scores angles on samples; higher is better.
        angles: radians.
        layers: the layer of each row of the angles.
        unit: unit of the score.
        on_step: shows the progress.
    """
    heads = sorted(edited_heads(angles))
    base, edited, effects = group_effects(score, angles, [[head] for head in heads], "heads", on_step)
    alone, missed = torch.zeros(2, *angles.shape[:2], dtype=torch.float64)
    for head, values in zip(heads, effects, strict=True):
        alone[head], missed[head] = values
    norms, *maps = (tuple(map(tuple, values.tolist())) for values in (angles.norm(dim=-1), alone, missed))
    return HeadMaps(tuple(layers), unit, base, edited, norms, *maps)


def measure_layer_effects(
    score: Score,
    angles: Angles,
    layers: Sequence[int],
    reward: str,
    on_step: OnStep = ignore_step,
) -> LayerEffects:
    """Turn the heads of each layer alone, and undo them alone: two evaluations a layer with turned heads, and two more.

    Args:
        score: scores angles on samples; higher is better.
        angles: radians.
        layers: the layer of each row of the angles.
        reward: name of the score.
        on_step: shows the progress.
    """
    heads = sorted(edited_heads(angles))
    groups = [group for row in range(len(layers)) if (group := [head for head in heads if head[0] == row])]
    _, _, effects = group_effects(score, angles, groups, "layers", on_step)
    return LayerEffects(
        reward,
        tuple(layers[group[0][0]] for group in groups),
        tuple(map(len, groups)),
        tuple(gain for gain, _ in effects),
        tuple(loss for _, loss in effects),
    )


def attribute_heads(value_and_grad: ValueAndGrad, angles: Angles, points: int = 4) -> Float[Tensor, "layer head"]:
    """Attribute the gain to heads by integrated gradients.

    A head's share is the mean over strengths t of d score / d angles (t angles) . angles, over the head's own angles.
    The shares add up to score(angles) - score(0), except for the error of a mean over few strengths.

    Source: Sundararajan, Taly and Yan, arXiv 1703.01365.
    """
    gradients = [value_and_grad(angles * (i + 0.5) / points)[1] for i in range(points)]
    return (torch.stack(gradients).mean(0) * angles).sum(-1)
