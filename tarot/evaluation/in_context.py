"""In-context learning from the labels that a search may use: chosen shots, draws of them, contextual calibration.

lm-eval's own task object renders all prompts; its sampler returns the chosen shots for every document.

Source of the calibration: Zhao et al. (2021), Calibrate Before Use, arXiv 2102.09690.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from math import exp, fsum, log
from random import Random
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.samplers import FirstNSampler
from lm_eval.api.task import Task

from tarot.errors import TarotError
from tarot.evaluation.evaluate import open_answers, run_lm_eval
from tarot.evaluation.lm_eval_results import LoggedDocument, n_choices
from tarot.evaluation.options import DEFAULT_OPTIONS, EvaluationOptions
from tarot.models.lm_eval_model import TarotLM
from tarot.models.loaded_model import LoadedModel
from tarot.objectives.tasks.documents import Doc, document_key
from tarot.objectives.tasks.shots import forbids_shots
from tarot.objectives.tasks.task_loading import load_tasks
from tarot.objectives.tasks.tuning_split import check_disjoint

CONTENT_FREE = ("N/A", "", "[MASK]")
"""Questions without content, whose answers show the model's bias towards each choice."""


def labelled_documents(task: Task, samples: Sequence[Mapping[str, Any]]) -> list[Doc]:
    """Return the documents that an adapter was tuned on, in their order.

    Args:
        task: the adapter's task.
        samples: what the adapter records of them: "id" (split and row) and "key" (digest) of each.

    Raises:
        TarotError: the task's data has another document in a sample's place.
    """
    splits: dict[str, list[Doc]] = {}
    docs = []
    for sample in samples:
        split, _, row = sample["id"].rpartition("/")
        if split not in splits:
            splits[split] = list(
                task.training_docs() if split == task.config.training_split else task.validation_docs()
            )
        doc = splits[split][int(row)] if int(row) < len(splits[split]) else None
        if doc is None or document_key(task, doc) != sample["key"]:
            raise TarotError(f"the data that the adapter was tuned on in {sample['id']}", "other data", "tune again")
        docs.append(doc)
    return docs


def draw_shots(docs: Sequence[Doc], n_shots: int, draws: int, seed: int) -> list[list[Doc]]:
    """Draw shots and their order, independently for each draw; a draw does not depend on how many follow.

    Example:
        >>> draw_shots(["a", "b", "c"], n_shots=2, draws=3, seed=0)[:2] == draw_shots(["a", "b", "c"], 2, 2, 0)
        True
    """
    return [Random(f"{seed}/{draw}").sample(list(docs), n_shots) for draw in range(draws)]


def evaluate_with_shots(
    loaded: LoadedModel,
    task_name: str,
    shots: Sequence[Doc],
    options: EvaluationOptions = DEFAULT_OPTIONS,
    *,
    choose: Callable[[Task, Doc], Sequence[Doc]] | None = None,
    apply_chat_template: bool = True,
) -> dict[str, Any]:
    """Evaluate the unedited model on a task whose prompts begin with the given shots.

    Args:
        loaded: the model and its tokenizer.
        task_name: the task.
        shots: labelled documents.
        options: how the task is evaluated.
        choose: returns the shots of a document, all of them equally many; None shows every shot in every prompt.
        apply_chat_template: render prompts with the tokenizer's chat template, if there is one.

    Returns:
        lm-eval's results, with documents and answers under "samples".

    Raises:
        TarotError: the task allows no shots, a shot is also evaluated, or as for `run_lm_eval`.
    """
    selected = load_tasks([task_name], options.include_path)
    (task,) = selected["tasks"].values()
    if forbids_shots(task):
        expected = f"a task that takes shots, not {task_name}"
        raise TarotError(expected, "num_fewshot: 0 in its file", "compare without shots")
    check_disjoint(task, (document_key(task, shot) for shot in shots))
    show_shots(task, shots)
    if choose:
        _choose_shots(task, choose)
    lm = TarotLM(loaded.model, tokenizer=loaded.tokenizer, batch_size=options.batch_size or "auto")
    log = open_answers(options.answers, loaded, "base") if options.answers else None
    return run_lm_eval(lm, selected, limit=options.limit, apply_chat_template=apply_chat_template, log=log)


def show_shots(task: Task, shots: Sequence[Doc]) -> None:
    """Make every prompt of a task begin with these shots."""
    task.sampler = FirstNSampler(list(shots))
    task.set_config("num_fewshot", len(shots))


def _choose_shots(task: Task, choose: Callable[[Task, Doc], Sequence[Doc]]) -> None:
    """Make each prompt of a task begin with the shots that are chosen for its document."""
    render = task.fewshot_context

    def fewshot_context(doc: Doc, num_fewshot: int, *args: Any, **kwargs: Any) -> Any:
        shots = choose(task, doc)
        task.sampler = FirstNSampler(list(shots))
        return render(doc, len(shots), *args, **kwargs)

    task.fewshot_context = fewshot_context


