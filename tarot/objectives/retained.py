"""Retained contexts: prompts on which an edit must not change the model's answers, and texts that it writes by itself.

Always retained are prompts of many forms that come with tarot (`retained_prompts.json`), each up to the first token of
its answer, and the model's own texts. The user can name tasks, which add prompts of their training splits without the
labels, and files of prompts. The prompts of both are followed by the first tokens of the unedited model's own answer.
No context is a document that a task evaluates or a text that retention is measured on.
"""

import hashlib
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import torch
from lm_eval.api.task import Task

from tarot.errors import InvalidValueError
from tarot.models.generation.own_text import first_token, has_first_token, sample_texts
from tarot.models.lm_eval_model import TarotLM
from tarot.models.scoring.scorer import Request, max_length
from tarot.objectives.prompt_file import is_prompt_file, read_prompt_file
from tarot.objectives.rewards.fluency import make_fluency
from tarot.objectives.tasks.documents import document_key
from tarot.objectives.tasks.prompts import ChatTemplate
from tarot.objectives.tasks.samples import draw_samples
from tarot.objectives.tasks.task_loading import load_tasks
from tarot.objectives.tasks.tuning_split import find_tuning_documents
from tarot.objectives.text_generation import TextGenerator

ANSWER_TOKENS = 4
TASK_PROMPTS = 24
N_TEXTS, TEXT_TOKENS = 16, 64
_TEXT_SEED = 2**40  # far from the seeds of neutral text, which measures retention


class Retained(NamedTuple):
    """Contexts of one source.

    Attributes:
        name: `prompts`, `own text`, or the task or file.
        contexts: prompts and what follows them.
    """

    name: str
    contexts: list[Request]


def make_retained(
    lm: TarotLM,
    template: ChatTemplate | None,
    retain: Sequence[str] = (),
    *,
    tuned_task: str,
    seed: int = 0,
    include_path: str | Path | None = None,
    batch_size: int | None = None,
) -> list[Retained]:
    """Return what an edit retains: tarot's prompts, the model's own texts, and what is named.

    A model whose tokenizer has no token with which a text could start writes no texts.

    Args:
        lm: the model, unedited.
        template: renders messages; None for plain text.
        retain: names of tasks, groups and tags, or of files (`.jsonl`, `.txt`).
        tuned_task: the task that the edit is tuned on, which is not retained.
        seed: random seed for the documents of tasks and for the model's texts.
        include_path: folder of further task files.
        batch_size: largest number of sequences in one forward pass; None for the default.

    Raises:
        UnknownName: No task has one of the names.
        TarotError: A file has no prompts or cannot be read, or a task has no split to tune on.
    """
    sources = [Retained("prompts", first_tokens(lm, bundled_prompts(template)))]
    if has_first_token(lm.tokenizer):
        sources.append(Retained("own text", own_texts(lm, seed, batch_size)))
    for task in retained_tasks(retain, tuned_task, include_path):
        sources.append(Retained(task.config.task, task_contexts(lm, task, template, seed, batch_size)))
    for name in filter(is_prompt_file, retain):
        prompts = read_prompt_file(name, template)
        sources.append(Retained(name, answer_prompts(lm, prompts, batch_size)))
    return sources


def check_retain(retain: Sequence[str], tuned_task: str, include_path: str | Path | None = None) -> None:
    """Raise what `make_retained` would raise that is known without a model."""
    for name in filter(is_prompt_file, retain):
        read_prompt_file(name, None)
    for task in retained_tasks(retain, tuned_task, include_path):
        find_tuning_documents(task)


def retained_tasks(retain: Sequence[str], tuned_task: str, include_path: str | Path | None = None) -> list[Task]:
    """Load the tasks among the names; a group counts as its members but the tuned task.

    Raises:
        UnknownName: No task has one of the names.
        InvalidValueError: The tuned task is named itself.
    """
    if tuned_task in retain:
        raise InvalidValueError(f"{tuned_task} is tuned, so it cannot be retained.", hint="name other tasks")
    names = [name for name in retain if not is_prompt_file(name)]
    tasks = load_tasks(names, include_path)["tasks"] if names else {}
    return [task for name, task in tasks.items() if name != tuned_task]


