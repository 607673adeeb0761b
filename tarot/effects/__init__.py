"""What an edit changes that it was not tuned for: other tasks, and the text that the model writes by itself."""

from tarot.effects.divergence import Drift, drift
from tarot.effects.folder import measure_effects
from tarot.effects.neutral import NEUTRAL_TOKENS, neutral_text
from tarot.effects.suite import (
    STRENGTHS,
    SUITE,
    Change,
    Strength,
    changes,
    check_strength,
    side_effects_of,
    trade_off,
)

__all__ = [
    "NEUTRAL_TOKENS",
    "STRENGTHS",
    "SUITE",
    "Change",
    "Drift",
    "Strength",
    "changes",
    "check_strength",
    "drift",
    "measure_effects",
    "neutral_text",
    "side_effects_of",
    "trade_off",
]
