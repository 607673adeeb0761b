"""Read documents, metrics and answers from lm-eval's results."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval.api.task import Task

from tarot.errors import TarotError, printable
from tarot.evaluation.results.comparison import LONGEST_ANSWER, OUTSIDE, Arm
from tarot.models.missing_numbers import has_number
from tarot.objectives.tasks.documents import right_choice

LoggedDocument = Mapping[str, Any]
"""A document as lm-eval logs it: "doc", "arguments" (context and continuation of each answer), "filtered_resps" ..."""


def logged_documents(results: Mapping[str, Any], task: str) -> list[Any]:
    """Return the logged documents of a task, each once, with the answers of the task's first filter.

    Example:
        >>> results = tarot.evaluate(model, tokenizer, "synth_color", limit=4)
        >>> [document["doc_id"] for document in logged_documents(results, "synth_color")]
        [0, 1, 2, 3]
    """
    documents: list[dict[str, Any]] = results["samples"][task]
    return [document for document in documents if document["filter"] == documents[0]["filter"]]


def n_documents(results: Mapping[str, Any], task: str) -> int:
    """Return how many documents of a task were evaluated."""
    return int(results["n-samples"][task]["effective"])


def n_choices(document: LoggedDocument) -> int:
    """Return how many choices a document has; `acc_mutual_info` logs each of them again without a context."""
    n = len(document["filtered_resps"])
    return n // 2 if "acc_mutual_info" in document["metrics"] else n


def question_text(task: Task, doc: Any) -> str:
    """Return a document as the prompt shows it, with the words that begin the answer's turn, if any."""
    text, prefix = task.doc_to_text(doc), task.doc_to_prefix(doc)
    question = text if isinstance(text, str) else str(task.doc_to_choice(doc))
    return f"{question} {prefix}" if prefix else question


def choice_texts(task: Task, documents: Sequence[LoggedDocument]) -> tuple[tuple[str, ...], ...]:
    """Return the text of each choice of each document; of a document without choices, its one right answer."""
    return tuple(tuple(shorten_answer(str(text)) for text in _choices(task, document)) for document in documents)


def _choices(task: Task, document: LoggedDocument) -> Sequence[Any]:
    if task.OUTPUT_TYPE == "generate_until":
        return [document["target"]]
    if task.OUTPUT_TYPE == "multiple_choice" and task.multiple_input:
        return list(task.doc_to_choice(document["doc"]))
    return [answer for _, answer in document["arguments"][: n_choices(document)]]


def shorten_answer(text: str) -> str:
    r"""Return the beginning of an answer in printable characters: a line break becomes `\n`.

    Example:
        >>> shorten_answer(" I'm sorry\n")
        " I'm sorry\\n"
    """
    text = printable(text)
    return text if len(text) <= LONGEST_ANSWER else f"{text[: LONGEST_ANSWER - 1]}\N{HORIZONTAL ELLIPSIS}"


def check_scorable(task: Task) -> None:
    """Raise TarotError unless a task's answers are right or wrong: choices, one text, or the metric exact_match."""
    if task.OUTPUT_TYPE not in ("multiple_choice", "loglikelihood", "generate_until"):
        hint = "leave it out; tarot evaluate has its metrics"
        raise TarotError(f"right and wrong answers in {task.config.task}", f"output type {task.OUTPUT_TYPE}", hint)
    if task.OUTPUT_TYPE == "generate_until" and "exact_match" not in (metrics := task.aggregation()):
        expected = f"choices or the metric exact_match in {task.config.task}"
        raise TarotError(expected, ", ".join(metrics) or "no metric", "evaluate it instead")


def read_answers(task: Task, documents: Sequence[LoggedDocument]) -> tuple[tuple[int, ...], Arm]:
    """Read the answers to logged documents, each document once.

    A document without choices has one right answer, 0: greedy decoding writes it, or something OUTSIDE. If the choices
    are contexts of one continuation, greedy decoding cannot tell them apart, and the likeliest counts as greedy. A
    document without a number counts as answered OUTSIDE with probability 0.

    Returns:
        The right choice of each document, and an arm without a name, labels or seconds.

    Raises:
        TarotError: the task's answers are not right or wrong, or a document has no right choice.
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


def greedy_choice(flags: Sequence[bool], answers: Sequence[str]) -> int:
    """Return the choice that greedy decoding writes, or OUTSIDE.

    If one choice is a prefix of another, both may be greedy; take the longer.

    Args:
        flags: whether greedy decoding writes each choice.
        answers: the choices' texts.

    Example:
        >>> greedy_choice([True, True, False], [" no", " none", " yes"])
        1
    """
    return max((i for i, flag in enumerate(flags) if flag), key=lambda i: len(answers[i]), default=OUTSIDE)
