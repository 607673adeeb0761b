"""The Pareto front of a search: trials that no other trial beats in both reward and fluency."""

from collections.abc import Mapping

import torch
from botorch.utils.multi_objective.pareto import is_non_dominated

from tarot.objectives.text_scores import TextScores


def pareto_front(scores: Mapping[int, TextScores]) -> list[int]:
    """Return the trials that no other equals or beats in both reward and fluency, by rising fluency.

    Args:
        scores: of each trial's texts, by its index. Of equal trials the first is returned.

    Example:
        >>> better, worse = TextScores(0.5, -2.0, 1.0, 0.0), TextScores(0.4, -3.0, 1.0, 0.0)
        >>> pareto_front({0: worse, 1: better})
        [1]
    """
    trials = sorted(scores)
    if not trials:
        return []
    both = torch.tensor([[scores[i].reward, scores[i].fluency] for i in trials], dtype=torch.float64)
    kept = is_non_dominated(both, deduplicate=True).tolist()
    return sorted((i for i, keep in zip(trials, kept, strict=True) if keep), key=lambda i: scores[i].fluency)
