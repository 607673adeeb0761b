"""Labelled samples, as lm-evaluation-harness itself would prompt them.

A sample is drawn from the split of an lm-eval task that is not evaluated. Its prompt is rendered by the task's own
object, shots, chat template and all, so that a search and an evaluation see the same text.
"""

import hashlib
import json
import logging
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from lm_eval.api.task import Task
from lm_eval.defaults import DEFAULT_OTHER_SEED
from lm_eval.tasks._yaml_loader import load_yaml
from lm_eval.tasks.manager import TaskDict, TaskManager

from tarot.errors import TarotError, UnknownName

Doc = dict[str, object]
# Renders a list of {role, content} messages to text, as `HFLM.apply_chat_template` does.
ChatTemplate = Callable[..., str]

MIXED_SHOTS = (0, 2, 4, 6)  # arXiv 2410.04277: prompts of the search hold one of these numbers of shots


@dataclass(frozen=True)
class Sample:
    """A prompt with its possible answers.

    `pairs` are (context, continuation) texts, one for each answer: mostly one context with several continuations, but
    tasks such as Winogrande hold the answer in the context. `gold` is the index of the right one. `key` identifies the
    document by what it says, wherever it stands; `id` by its split and row. The answer of a task that a reward judges
    is blank.
    """

    id: str
    key: str
    pairs: tuple[tuple[str, str], ...]
    gold: int
    num_fewshot: int


def tasks_folder() -> Path:
    """The task files that come with tarot: inside the package when installed, beside it in a checkout."""
    inside = Path(__file__).parent / "tasks"
    return inside if inside.is_dir() else Path(__file__).parents[1] / "tasks"


def task_manager(names: Iterable[str], include_path: str | Path | None = None) -> TaskManager:
    """Index of our tasks and the user's, and of lm-eval's own (6 s) only when a name is in neither.

    Raises:
        TarotError: the folder does not exist, or holds a file that cannot be read where a task is in none of them.
        UnknownName: a task is in none of them.
    """
    if include_path is not None and not Path(include_path).is_dir():
        raise TarotError("a folder of task files", f"{str(include_path)!r}", "give --include-path an existing folder")
    paths: list[str | Path] = [tasks_folder()]
    if include_path is not None:
        paths.append(include_path)
    names = list(names)
    manager = TaskManager(include_path=paths, include_defaults=False)
    if not set(names) <= set(manager.all_tasks):
        manager = TaskManager(include_path=paths)
    for name in names:
        if name not in manager.all_tasks:
            if include_path is not None:
                _check_readable(Path(include_path))
            raise UnknownName("task", name, manager.all_tasks)
    return manager


def _check_readable(folder: Path) -> None:
    """Raise TarotError for a task file that is broken: lm-eval's index leaves it out without a word."""
    for path in sorted(folder.glob("**/*.yaml")):
        try:
            load_yaml(path, resolve_func=False)  # runs nothing
        except Exception as error:  # syntax, encodings, types, and files that it includes
            reason = " ".join(str(error).split())
            raise TarotError("task files that lm-eval can read", f"{str(path)!r}: {reason}", "mend that one") from error


def load_tasks(names: Sequence[str], include_path: str | Path | None = None) -> TaskDict:
    """lm-eval's selection of these tasks: under "tasks" the objects by name, groups and tags resolved into their
    members.

    Raises:
        UnknownName: a name that is not indexed.
        TarotError: a task whose data cannot be had, with the reason that its loader gave.
    """
    manager = task_manager(names, include_path)
    # lm-eval warns of every custom data set that it could have been given other arguments.
    logger = logging.getLogger("lm_eval.api.task")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        return manager.load(list(names))
    except Exception as error:  # templates, loaders, hubs and formats all run while a task loads, and fail in any way
        reason = str(error).strip().splitlines()
        if reason and reason[0].startswith("expected "):
            raise TarotError(*_parts(reason[0])) from error
        raise TarotError(
            f"a task file and data that lm-eval can load for {', '.join(names)}",
            f"{type(error).__name__}: {reason[0] if reason else 'no message'}",
            "check the task file, the network, or name a local copy with TAROT_DATA",
        ) from error
    finally:
        logger.setLevel(level)


def _parts(message: str) -> tuple[str, str, str]:
    """Expected, got and hint of a message in the house's form, as task files write it without knowing our errors."""
    expected, _, rest = message.removeprefix("expected ").partition(", got ")
    got, _, hint = rest.partition("; ")
    return expected, got, hint


