"""Find the documents for which a model gave no number: a log-probability or a metric that is NaN or infinite.

`argmax` over NaNs returns index 0, so that a model that computes only NaN would get the accuracy of guessing.
"""

import logging
import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from transformers import LogitsProcessor

from tarot.errors import TarotError, describe_missing_numbers

logger = logging.getLogger(__name__)

HINT = "the weights are broken or overflow (try --dtype float32), or the edit breaks the model"


class BrokenRows(LogitsProcessor):
    """End each generated text whose next-token logits are not numbers, and record its row.

    Args:
        end: the token that ends a text.
    """

    def __init__(self, end: int) -> None:
        self.end = end
        self.rows: set[int] = set()

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Leave the scores (`row x vocabulary`) of other rows as they are."""
        usable = (scores < math.inf).all(-1) & (scores > -math.inf).any(-1)  # both are false for NaN
        if bool(usable.all()):
            return scores
        self.rows |= set((~usable).nonzero()[:, 0].tolist())
        ended = torch.full_like(scores, -math.inf)
        ended[:, self.end] = 0.0
        return torch.where(usable[:, None], scores, ended)  # type: ignore[return-value]  # a tensor of the same kind


def is_number(value: object) -> bool:
    """Whether all floats in a value, or in its nested lists, tuples and arrays, are finite."""
    if isinstance(value, float):
        return math.isfinite(value)
    if hasattr(value, "tolist"):
        return is_number(value.tolist())
    if isinstance(value, Mapping):
        return all(map(is_number, value.values()))
    return not isinstance(value, list | tuple) or all(map(is_number, value))


def has_number(document: Mapping[str, Any]) -> bool:
    """Whether all answers and metrics that lm-eval logged of a document are numbers, and there is an answer."""
    answers = document["filtered_resps"]
    if document.get("without_number") or not len(answers):
        return False
    return is_number(answers) and all(is_number(document.get(name)) for name in document["metrics"])


def note_missing(results: dict[str, Any], unanswered: Mapping[str, Collection[int]]) -> None:
    """Record the documents without a number under "without_number": their ids by task; mark them in "samples".

    The metrics of a task none of whose documents has a number become NaN.

    Args:
        results: of lm-eval, with samples; changed in place.
        unanswered: ids by task of documents whose texts could not be generated.

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


def check_some_number(missing: Mapping[str, Collection[int]], counts: Mapping[str, int]) -> None:
    """Log how many documents of each task have no number.

    Raises:
        TarotError: none has.
    """
    if missing and all(len(missing.get(task, ())) == n for task, n in counts.items()):
        names = ", ".join(counts)
        got = f"NaN or infinity for all {sum(counts.values())} documents of {names}"
        raise TarotError("finite log-probabilities", got, HINT)
    for note in notes({task: sorted(ids) for task, ids in missing.items()}, counts):
        logger.warning("%s", note)


def notes(missing: Mapping[str, list[int]], counts: Mapping[str, int]) -> list[str]:
    """State for each task which of its documents have no number."""
    return [f"{task}: {describe_missing_numbers(ids, counts[task])}" for task, ids in missing.items()]


def strict(value: Any) -> Any:
    """The value with null in place of NaN and infinity, which JSON has no way to write."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: strict(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [strict(each) for each in value]
    return value


def grouped(requests: Iterable[Any]) -> dict[str, set[int]]:
    """Ids of the documents of lm-eval's requests, by task."""
    found: dict[str, set[int]] = {}
    for request in requests:
        found.setdefault(request.task_name or "no task", set()).add(request.doc_id or 0)
    return found
