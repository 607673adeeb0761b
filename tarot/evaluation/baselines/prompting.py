"""Baselines that change the prompt or read the answers differently; no label beyond those of the search.

Each returns the documents that were answered and the number of labelled documents that it used.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from math import inf, isfinite
from types import MappingProxyType
from typing import NamedTuple

import torch
from jaxtyping import Float
from lm_eval.api.instance import Instance
from lm_eval.api.task import Task
from lm_eval.models.utils import normalize_gen_kwargs
from torch import Tensor

from tarot.errors import TarotError
from tarot.evaluation.baselines.setting import Setting
from tarot.evaluation.evaluate import n_evaluated
from tarot.evaluation.in_context import (
    can_calibrate,
    divide_by_prior,
    draw_shots,
    log_probabilities,
    mean_log_probabilities,
    show_shots,
)
from tarot.evaluation.lm_eval_results import LoggedDocument, has_number, logged_documents, n_choices, question_text
from tarot.objectives.tasks.documents import Doc, question_key
from tarot.objectives.tasks.prompts import render_pairs
from tarot.objectives.tasks.task_loading import load_task

DRAWS = 10
"""Draws of shots among which `answer_with_best_shots` chooses."""


class Answered(NamedTuple):
    """Logged documents, and how many labelled documents the method saw."""

    documents: list[LoggedDocument]
    labels: int


def answer_with_all_shots(setting: Setting) -> Answered:
    """Show all labelled documents in every prompt, or as many of the first as fit into the longest prompt.

    Raises:
        TarotError: the context does not hold a single shot.
    """
    longest = _longest_document(setting)
    n = next((n for n in range(len(setting.labelled), 0, -1) if _fits(setting, setting.labelled[:n], longest)), 0)
    if not n:
        raise TarotError("a context that holds a shot", f"{setting.lm.max_length} tokens", "leave all-shots out")
    return Answered(_documents(setting, setting.answer_with(setting.labelled[:n])), n)


def answer_with_best_shots(setting: Setting) -> Answered:
    """Show the draw of shots, and their order, under which the labels of the other labelled documents are likeliest.

    Raises:
        TarotError: there are too few labelled documents to choose by.
    """
    n = min(setting.n_shots or len(setting.labelled), len(setting.labelled) - 1)
    if n < 1:
        raise TarotError("at least 2 labelled documents to choose shots by", str(len(setting.labelled)))
    draws = draw_shots(setting.labelled, n, DRAWS, setting.config.seed)
    likelihoods = [_mean_likelihood(setting, shots) for shots in draws]
    # NaN is not comparable, and would be the greatest where it comes first.
    best = draws[max(range(len(draws)), key=lambda i: likelihoods[i] if isfinite(likelihoods[i]) else -inf)]
    return Answered(_documents(setting, setting.answer_with(best)), len(setting.labelled))


def answer_with_nearest_shots(setting: Setting) -> Answered:
    """Show each document the labelled ones that are nearest to it, the nearest last.

    Near means the cosine between the model's own embeddings: the mean over tokens of the last hidden states.
    """
    n = min(setting.n_shots or len(setting.labelled), len(setting.labelled))
    task, labelled = setting.task, setting.labelled
    embeddings = torch.stack([embed_text(setting, question_text(task, doc)) for doc in labelled])
    keys = [question_key(task, doc) for doc in labelled]

    def choose(task: Task, doc: Doc) -> list[Doc]:
        own = question_key(task, doc)
        nearness = embeddings @ embed_text(setting, question_text(task, doc))
        order = [i for i in nearness.argsort(descending=True, stable=True).tolist() if keys[i] != own]
        return [labelled[i] for i in reversed(order[:n])]

    return Answered(_documents(setting, setting.answer_with(labelled[:n], choose)), len(labelled))


def answer_with_batch_calibration(setting: Setting) -> Answered:
    """Divide the answers to few-shot prompts by their mean over the evaluated documents, which are not labelled.

    Source: Zhou et al., Batch Calibration, arXiv 2309.17249.

    Raises:
        TarotError: the task has no choices to calibrate.
    """
    if not can_calibrate(setting.task):
        raise TarotError("a task that chooses between answers to one question", setting.config.task)
    shots = setting.labelled[: setting.n_shots]
    return Answered(batch_calibrate(_documents(setting, setting.answer_with(shots))), len(shots))


BASELINES: Mapping[str, Callable[[Setting], Answered]] = MappingProxyType(
    {
        "all-shots": answer_with_all_shots,
        "best-shots": answer_with_best_shots,
        "nearest-shots": answer_with_nearest_shots,
        "batch-calibration": answer_with_batch_calibration,
    }
)


def batch_calibrate(documents: Sequence[LoggedDocument]) -> list[LoggedDocument]:
    """Calibrate answers: log q(c) = log p(c) - log mean of p(c) over the documents with as many choices + const."""
    rows: dict[int, list[list[float]]] = defaultdict(list)
    for document in filter(has_number, documents):
        rows[n_choices(document)].append(log_probabilities(document))
    priors = {n: mean_log_probabilities(values) for n, values in rows.items()}
    return [
        divide_by_prior(document, priors[n_choices(document)]) if has_number(document) else document
        for document in documents
    ]


def embed_text(setting: Setting, text: str) -> Float[Tensor, " width"]:
    """Return the unit vector of the mean over tokens of a text's last hidden states."""
    tokens = torch.tensor([setting.lm.tok_encode(text)[-setting.lm.max_length :]], device=setting.loaded.model.device)
    with torch.no_grad():
        hidden = setting.loaded.model(tokens, output_hidden_states=True).hidden_states[-1][0]
    return torch.nn.functional.normalize(hidden.float().mean(0), dim=0).cpu()