def prompts_digest(retain: Sequence[str], tuned_task: str, include_path: str | Path | None = None) -> str:
    """Return a digest of tarot's prompts, and of the files and documents that the names stand for, without a model.

    Raises:
        TarotError: As `check_retain`.
    """
    prompts = [read_prompt_file(name, json.dumps) for name in filter(is_prompt_file, retain)]
    tasks = retained_tasks(retain, tuned_task, include_path)
    documents = [[document_key(task, doc) for _, doc, _ in find_tuning_documents(task).rows] for task in tasks]
    return hashlib.sha256(json.dumps([bundled_prompts(None), prompts, documents]).encode()).hexdigest()[:16]


def retained_digest(sources: Sequence[Retained]) -> str:
    """Return a digest of all tokens and their sources."""
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()[:16]


def bundled_prompts(template: ChatTemplate | None) -> list[str]:
    """Return the prompts that come with tarot; most are rendered as chats if there is a template.

    The first are written by hand, the others are made from parts (`benchmarks/study/made_prompts.py`).

    Example:
        >>> len(bundled_prompts(None)) >= 500
        True
    """
    prompts = json.loads(files(__package__).joinpath("retained_prompts.json").read_text(encoding="utf-8"))
    render = template or (lambda messages: messages[0]["content"])
    chats = [*prompts["chat"], *prompts["made"]]
    return [render([{"role": "user", "content": text}]) for text in chats] + prompts["plain"]


def task_contexts(
    lm: TarotLM, task: Task, template: ChatTemplate | None, seed: int, batch_size: int | None = None
) -> list[Request]:
    """Return prompts of a task's training split, each followed by the unedited model's own answer; labels are not used.

    Where a prompt has choices, each of them follows the prompt too.
    """
    n = min(TASK_PROMPTS, len(find_tuning_documents(task).rows))
    samples = draw_samples(task, n, seed=seed, chat_template=template)
    prompts = list(dict.fromkeys(context for sample in samples for context, _ in sample.pairs))
    requests = answer_prompts(lm, prompts, batch_size)
    if task.OUTPUT_TYPE == "multiple_choice":
        pairs = [lm.encode(*pair) for sample in samples for pair in sample.pairs]
        requests += [Request(tuple(context), tuple(answer)) for context, answer in pairs]
    return requests


def first_tokens(lm: TarotLM, prompts: Sequence[str]) -> list[Request]:
    """Return contexts for the first token of each prompt's answer, whatever it is.

    Most of an edit's divergence lies there: further tokens follow from the first. So nothing has to be generated.
    """
    request = make_fluency(lm).request
    return [request(prompt, "") for prompt in prompts]


def answer_prompts(lm: TarotLM, prompts: Sequence[str], batch_size: int | None = None) -> list[Request]:
    """Return prompts with the first tokens of the greedy answers of the model as it stands.

    Where an answer ends early, the token that ends it is part of it.
    """
    options = {"until": [], "max_gen_toks": ANSWER_TOKENS, "do_sample": False}
    texts = TextGenerator(lm, prompts, options, batch_size).generate(seed=0)
    encode, longest = make_fluency(lm).request, max_length(lm.model)
    requests = []
    for prompt, text in zip(prompts, texts, strict=True):
        context, answer = encode(prompt, text)
        answer = answer[:ANSWER_TOKENS]  # encoding a text again can give more tokens than were generated
        ended = len(answer) < ANSWER_TOKENS and answer[-1] != lm.eot_token_id
        if ended and (not longest or len(context) + len(answer) <= longest):
            answer = (*answer, lm.eot_token_id)
        requests.append(Request(context, answer))
    return requests


def own_texts(lm: TarotLM, seed: int, batch_size: int | None = None) -> list[Request]:
    """Return texts that the model as it stands writes from its first token on."""
    longest = max_length(lm.model)
    length = min(TEXT_TOKENS, longest - 1 if longest else TEXT_TOKENS)
    generator = torch.Generator().manual_seed(_TEXT_SEED + seed)
    texts = sample_texts(lm.model, first_token(lm.tokenizer), N_TEXTS, length, generator, batch_size=batch_size)
    return [Request((first,), tuple(rest)) for first, *rest in texts.tolist()]
