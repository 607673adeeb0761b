"""Options of the evaluations of one measurement."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class EvaluationOptions:
    """Options of every evaluation of a measurement, whatever the tasks and edits.

    Attributes:
        include_path: folder of further task files.
        limit: only the first documents of each task: a number, or a fraction below 1; None for all.
        batch_size: largest number of sequences in one pass; None chooses it.
        answers: file that stores the model's answers as they come, so that a later call does not repeat them.
    """

    include_path: str | Path | None = None
    limit: int | float | None = None
    batch_size: int | None = None
    answers: str | Path | None = None


DEFAULT_OPTIONS = EvaluationOptions()
"""All documents, in batches that tarot chooses."""
