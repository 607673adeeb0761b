"""Find the documents for which a model gave no number: a log-probability or a metric that is NaN or infinite.

`argmax` over NaNs returns index 0, so that a model that computes only NaN would get the accuracy of guessing.
"""

import logging
import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from transformers import LogitsProcessor

from tarot.errors import TarotError, describe_missing_numbers, printable

logger = logging.getLogger(__name__)

NO_NUMBER = "no number (NaN or infinite)"
"""Placeholder for a NaN or infinite score, or for text cut off by one."""
BROKEN_MODEL_HINT = "the weights are broken or overflow (try --dtype float32), or the edit breaks the model"


class BrokenRows(LogitsProcessor):
    """End each generated text whose next-token logits are not numbers, and record its row.

    Attributes:
        rows: rows ended so far.
        length: tokens of a row, prompt included, when the first row was ended; None if none was.
    """

    def __init__(self, end: int) -> None:
        self.end = end
        self.rows: set[int] = set()
        self.length: int | None = None

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Return the scores, `row x vocabulary`, with those of broken rows replaced."""
        usable = (scores < math.inf).all(-1) & (scores > -math.inf).any(-1)  # both are false for NaN
        if bool(usable.all()):
            return scores
        self.length = self.length or input_ids.shape[1]
        self.rows |= set((~usable).nonzero()[:, 0].tolist())
        ended = torch.full_like(scores, -math.inf)
        ended[:, self.end] = 0.0
        return torch.where(usable[:, None], scores, ended)  # type: ignore[return-value]  # torch types it as a plain Tensor


def is_number(value: object) -> bool:
    """Whether all floats in a value, including its nested lists, tuples, mappings and arrays, are finite."""
    if isinstance(value, float):
        return math.isfinite(value)
    if hasattr(value, "tolist"):
        return is_number(value.tolist())
    if isinstance(value, Mapping):
        return all(map(is_number, value.values()))
    return not isinstance(value, list | tuple) or all(map(is_number, value))


def has_number(document: Mapping[str, Any]) -> bool:
    """Whether lm-eval logged an answer to a document, and all its answers and metrics are numbers."""
    answers = document["filtered_resps"]
    if document.get("without_number") or not len(answers):
        return False
    return is_number(answers) and all(is_number(document.get(name)) for name in document["metrics"])


def record_missing_numbers(results: dict[str, Any], unanswered: Mapping[str, Collection[int]]) -> None:
    """Record which documents have no number.

    Their ids go under "without_number", by task, and they are marked in "samples". Where no document of a task has a
    number, the task's metrics become NaN.

    Args:
        results: lm-eval's results with samples, changed in place.
        unanswered: ids, by task, of documents whose texts could not be generated.

    Raises:
        TarotError: no document of any task has a number.
    """
    missing: dict[str, list[int]] = {}
    counts = {}
    for task, documents in results["samples"].items():
        lost = unanswered.get(task, ())
        broken = {each["doc_id"] for each in documents if each["doc_id"] in lost or not has_number(each)}
        for document in documents:
            if document["doc_id"] in broken:
                document["without_number"] = True
        counts[task] = len({document["doc_id"] for document in documents})
        if broken:
            missing[task] = sorted(broken)
    results["without_number"] = missing
    check_some_number(missing, counts)
    for task, broken_ids in missing.items():
        if len(broken_ids) == counts[task]:
            values = results["results"][task]
            values |= {key: math.nan for key, value in values.items() if isinstance(value, float)}


def check_some_number(
    missing: Mapping[str, Collection[int]], counts: Mapping[str, int], *, has_others: bool = False
) -> None:
    """Log how many documents of each task have no number.

    Args:
        missing: ids, by task, of the documents without a number.
        counts: number of documents, by task.
        has_others: whether an earlier run answered further documents.

    Raises:
        TarotError: no document has a number.
    """
    if missing and not has_others and all(len(missing.get(task, ())) == n for task, n in counts.items()):
        names = ", ".join(counts)
        got = f"NaN or infinity for all {sum(counts.values())} documents of {names}"
        raise TarotError("finite log-probabilities", got, BROKEN_MODEL_HINT)
    for note in describe_missing_by_task({task: sorted(ids) for task, ids in missing.items()}, counts):
        logger.warning("%s", note)


def describe_missing_by_task(missing: Mapping[str, list[int]], counts: Mapping[str, int]) -> list[str]:
    """State for each task which of its documents have no number."""
    return [f"{printable(task)}: {describe_missing_numbers(ids, counts[task])}" for task, ids in missing.items()]


def replace_nonfinite(value: Any) -> Any:
    """Replace NaN and infinity, which JSON cannot express, by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: replace_nonfinite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [replace_nonfinite(each) for each in value]
    return value


def documents_by_task(requests: Iterable[Any]) -> dict[str, set[int]]:
    """Return the ids of the documents that lm-eval's requests belong to, by task."""
    ids: dict[str, set[int]] = {}
    for request in requests:
        ids.setdefault(request.task_name or "no task", set()).add(request.doc_id or 0)
    return ids
