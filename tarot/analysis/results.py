"""Results of an analysis, as plain data.

This module does not import torch, so that a report can draw results without loading a model.
"""

from dataclasses import dataclass
from math import exp

import numpy as np
from jaxtyping import Float

from tarot.evaluation.statistics.means import Mean

OBJECTIVE_UNITS = {"log_probability": "nats", "margin": "nats", "probability": "fraction", "accuracy": "fraction"}
"""Unit of each objective over labelled answers; a reward has units of its own."""

HeadValues = tuple[tuple[float, ...], ...]
"""One number a head, `layer x head`."""


@dataclass(frozen=True)
class LensResult:
    """Probability of the right answer's first token after each layer, the mean over documents.

    Attributes:
        edited_layers: the layers that the adapter edits.
        n_documents: documents in the means.
        base: fraction after each layer of the unedited model.
        edited: fraction after each layer of the edited model.
        differences: mean of edited minus base after each layer, with its 95% CI over documents.
    """

    edited_layers: tuple[int, ...]
    n_documents: int
    base: tuple[float, ...]
    edited: tuple[float, ...]
    differences: tuple[Mean, ...]


@dataclass(frozen=True)
class HeadMaps:
    """Contribution of each head to the objective, one row an edited layer; 0 for a head that is not turned.

    Attributes:
        layers: the edited layers.
        unit: unit of the objective, such as nats.
        base: objective of the unedited model.
        edited: objective with all heads turned.
        angle_norms: norm of each head's angles, radians.
        alone: gain of turning the head in the unedited model.
        missed: loss of undoing the head in the edited model.
    """

    layers: tuple[int, ...]
    unit: str
    base: float
    edited: float
    angle_norms: HeadValues
    alone: HeadValues
    missed: HeadValues


@dataclass(frozen=True)
class LayerEffects:
    """Contribution of each layer's heads to a reward.

    Attributes:
        reward: name of the reward.
        layers: the layers that have turned heads.
        n_heads: number of turned heads in each.
        alone: gain of turning them in the unedited model.
        missed: loss of undoing them in the edited model.
    """

    reward: str
    layers: tuple[int, ...]
    n_heads: tuple[int, ...]
    alone: tuple[float, ...]
    missed: tuple[float, ...]


@dataclass(frozen=True)
class TokenChange:
    """Log-probability (nats) of one token as the answer's first, without and with the edit."""

    id: int
    text: str
    base: float
    edited: float


@dataclass(frozen=True)
class Flip:
    """A document that exactly one of base and edited model answers right by greedy decoding.

    Attributes:
        row: place of the document, from 0.
        id: name of the document.
        prompt: text before the right answer.
        fixed: whether the edited model is the one that answers right.
        gold: index of the right choice.
        base: index of the base model's answer; OUTSIDE for text that is no choice.
        edited: index of the edited model's answer, likewise.
        moved: the right answer's first token, then the tokens whose probability changed most.
    """

    row: int
    id: str
    prompt: str
    fixed: bool
    gold: int
    base: int
    edited: int
    moved: tuple[TokenChange, ...]


@dataclass(frozen=True)
class MovedToken:
    """Mean log-probability (nats) of one token over the flips in which it moved, and their number."""

    text: str
    base: float
    edited: float
    n_documents: int


@dataclass(frozen=True)
class FlipsResult:
    """All documents that flipped, in their order.

    Attributes:
        flips: the documents.
        without_number: names of the documents for which one of the models computed NaN or infinity; none is a flip.
    """

    flips: tuple[Flip, ...]
    without_number: tuple[str, ...] = ()

    def most_moved_tokens(self, n: int = 12) -> list[MovedToken]:
        """Return the `n` tokens that moved most, ranked by the sum of their changes in probability."""
        by_token: dict[int, list[TokenChange]] = {}
        for flip in self.flips:
            for change in flip.moved:
                by_token.setdefault(change.id, []).append(change)

        def total_change(changes: list[TokenChange]) -> float:
            return sum(abs(exp(change.edited) - exp(change.base)) for change in changes)

        ranked = sorted(by_token.values(), key=total_change, reverse=True)[:n]
        return [
            MovedToken(
                changes[0].text,
                sum(change.base for change in changes) / len(changes),
                sum(change.edited for change in changes) / len(changes),
                len(changes),
            )
            for changes in ranked
        ]


@dataclass(frozen=True)
class AttentionPattern:
    """Attention weights of one head, without and with the edit.

    Attributes:
        layer: the head's layer.
        head: the head in it.
        angle: norm of the head's angles, radians; 0 for a head that is not turned.
        moved: share of its attention that went elsewhere, the mean over queries; 0 to 1.
        base: weights of the unedited model.
        edited: weights of the edited model.
    """

    layer: int
    head: int
    angle: float
    moved: float
    base: Float[np.ndarray, "query key"]
    edited: Float[np.ndarray, "query key"]


@dataclass(frozen=True)
class AttentionResult:
    """Attention patterns of some heads in one prompt, and the prompt's tokens as text."""

    tokens: tuple[str, ...]
    patterns: tuple[AttentionPattern, ...]


MechanismResult = LensResult | HeadMaps | LayerEffects | FlipsResult | AttentionResult
"""One part of what `measure_mechanism` yields."""