def _documents(setting: Setting, results: dict[str, object]) -> list[LoggedDocument]:
    return logged_documents(results, setting.config.task)


def _longest_document(setting: Setting) -> Doc:
    """Return the evaluated document whose prompt has most tokens."""
    task = load_task(setting.config.task, setting.options.include_path)
    documents = islice(task.eval_docs, n_evaluated(task, setting.options.limit))
    return max(documents, key=lambda doc: _n_tokens(setting, task, doc, 0))


def _fits(setting: Setting, shots: Sequence[Doc], document: Doc) -> bool:
    """Whether the context holds these shots before a document."""
    task = load_task(setting.config.task, setting.options.include_path)
    show_shots(task, shots)
    return _n_tokens(setting, task, document, len(shots)) <= setting.lm.max_length


def _n_tokens(setting: Setting, task: Task, document: Doc, n_shots: int) -> int:
    """Return the tokens of a document's prompt and its longest answer, or the most that are generated."""
    pairs, _ = render_pairs(task, "the longest document", document, n_shots, setting.chat_template)
    if task.OUTPUT_TYPE == "generate_until":
        options = normalize_gen_kwargs(dict(task.config.generation_kwargs or {}), setting.lm.max_gen_toks)
        return len(setting.lm.tok_encode(pairs[0][0])) + int(options["max_gen_toks"])
    return max(sum(map(len, setting.lm.encode(*pair))) for pair in pairs)


def _mean_likelihood(setting: Setting, shots: Sequence[Doc]) -> float:
    """Return the mean log-probability, in nats, of the labels that are not among the shots."""
    task = load_task(setting.config.task, setting.options.include_path)
    show_shots(task, shots)
    pairs = []
    for row, doc in enumerate(setting.labelled):
        if doc not in shots:
            rendered, gold = render_pairs(task, f"sample {row}", doc, len(shots), setting.chat_template)
            pairs.append(rendered[gold])
    requests = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
    return sum(value for value, _ in setting.lm.loglikelihood(requests, disable_tqdm=True)) / len(pairs)
