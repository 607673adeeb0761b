"""Labelled samples, as lm-evaluation-harness itself would prompt them.

A sample is drawn from the split of an lm-eval task that is not evaluated. Its prompt is rendered by the task's own
object, shots, chat template and all, so that a search and an evaluation see the same text.
"""

import logging
import random
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

from lm_eval.api.task import Task
from lm_eval.defaults import DEFAULT_OTHER_SEED
from lm_eval.tasks.manager import TaskDict, TaskManager

from tarot.errors import TarotError
from tarot.models.lm_eval_model import TarotLM
from tarot.objectives.documents import (
    Doc,
    check_answers,
    document_key,
    evaluated_split,
    question_key,
    right_choice,
    same_question,
)
from tarot.objectives.shots import ShotPool, shots_shown
from tarot.objectives.task_code import guard
from tarot.objectives.task_names import check_task_names, tasks_folder, unknown_task

logger = logging.getLogger("tarot")

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


def task_manager(names: Iterable[str], include_path: str | Path | None = None) -> TaskManager:
    """Index of our tasks and the user's, and of lm-eval's own (6 s) only when a name is in neither.

    Raises:
        TarotError: the folder does not exist, or holds a file that cannot be read where a task is in none of them.
        UnknownName: a task is in none of them.
    """
    names = list(names)
    check_task_names(names, include_path)
    paths: list[str | Path] = [tasks_folder()]
    if include_path is not None:
        paths.append(include_path)
    manager = TaskManager(include_path=paths, include_defaults=False)
    if not set(names) <= set(manager.all_tasks):
        stamps = [(path, path.stat().st_mtime_ns) for folder in paths for path in sorted(Path(folder).rglob("*"))]
        manager = _whole_index(tuple(map(str, paths)), hash(tuple(stamps)))
    for name in names:
        if name not in manager.all_tasks:
            raise unknown_task(name, [], manager.all_tasks)
    return manager


@lru_cache(maxsize=1)
def _whole_index(paths: tuple[str, ...], stamp: int) -> TaskManager:
    """lm-eval's index of its own tasks and those in `paths`; `stamp` tells the contents of `paths` apart."""
    return TaskManager(include_path=list(paths))


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
        selected = manager.load(list(names))
    # Templates, loaders, hubs and formats all run while a task loads, and fail in any way.
    except (Exception, SystemExit) as error:
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
    for task in selected["tasks"].values():
        guard(task)
    return selected


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


def check_disjoint(task: Task, keys: Iterable[str]) -> None:
    """Raise TarotError if a document of these keys is among those that the task evaluates.

    Args:
        task: an lm-eval task.
        keys: of `document_key`; two keys of the same question count as one.
    """
    questions = set(map(same_question, keys))
    if not questions:
        return
    evaluation_documents = {question_key(task, doc): row for row, doc in enumerate(task.eval_docs)}
    if common := questions & evaluation_documents.keys():
        row = min(evaluation_documents[key] for key in common)
        raise TarotError(
            f"samples of {task.config.task} that are not evaluated",
            f"{len(common)} of {len(questions)} that are (evaluated row {row} is one)",
            "give the task a training split without them",
        )


TuningRow = tuple[int, Doc, str]  # number, document and question's key


@dataclass(frozen=True)
class TuningDocuments:
    """The rows of a task's tuning split that may be samples.

    Attributes:
        split: name of the split.
        rows: those that may be samples.
        evaluated: number of rows left out because the task evaluates the same document.
        repeated: number of rows left out because they repeat an earlier row.
    """

    split: str
    rows: list[TuningRow]
    evaluated: int
    repeated: int

    @property
    def size(self) -> int:
        """Number of rows of the split."""
        return len(self.rows) + self.evaluated + self.repeated

    @property
    def left_out(self) -> str:
        """What was left out, in words; "" if nothing was."""
        counts = ((self.evaluated, "also evaluated"), (self.repeated, "repeated"))
        return ", ".join(f"{count} {reason}" for count, reason in counts if count)


