"""In-context learning from the labels that a search may use: chosen shots, draws of them, and contextual calibration.

Everything is asked by lm-eval's own task object, whose sampler hands out the chosen documents to every question.

Source of the calibration: Zhao et al. (2021), Calibrate Before Use, arXiv 2102.09690.
"""

import re
from collections.abc import Mapping, Sequence
from math import exp, fsum, log
from pathlib import Path
from random import Random
from typing import Any

from lm_eval import evaluator
from lm_eval.api.instance import Instance
from lm_eval.api.samplers import FirstNSampler
from lm_eval.api.task import Task

from tarot.errors import TarotError
from tarot.evaluation.lm_eval_results import LoggedDocument, n_choices
from tarot.models.lm_eval_model import TarotLM
from tarot.models.loaded_model import LoadedModel
from tarot.models.missing_numbers import note_missing
from tarot.objectives.documents import Doc, document_key
from tarot.objectives.prompts import get_chat_template
from tarot.objectives.shots import forbids_shots
from tarot.objectives.task_loading import load_tasks
from tarot.objectives.tuning_split import check_disjoint

CONTENT_FREE = ("N/A", "", "[MASK]")


def labelled_documents(task: Task, drawn: Sequence[Mapping[str, Any]]) -> list[Doc]:
    """The documents that a search was given, from the "samples_drawn" of its adapter, in their order.

    Raises:
        TarotError: the task's data holds another document in a sample's place.
    """
    splits: dict[str, list[Doc]] = {}
    found = []
    for sample in drawn:
        split, _, row = sample["id"].rpartition("/")
        if split not in splits:
            splits[split] = list(
                task.training_docs() if split == task.config.training_split else task.validation_docs()
            )
        doc = splits[split][int(row)] if int(row) < len(splits[split]) else None
        if doc is None or document_key(task, doc) != sample["key"]:
            raise TarotError(f"the data that the adapter was tuned on in {sample['id']}", "other data", "tune again")
        found.append(doc)
    return found


def draw_shots(docs: Sequence[Doc], k: int, draws: int, seed: int) -> list[list[Doc]]:
    """`draws` independent choices and orders of k documents; the first do not depend on how many follow."""
    return [Random(f"{seed}/{draw}").sample(list(docs), k) for draw in range(draws)]


def evaluate_with_shots(
    loaded: LoadedModel,
    name: str,
    shots: Sequence[Doc],
    *,
    include_path: str | Path | None = None,
    limit: int | None = None,
    apply_chat_template: bool = True,
    batch_size: int | None = None,
) -> dict[str, Any]:
    """lm-eval's results of the unedited model on a task, each prompt beginning with these documents, answered."""
    selected = load_tasks([name], include_path)
    (task,) = selected["tasks"].values()
    if forbids_shots(task):
        raise TarotError(f"a task that takes shots, not {name}", "num_fewshot: 0 in its file", "compare without shots")
    check_disjoint(task, (document_key(task, shot) for shot in shots))
    task.sampler = FirstNSampler(list(shots))
    task.set_config("num_fewshot", len(shots))
    lm = TarotLM(loaded.model, tokenizer=loaded.tokenizer, batch_size=batch_size or "auto")
    templated = get_chat_template(lm, apply_chat_template) is not None
    results: dict[str, Any] = evaluator.evaluate(
        lm, selected, limit=limit, apply_chat_template=templated, fewshot_as_multiturn=True, bootstrap_iters=100
    )
    note_missing(results, lm.unanswered)
    return results


def can_calibrate(task: Task) -> bool:
    """Whether a task chooses between answers to one question: calibration has nothing to weigh otherwise."""
    return task.OUTPUT_TYPE == "multiple_choice" and not task.multiple_input


def calibrate(
    loaded: LoadedModel, task: Task, logged: Sequence[LoggedDocument], frame: tuple[str, str]
) -> list[LoggedDocument]:
    """log q(c) = log p(c | prompt) - log mean of p(c | content-free prompts) + const: W = diag(p_cf)^-1, b = 0.

    p is normalised over a document's choices. A calibrated answer is one of them: its greedy one is its likeliest.

    Args:
        loaded: the model that answered.
        task: the task that asked.
        logged: documents with uncalibrated answers.
        frame: what stands before and after the content of every question; see `question_frame`.

    Raises:
        TarotError: a prompt that does not hold its question as the task writes it.
    """
    prompts = [[_content_free(task, document, frame, content) for content in CONTENT_FREE] for document in logged]
    # Shots and frame are shared, so a handful of prompts serves all documents.
    pairs = {
        (prompt, answer)
        for document, free in zip(logged, prompts, strict=True)
        for prompt in free
        for _, answer in document["arguments"][: n_choices(document)]
    }
    ordered = sorted(pairs)
    lm = TarotLM(loaded.model, tokenizer=loaded.tokenizer)
    asked = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(ordered)]
    scores = lm.loglikelihood(asked, disable_tqdm=True)
    known = {pair: value for pair, (value, _) in zip(ordered, scores, strict=True)}
    return [_reweighted(document, free, known) for document, free in zip(logged, prompts, strict=True)]


def question_frame(texts: Sequence[str]) -> tuple[str, str]:
    """What all questions begin and end with, cut between words: the format that a content-free input is put into."""
    if len(texts) < 2:
        return "", ""
    before = _upto_space(_common(texts))
    rests = [text[len(before) :][::-1] for text in texts]
    return before, _upto_space(_common(rests))[::-1]


def _common(texts: Sequence[str]) -> str:
    first, last = min(texts), max(texts)
    return first[
        : next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    ]


def _upto_space(text: str) -> str:
    found = re.match(r"(?s).*\s", text)
    return found[0] if found else ""


def _content_free(task: Task, document: LoggedDocument, frame: tuple[str, str], content: str) -> str:
    question = str(task.doc_to_text(document["doc"])).strip()  # templates of chats strip messages
    head, found, tail = document["arguments"][0][0].rpartition(question)
    if not found:
        raise TarotError(f"the question {question!r} in its prompt", "a prompt without it")
    return head + (frame[0] + content + frame[1]).strip() + tail


def _reweighted(
    document: LoggedDocument, prompts: Sequence[str], known: Mapping[tuple[str, str], float]
) -> LoggedDocument:
    n, scored = n_choices(document), document["filtered_resps"]
    answers = [answer for _, answer in document["arguments"][:n]]
    free = [_normalised([known[prompt, answer] for answer in answers]) for prompt in prompts]
    prior = [_log_mean(column) for column in zip(*free, strict=True)]
    given = [float(value) for value, _ in scored[:n]]
    values = _normalised([value - weight for value, weight in zip(given, prior, strict=True)])
    best = max(range(len(values)), key=values.__getitem__)
    return {**document, "filtered_resps": [*((value, i == best) for i, value in enumerate(values)), *scored[n:]]}


def _normalised(values: Sequence[float]) -> list[float]:
    """log softmax."""
    total = _log_mean(values) + log(len(values))
    return [value - total for value in values]


def _log_mean(values: Sequence[float]) -> float:
    """log mean exp."""
    top = max(values)
    return top + log(fsum(exp(value - top) for value in values) / len(values))