def can_calibrate(task: Task) -> bool:
    """Whether a task chooses between answers to one question; calibration reweights nothing else."""
    return task.OUTPUT_TYPE == "multiple_choice" and not task.multiple_input


def calibrate(
    loaded: LoadedModel, task: Task, documents: Sequence[LoggedDocument], frame: tuple[str, str]
) -> list[LoggedDocument]:
    """Calibrate answers: log q(c) = log p(c | prompt) - log mean of p(c | content-free prompts) + const.

    p is normalized over a document's choices, so W = diag(p_cf)^-1 and b = 0 in the paper's notation. The greedy answer
    of a calibrated document is its likeliest choice.

    Args:
        loaded: the model that answered.
        task: the task that the documents are of.
        documents: logged documents with uncalibrated answers.
        frame: text before and after the content of every question, from `question_frame`.

    Raises:
        TarotError: a prompt that does not contain its question as the task writes it.
    """
    prompts = [[_content_free_prompt(task, document, frame, text) for text in CONTENT_FREE] for document in documents]
    # Shots and frame are shared, so a handful of prompts serves all documents.
    pairs = {
        (prompt, answer)
        for document, content_free in zip(documents, prompts, strict=True)
        for prompt in content_free
        for _, answer in document["arguments"][: n_choices(document)]
    }
    ordered = sorted(pairs)
    lm = TarotLM(loaded.model, tokenizer=loaded.tokenizer)
    requests = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(ordered)]
    scores = lm.loglikelihood(requests, disable_tqdm=True)
    log_p = {pair: value for pair, (value, _) in zip(ordered, scores, strict=True)}
    return [_reweighted(document, free, log_p) for document, free in zip(documents, prompts, strict=True)]


def question_frame(texts: Sequence[str]) -> tuple[str, str]:
    """Return what all questions begin and end with, cut at white space: the format of a content-free question.

    Example:
        >>> question_frame(["Is 1 odd? Answer:", "Is 2 odd? Answer:"])
        ('Is ', ' odd? Answer:')
    """
    if len(texts) < 2:
        return "", ""
    before = _up_to_space(_common_prefix(texts))
    rests = [text[len(before) :][::-1] for text in texts]
    return before, _up_to_space(_common_prefix(rests))[::-1]


def _common_prefix(texts: Sequence[str]) -> str:
    first, last = min(texts), max(texts)
    shortest = min(len(first), len(last))
    return first[: next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), shortest)]


def _up_to_space(text: str) -> str:
    match = re.match(r"(?s).*\s", text)
    return match[0] if match else ""


def _content_free_prompt(task: Task, document: LoggedDocument, frame: tuple[str, str], content: str) -> str:
    question = str(task.doc_to_text(document["doc"])).strip()  # chat templates strip messages
    head, separator, tail = document["arguments"][0][0].rpartition(question)
    if not separator:
        raise TarotError(f"the question {question!r} in its prompt", "a prompt without it")
    return head + (frame[0] + content + frame[1]).strip() + tail


def _reweighted(
    document: LoggedDocument, prompts: Sequence[str], log_p: Mapping[tuple[str, str], float]
) -> LoggedDocument:
    answers = [answer for _, answer in document["arguments"][: n_choices(document)]]
    free = [_log_softmax([log_p[prompt, answer] for answer in answers]) for prompt in prompts]
    return divide_by_prior(document, mean_log_probabilities(free))


def log_probabilities(document: LoggedDocument) -> list[float]:
    """Return the log-probabilities of a document's choices, normalized over them."""
    return _log_softmax([float(value) for value, _ in document["filtered_resps"][: n_choices(document)]])


def mean_log_probabilities(rows: Sequence[Sequence[float]]) -> list[float]:
    """Return the logarithm of each choice's mean probability over rows of log-probabilities."""
    return [_log_mean_exp(column) for column in zip(*rows, strict=True)]


def divide_by_prior(document: LoggedDocument, prior: Sequence[float]) -> LoggedDocument:
    """Return a document with log q(c) = log p(c) - prior(c) + const; its greedy answer is the likeliest choice."""
    n, scored = n_choices(document), document["filtered_resps"]
    given = [float(value) for value, _ in scored[:n]]
    values = _log_softmax([value - weight for value, weight in zip(given, prior, strict=True)])
    best = max(range(len(values)), key=values.__getitem__)
    return {**document, "filtered_resps": [*((value, i == best) for i, value in enumerate(values)), *scored[n:]]}


def _log_softmax(values: Sequence[float]) -> list[float]:
    total = _log_mean_exp(values) + log(len(values))
    return [value - total for value in values]


def _log_mean_exp(values: Sequence[float]) -> float:
    top = max(values)
    return top + log(fsum(exp(value - top) for value in values) / len(values))
