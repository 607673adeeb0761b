"""Measurements of an adapter, as its model card shows them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable


@dataclass(frozen=True)
class Measurement:
    """Scores of an edited model and of what it is compared with, on the same held-out documents.

    Attributes:
        task: lm-eval task.
        metric: name of the score, such as `greedy_f1`.
        title: the score in words.
        n_documents: number of documents.
        scores: name, labelled documents seen, and score of each arm; the number is None where it has no meaning.
        edited: name of the edited arm.
        gain: edited minus base, and the ends of its 95% CI.
        command: shell line that repeats the measurement.
        adapter: fingerprint of the adapter.
        differences: edited minus each other arm, and the ends of its 95% CI, by the arm's name; empty if not computed.
        notes: sentences on the scores, such as which documents have no number.
    """

    task: str
    metric: str
    title: str
    n_documents: int
    scores: tuple[tuple[str, int | None, float], ...]
    edited: str
    gain: tuple[float, float, float]
    command: str
    adapter: str
    notes: tuple[str, ...] = ()
    differences: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)

    @property
    def edited_score(self) -> float:
        """Score of the edited arm."""
        return next(score for name, _, score in self.scores if name == self.edited)


@runtime_checkable
class MeasuredResult(Protocol):
    """A result that a model card can show: `tarot.Comparison`, for example."""

    def to_measurement(self) -> Measurement:
        """Return what the card shows of the result."""
        ...
