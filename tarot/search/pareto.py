"""Reward against fluency: the trials of a search that no other beats in both."""

from collections.abc import Mapping

import torch
from botorch.utils.multi_objective.pareto import is_non_dominated

from tarot.objectives.text_scores import TextScores


def pareto(outcomes: Mapping[int, TextScores]) -> list[int]:
    """Trials that no other equals or beats in reward and fluency at once, by rising fluency; of equals, the first."""
    trials = sorted(outcomes)
    if not trials:
        return []
    both = torch.tensor([[outcomes[i].reward, outcomes[i].fluency] for i in trials], dtype=torch.float64)
    kept = is_non_dominated(both, deduplicate=True).tolist()
    return sorted((i for i, keep in zip(trials, kept, strict=True) if keep), key=lambda i: outcomes[i].fluency)
