"""The published search with the sign that its code has: it proposes points that are likely to score worse.

The code minimises a negated score but maximises the improvement over its minimum. The
product's search `paper` is the same with the sign corrected.
Source: Singh, Dutta and Chakraborty, Mechanistic Behavior Editing of Language Models, arXiv 2410.04277.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from tarot.search.algorithms.acquisition import maximise_acquisition
from tarot.search.algorithms.base import Proposal
from tarot.search.algorithms.paper import SETTINGS, Paper, fit_surrogate
from tarot.search.trials import Trial


class Published(Paper):
    """`Paper` on negated scores, improving on their minimum."""

    def _improve(self, history: Sequence[Trial]) -> Proposal:
        negated = [replace(trial, score=-trial.score) for trial in history]
        return maximise_acquisition(negated, self.seed, fit_surrogate, **SETTINGS, incumbent=torch.min)
