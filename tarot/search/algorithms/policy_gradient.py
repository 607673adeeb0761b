"""Policy gradient, the default search for rewards: follow the gradient of the expected return of sampled texts.

Every step draws texts anew (`tarot.objectives.policy`). Steps are Adam's at a falling rate, with one scale for all
coordinates: nine tenths of such a gradient are noise, and a scale for each coordinate would turn an angle that hardly
matters as far as one that does. A trial's score is the reward of the texts for prompts that no gradient uses, so the
best trial is the one at which the search should have stopped; `patience` trials without a better one end it.

A fluency floor is a constraint: its multiplier weights fluency in the return, grows while the texts are less fluent
than the floor's middle, and falls while they are more. A trial below the floor is followed by the midpoint between it
and the last one above, as every failed trial of Adam is.

Sources: see `tarot.objectives.rewards.advantages`.
"""

import math
from typing import ClassVar

import torch

from tarot._files.json_log import IndexedLog
from tarot.edit.rotation import Angles
from tarot.objectives.generated import GenerationObjective
from tarot.objectives.policy import N_DRAWS, DrawSet, PolicyObjective
from tarot.objectives.rewards.advantages import next_multiplier
from tarot.objectives.rewards.fluency import FluencyFloor
from tarot.objectives.rewards.text_scores import TextScores
from tarot.search.algorithms.adam import Adam
from tarot.search.algorithms.points import stable_seed

# An evaluation generates and scores one text for each sample. A trial does so once for its score, and for each of the
# `N_DRAWS` texts a sample that its gradient follows; the gradient's passes over such a text count for three more.
TRIAL_COST = 1 + 4 * N_DRAWS
MULTIPLIER_RATE = 2.0  # spreads of the reward a nat: what texts below the middle by the floor's whole width add
NARROWEST_FLOOR = 0.01  # nats a token


class PolicyGradient(Adam):
    """Propose the identity, then steps of Adam at its own rate and with one scale; see `Adam`."""

    trial_cost: ClassVar[int] = TRIAL_COST
    default_budget: ClassVar[int] = 240  # 14 steps
    patience: ClassVar[float] = 18
    rate: ClassVar[float] = 1 / 160
    halving: ClassVar[int] = 24
    one_scale: ClassVar[bool] = True


class DrawLog(IndexedLog[DrawSet]):
    """The texts that a policy gradient followed, in the file `draws.json` beside the trials.

    A search that was interrupted follows the draws in the file, so its trials are those of an uninterrupted one.
    """

    file, kind, title, indent = "draws.json", DrawSet, "draws", None


class PolicySteps:
    """Score and gradient of one trial after another.

    Args:
        policy: samples the texts that the gradient follows.
        checked: scores greedy texts for other prompts, which no gradient uses.
        floor: how far the fluency of these texts may fall.
        seed: random seed of the search.
    """

    def __init__(self, policy: PolicyObjective, checked: GenerationObjective, floor: FluencyFloor, seed: int) -> None:
        self.policy = policy
        self.checked = checked
        self.floor = floor
        self.seed = seed

    def __call__(self, trial: int, angles: Angles, log: DrawLog) -> tuple[TextScores, Angles]:
        """Return what the texts of these angles (radians) score, and the gradient to follow, per radian.

        A refused edit has no gradient, and nothing is drawn for it.

        Args:
            trial: its index; the seed of its draws depends on it.
            angles: of the trial.
            log: the draws so far; receives those of this trial.
        """
        scores = self.checked.evaluate(angles)
        if scores.refused:
            return scores, torch.full_like(angles, math.nan)
        if trial not in log.entries:
            earlier = [draws.multiplier for index, draws in log.entries.items() if index < trial]
            before = earlier[-1] if earlier else 0.0
            multiplier = next_multiplier(before, self.shortfall(scores.fluency), MULTIPLIER_RATE)
            draws = self.policy.draw(angles, stable_seed(self.seed, trial), multiplier)
            if not draws.is_finite:  # no file can hold them; the trial fails, and the next one draws again
                return scores, torch.full_like(angles, math.nan)
            log.add(trial, draws)
        return scores, self.policy.gradient(angles, log.entries[trial])

    def shortfall(self, fluency: float) -> float:
        """Return how far a fluency is below the middle of the floor, in widths of the floor."""
        base = self.checked.base.fluency
        width = max(base - self.floor.minimum(base), NARROWEST_FLOOR)
        return (base - fluency) / width - 0.5 if width < float("inf") else 0.0