def load_task(name: str, include_path: str | Path | None = None) -> Task:
    """The one task of this name; a group or tag is an error that lists its members."""
    tasks = load_tasks([name], include_path)["tasks"]
    if len(tasks) != 1:
        raise TarotError("one task", f"the group {name!r}", f"choose one of {', '.join(sorted(tasks))}")
    return next(iter(tasks.values()))


def document_key(task: Task, doc: Doc) -> str:
    """Digest of what a document asks and answers, the same in whichever split or row it stands."""
    choices = task.doc_to_choice(doc) if task.config.doc_to_choice is not None else None
    said = [task.doc_to_text(doc), choices, task.doc_to_target(doc)]
    if prefix := task.doc_to_prefix(doc):  # the beginning of the answer, which a text to be continued is
        said.append(prefix)
    digest = hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:16]


def check_disjoint(task: Task, keys: Iterable[str]) -> None:
    """Raise TarotError when a document of these keys is among those that the task evaluates."""
    keys = set(keys)
    evaluated = {document_key(task, doc): row for row, doc in enumerate(task.eval_docs)}
    if common := keys & evaluated.keys():
        raise TarotError(
            f"samples of {task.config.task} that are not evaluated",
            f"{len(common)} of {len(keys)} that are (evaluated row {min(evaluated[key] for key in common)} is one)",
            "give the task a training split without them",
        )


def _tuning_split(task: Task) -> tuple[str, list[Doc]]:
    if task.has_training_docs():
        return task.config.training_split, list(task.training_docs())
    if task.has_validation_docs() and task.has_test_docs():
        return task.config.validation_split, list(task.validation_docs())
    raise TarotError(
        "a task with a training split, or a validation split besides the test split",
        f"{task.config.task!r} with neither",
        "add training_split to its file",
    )


def check_numbers(n: int, num_fewshot: int | str) -> int:
    """Raise TarotError unless so many samples can be asked for, with so many shots; -> the most shots of a prompt."""
    if n < 1:
        raise TarotError("at least 1 sample", str(n), "")
    return max(MIXED_SHOTS) if num_fewshot == "mix" else _shots(num_fewshot)


def draw(
    task: Task, n: int, *, num_fewshot: int | str = 0, seed: int = 0, chat_template: ChatTemplate | None = None
) -> list[Sample]:
    """Draw n samples for a search, without replacement, and render their prompts once and for all.

    Args:
        task: an lm-eval task of output type multiple_choice, loglikelihood or generate_until.
        n: number of labelled documents.
        num_fewshot: shots in each prompt, or "mix": 0, 2, 4 or 6, drawn for each sample.
        seed: decides which documents and which mix; nothing else does.
        chat_template: renders messages; None for plain text.

    Raises:
        TarotError: no split to tune on, too few documents, a document that is also evaluated, an empty prompt, or a
            gold answer that is not among the choices.
    """
    most = check_numbers(n, num_fewshot)
    split, docs = _tuning_split(task)
    shots_pool = list(task.sampler.df) if hasattr(task, "sampler") else []
    reserved = shots_pool[:most]
    # The rows that `first_n` hands out as shots are not samples, and no sample is anybody's shot.
    candidates = [row for row, doc in enumerate(docs) if doc not in reserved]
    if len(candidates) < n or len(reserved) < most:
        raise TarotError(
            f"at least {n} samples and {most} shots in the {split!r} split of {task.config.task}",
            f"{len(docs)} documents",
            "use fewer samples or shots",
        )
    rng = random.Random(seed)
    rows = rng.sample(candidates, n)
    drawn = [docs[row] for row in rows]
    samples, shown = [], []
    with ExitStack() as undo:
        if most:
            undo.callback(task.sampler.replace_df, shots_pool)
            task.sampler.replace_df([doc for doc in shots_pool if doc not in drawn])
            task.set_fewshot_seed(seed)
            shown = undo.enter_context(_shots_shown(task))
        for row, doc in zip(rows, drawn, strict=True):
            k = rng.choice(MIXED_SHOTS) if num_fewshot == "mix" else most
            samples.append(_render(task, f"{split}/{row}", doc, k, chat_template))
    check_disjoint(task, chain((sample.key for sample in samples), (document_key(task, doc) for doc in shown)))
    return samples


