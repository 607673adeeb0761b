"""FIXME: one sentence on this module."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval.api.task import Task

from tarot.errors import TarotError
from tarot.evaluation.results import OUTSIDE, Arm
from tarot.models.missing_numbers import has_number
from tarot.objectives.documents import right_choice


def logged_documents(results: Mapping[str, Any], task: str) -> list[Any]:
    """What lm-eval logged of a task's documents, each once: as the task's first filter leaves its answers."""
    documents: list[dict[str, Any]] = results["samples"][task]
    return [document for document in documents if document["filter"] == documents[0]["filter"]]


def metric_value(results: Mapping[str, Any], task: str, name: str) -> float:
    """One task's value of one metric, by the first filter that has it."""
    values = results["results"][task]
    found = [value for key, value in values.items() if key.split(",")[0] == name]
    if not found:
        raise TarotError(
            f"a metric of {task}", repr(name), f"it has {', '.join(sorted({k.split(',')[0] for k in values}))}"
        )
    return float(found[0])


def n_documents(results: Mapping[str, Any], task: str) -> int:
    """How many documents of a task were evaluated."""
    return int(results["n-samples"][task]["effective"])


# A document as lm-eval logs it: "doc", "arguments" (context and continuation of each answer), "filtered_resps" ...
LoggedDocument = Mapping[str, Any]


def n_choices(document: LoggedDocument) -> int:
    """Of the answers that lm-eval logged: behind the choices, `acc_mutual_info` has them again without a context."""
    n = len(document["filtered_resps"])
    return n // 2 if "acc_mutual_info" in document["metrics"] else n


def read_answers(task: Task, documents: Sequence[LoggedDocument]) -> tuple[tuple[int, ...], Arm]:
    """Right answers and an arm (nameless, of no labels) from the documents that lm-eval logged, each once.

    A document without choices has one right answer, 0: greedy decoding wrote it, or something OUTSIDE. Where choices
    are different contexts of one text, nothing that could be written tells them apart: the likeliest counts as greedy.
    A document without a number is answered OUTSIDE with probability 0.
    """
    check_scorable(task)
    gold: list[int] = []
    predicted: list[int] = []
    greedy: list[int] = []
    probability: list[float] = []
    missing = []
    for row, document in enumerate(documents):
        scored = document["filtered_resps"]
        if not has_number(document):
            chooses = task.OUTPUT_TYPE == "multiple_choice" and n_choices(document) > 1
            gold.append(right_choice(task, f"document {document['doc_id']}", document["doc"]) if chooses else 0)
            predicted.append(OUTSIDE)
            greedy.append(OUTSIDE)
            probability.append(0.0)
            missing.append(row)
            continue
        if isinstance(scored[0], str):
            right = float(document["exact_match"])
            gold.append(0)
            predicted.append(0 if right else OUTSIDE)
            greedy.append(predicted[-1])
            probability.append(right)
            continue
        n = n_choices(document)
        values = [float(value) for value, _ in scored[:n]]
        target = right_choice(task, f"document {document['doc_id']}", document["doc"]) if n > 1 else 0
        gold.append(target)
        greedy.append(greedy_choice([flag for _, flag in scored[:n]], [text for _, text in document["arguments"]]))
        predicted.append(max(range(n), key=values.__getitem__) if n > 1 else greedy[-1])
        if task.multiple_input:
            greedy[-1] = predicted[-1]
        probability.append(math.exp(values[target]))
    arm = Arm("", 0, tuple(predicted), tuple(greedy), tuple(probability), 0.0, without_number=tuple(missing))
    return tuple(gold), arm


def check_scorable(task: Task) -> None:
    """Raise TarotError unless the answers to a task can be told right from wrong."""
    if task.OUTPUT_TYPE not in ("multiple_choice", "loglikelihood", "generate_until"):
        hint = "leave it out; tarot evaluate has its metrics"
        raise TarotError(f"right and wrong answers in {task.config.task}", f"output type {task.OUTPUT_TYPE}", hint)
    if task.OUTPUT_TYPE == "generate_until" and "exact_match" not in (names := task.aggregation()):
        asked = f"choices or the metric exact_match in {task.config.task}"
        raise TarotError(asked, ", ".join(names) or "no metric", "evaluate it instead")


def greedy_choice(flags: Sequence[bool], read_answers: Sequence[str]) -> int:
    """The choice that greedy decoding writes, of those it is flagged for, or OUTSIDE.

    One that begins another is greedy whenever the longer one is, which is the answer then.
    """
    return max((i for i, flag in enumerate(flags) if flag), key=lambda i: len(read_answers[i]), default=OUTSIDE)


def question_text(task: Task, doc: Any) -> str:
    """A document as asked: its text and, where the answer's turn begins with words of its own, these."""
    text, begun = task.doc_to_text(doc), task.doc_to_prefix(doc)
    asked = text if isinstance(text, str) else str(task.doc_to_choice(doc))
    return f"{asked} {begun}" if begun else asked