def tuning_documents(task: Task) -> TuningDocuments:
    """The documents of a task that a search may use: none that is evaluated, and none twice.

    Raises:
        TarotError: the task has no split to tune on.
    """
    split, docs = _tuning_split(task)
    if docs:
        _render(task, f"{split}/0", docs[0], 0, None)  # an empty prompt would make all documents the same
    evaluation_documents = {question_key(task, doc) for doc in task.eval_docs}
    keyed = [(row, doc, question_key(task, doc)) for row, doc in enumerate(docs)]
    apart = [each for each in keyed if each[2] not in evaluation_documents]
    first = {key: row for row, _, key in reversed(apart)}
    rows = [each for each in apart if first[each[2]] == each[0]]
    return TuningDocuments(split, rows, len(keyed) - len(apart), len(apart) - len(rows))


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


def _candidates(
    task: Task, n: int, num_fewshot: int | str
) -> tuple[int | str, TuningDocuments, ShotPool | None, list[TuningRow]]:
    """The shots that prompts have, the tuning split, the shots' pool, and the rows that can be drawn."""
    check_numbers(n, num_fewshot)
    num_fewshot = shots_shown(task, num_fewshot)
    most = check_numbers(n, num_fewshot)
    documents = tuning_documents(task)
    check_answers(task)
    pool = ShotPool(task, tuning=True) if most else None
    # The documents that `first_n` hands out as shots are not samples, and no sample is a shot.
    reserved = pool.first(most) if pool else frozenset()
    candidates = [each for each in documents.rows if each[2] not in reserved]
    if len(candidates) < n or (pool and len(pool.docs) < most):
        left_out = f" ({documents.left_out})" if documents.left_out else ""
        raise TarotError(
            f"at least {n} samples and {most} shots in the {documents.split!r} split of {task.config.task}",
            f"{documents.size} documents{left_out}",
            "use fewer samples or shots",
        )
    return num_fewshot, documents, pool, candidates


def draw_samples(
    task: Task, n: int, *, num_fewshot: int | str = 0, seed: int = 0, chat_template: ChatTemplate | None = None
) -> list[Sample]:
    """Draw n samples for a search, without replacement, and render their prompts once and for all.

    A document that is also evaluated is left out, and so is one that repeats another. A task that sets
    `num_fewshot: 0` gets prompts without shots.

    Args:
        task: an lm-eval task of output type multiple_choice, loglikelihood or generate_until.
        n: number of labelled documents.
        num_fewshot: shots in each prompt, or "mix": 0, 2, 4 or 6, drawn for each sample.
        seed: decides which documents and which mix; nothing else does.
        chat_template: renders messages; None for plain text.

    Raises:
        TarotError: no split to tune on, too few documents, an empty prompt, or a gold answer, of a sample or of an
            evaluated document, that is not among the choices.
    """
    num_fewshot, documents, pool, candidates = _candidates(task, n, num_fewshot)
    if documents.left_out:
        logger.warning("left out of the samples of %s: %s", task.config.task, documents.left_out)
    most = check_numbers(n, num_fewshot)
    rng = random.Random(seed)
    drawn = rng.sample(candidates, n)
    samples = []
    with ExitStack() as stack:
        if pool:
            task.set_fewshot_seed(seed)
            stack.callback(pool.show(tuned_on={key for _, _, key in drawn}))
        for row, doc, _ in drawn:
            k = rng.choice(MIXED_SHOTS) if num_fewshot == "mix" else most
            samples.append(_render(task, f"{documents.split}/{row}", doc, k, chat_template))
    return samples


def evaluation_documents(
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
    shots = _shots(shots_shown(task, num_fewshot))
    task.set_fewshot_seed(DEFAULT_OTHER_SEED)
    split = evaluated_split(task)
    docs = islice(task.eval_docs, limit)
    with ExitStack() as stack:
        if shots:
            stack.callback(ShotPool(task).show())
        return [_render(task, f"{split}/{row}", doc, shots, chat_template) for row, doc in enumerate(docs)]


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


def chat_template(lm: TarotLM, chat: bool) -> ChatTemplate | None:
    """How to render messages for this model: None for one without a chat template, or when it is not wanted."""
    has_one = getattr(lm.tokenizer, "chat_template", None) is not None
    return lm.apply_chat_template if chat and has_one else None