@contextmanager
def _shots_shown(task: Task) -> Iterator[list[Doc]]:
    """Gathers the shots that prompts rendered in the body show: which they are, the task's sampler alone knows."""
    shown: list[Doc] = []
    sample = task.sampler.sample

    def noting(*args: Any, **kwargs: Any) -> Sequence[Doc]:
        shots = sample(*args, **kwargs)
        shown.extend(shots)
        return shots

    task.sampler.sample = noting
    try:
        yield shown
    finally:
        del task.sampler.sample


def evaluated(
    task: Task, *, num_fewshot: int = 0, limit: int | None = None, chat_template: ChatTemplate | None = None
) -> list[Sample]:
    """The documents that the task evaluates, rendered as an evaluation with as many shots renders them.

    Args:
        task: an lm-eval task of output type multiple_choice, loglikelihood or generate_until.
        num_fewshot: shots in each prompt.
        limit: only the first documents.
        chat_template: renders messages; None for plain text.

    Raises:
        TarotError: an empty prompt, or a gold answer that is not among the choices.
    """
    task.set_config("num_fewshot", _shots(num_fewshot))
    task.set_fewshot_seed(DEFAULT_OTHER_SEED)
    split = task.config.test_split if task.has_test_docs() else task.config.validation_split
    docs = islice(task.eval_docs, limit)
    return [_render(task, f"{split}/{row}", doc, num_fewshot, chat_template) for row, doc in enumerate(docs)]


def _shots(num_fewshot: int | str) -> int:
    if not isinstance(num_fewshot, int) or num_fewshot < 0:
        raise TarotError("a number of shots from 0, or 'mix'", repr(num_fewshot), "")
    return num_fewshot


def _render(task: Task, id: str, doc: Doc, num_fewshot: int, chat_template: ChatTemplate | None) -> Sample:
    chat = chat_template is not None
    context = task.fewshot_context(
        doc,
        num_fewshot,
        apply_chat_template=chat,
        fewshot_as_multiturn=True,
        chat_template=chat_template,
        gen_prefix=task.doc_to_prefix(doc),
    )
    contexts = context if isinstance(context, list) else [context]
    if not all(text.strip() for text in contexts):
        raise TarotError("a prompt to complete", f"an empty one in {id} of {task.config.task}", "check doc_to_text")
    kind = task.OUTPUT_TYPE
    if kind in ("multiple_choice", "loglikelihood"):
        requests = task.construct_requests(doc, context, apply_chat_template=chat, chat_template=chat_template)
        instances = requests if isinstance(requests, list) else [requests]
        # Behind the choices, `acc_mutual_info` asks for them once more without a context.
        n_choices = len(task.doc_to_choice(doc)) if kind == "multiple_choice" else 1
        pairs = tuple(instance.args[:2] for instance in instances[:n_choices])
        gold = right_choice(task, id, doc) if kind == "multiple_choice" else 0
    elif kind == "generate_until":
        target = task.doc_to_target(doc)
        if task.config.doc_to_choice is not None:
            target = task.doc_to_choice(doc)[right_choice(task, id, doc)]
        answer = str(target[0] if isinstance(target, list) else target)
        pairs, gold = ((contexts[0], ("" if chat else task.config.target_delimiter) + answer),), 0
    else:
        raise TarotError(
            "a task of output type multiple_choice, loglikelihood or generate_until",
            f"{kind} in {task.config.task}",
            "",
        )
    # A generation task whose doc_to_target is empty has no answers: what is written there, a reward judges.
    if not pairs[gold][1].strip() and task.config.doc_to_target != "":
        raise TarotError("an answer to score", f"an empty one in {id} of {task.config.task}", "check doc_to_target")
    return Sample(id, document_key(task, doc), pairs, gold, num_fewshot)


def right_choice(task: Task, id: str, doc: Doc) -> int:
    """Index of the right answer among a document's choices.

    Raises:
        TarotError: there is none, or more than one; `id` says of which document.
    """
    choices = task.doc_to_choice(doc)
    target = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    if isinstance(target, list) and len(target) > 1:
        several = f"{target!r} in {id} of {task.config.task}"
        raise TarotError("one right answer among the choices", several, "tarot evaluate has the task's own metrics")
    first = target[0] if isinstance(target, list) and target else target
    if isinstance(first, str) and first in choices:
        return choices.index(first)
    if isinstance(first, int) and 0 <= first < len(choices):
        return int(first)  # a truth value, too
    raise TarotError(
        f"a gold answer among {choices}", f"{target!r} in {id} of {task.config.task}", "check doc_to_target"
    )
