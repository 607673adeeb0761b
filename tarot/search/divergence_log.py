"""The divergences that a search measured on all retained contexts, kept so that a resumed search need not repeat them.

To measure one costs as much as several trials, and for the first the unedited model has to read every context. A search
whose trials are all logged is resumed to write a lost adapter again, and needs nothing else.
"""

import hashlib
import math
from collections.abc import Callable
from pathlib import Path

from typing_extensions import TypedDict

from tarot._files.json_log import read_intact, write_json
from tarot._files.strict_json import Count, Fraction, Name, Number
from tarot.search.algorithms.base import Point

DIVERGENCES_FILE = "divergences.json"


class _Measured(TypedDict):
    """A divergence in nats a token: exact if it is at most `stop_above`, else a lower bound; None is no bound."""

    kl: Number
    stop_above: Number | None


class RetentionNotes(TypedDict):
    """Notes on the retained contexts in an adapter's provenance.

    Attributes:
        contexts: number of contexts of each source.
        tokens: mean number of tokens that a trial runs for them.
        left_out_probability: mean probability of the tokens that the divergence counts as one.
    """

    contexts: dict[Name, Count]
    tokens: Count
    left_out_probability: Fraction


class _Content(TypedDict):
    retained: str
    notes: RetentionNotes | None
    points: dict[str, _Measured]


class DivergenceLog:
    """Keep measured divergences in `divergences.json` beside the trials.

    A file that is damaged, or about other contexts, counts as empty: what it held is measured again.

    Args:
        folder: of the search; None keeps the divergences in memory.
        retained: digest of the retained contexts.

    Attributes:
        notes: on the contexts, for the provenance; None until they were kept.

    Example:
        >>> import torch
        >>> log = DivergenceLog(None, "0123456789abcdef")
        >>> point = torch.tensor([0.5, 0.25])
        >>> log.kl(point, 0.02, measure=lambda: 0.01), log.kl(point, 0.02, measure=lambda: 0.5)
        (0.01, 0.01)
    """

    def __init__(self, folder: Path | None, retained: str) -> None:
        self._path = folder / DIVERGENCES_FILE if folder else None
        self._retained = retained
        self.notes: RetentionNotes | None = None
        self._points: dict[str, _Measured] = {}
        content: _Content | None = read_intact(self._path, _Content)
        if content and content["retained"] == retained:
            self.notes, self._points = content["notes"], content["points"]

    def kl(self, x: Point, stop_above: float, measure: Callable[[], float]) -> float:
        """Return the divergence of a point: the one that is kept, else what `measure` returns, which is kept.

        Args:
            x: the point.
            stop_above: above this, a lower bound is enough.
            measure: measures the divergence, or a lower bound above `stop_above`; nats a token.

        Raises:
            TarotError: The file cannot be written.
        """
        key = _key(x)
        if (known := self._points.get(key)) and _is_enough(known, stop_above):
            return known["kl"]
        kl = measure()
        if math.isfinite(kl):
            self._points[key] = {"kl": kl, "stop_above": stop_above if math.isfinite(stop_above) else None}
            self._write()
        return kl

    def measured_kl(self, x: Point) -> float | None:
        """Return the divergence of a point if it was measured on all contexts, in nats a token, else None."""
        known = self._points.get(_key(x))
        return known["kl"] if known and _is_exact(known) else None

    def keep_notes(self, notes: RetentionNotes) -> None:
        """Keep the notes on the contexts."""
        self.notes = notes
        self._write()

    def _write(self) -> None:
        if self._path:
            write_json(self._path, {"retained": self._retained, "notes": self.notes, "points": self._points})


def _key(x: Point) -> str:
    return hashlib.sha256(x.double().numpy().tobytes()).hexdigest()[:16]


def _is_exact(known: _Measured) -> bool:
    return known["stop_above"] is None or known["kl"] <= known["stop_above"]


def _is_enough(known: _Measured, stop_above: float) -> bool:
    """Return whether a kept divergence answers a question: it is exact, or a bound above what is asked."""
    return _is_exact(known) or known["kl"] > stop_above
