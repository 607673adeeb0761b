"""Tuning split: the documents of a task that a search may use, held apart from those that are evaluated."""

from collections.abc import Iterable
from dataclasses import dataclass

from lm_eval.api.task import Task

from tarot.errors import TarotError
from tarot.objectives.tasks.documents import Doc, question_key, question_part
from tarot.objectives.tasks.prompts import render_pairs

TuningRow = tuple[int, Doc, str]  # row number, document and its question's key


@dataclass(frozen=True)
class TuningDocuments:
    """The rows of a task's tuning split that may be samples.

    Attributes:
        split: name of the split.
        rows: the rows that may be samples.
        evaluated: number of rows left out because the task evaluates the same document.
        repeated: number of rows left out because they repeat an earlier row.
    """

    split: str
    rows: list[TuningRow]
    evaluated: int
    repeated: int

    @property
    def size(self) -> int:
        """Return the number of rows of the split."""
        return len(self.rows) + self.evaluated + self.repeated

    @property
    def left_out(self) -> str:
        """Describe what was left out ("" if nothing was)."""
        counts = ((self.evaluated, "also evaluated"), (self.repeated, "repeated"))
        return ", ".join(f"{count} {reason}" for count, reason in counts if count)


def find_tuning_documents(task: Task) -> TuningDocuments:
    """Find the documents of a task that a search may use: none that is evaluated, and none twice.

    Args:
        task: an lm-eval task. Its tuning split is the training split, or the validation split if there is a test
            split as well.

    Raises:
        TarotError: The task has no split to tune on.

    Example:
        >>> from tarot.objectives.tasks.task_loading import load_task
        >>> find_tuning_documents(load_task("synth_color")).split
        'train'
    """
    split, docs = _tuning_split(task)
    if docs:
        render_pairs(task, f"{split}/0", docs[0], 0, None)  # with empty prompts all documents would look the same
    evaluation_keys = {question_key(task, doc) for doc in task.eval_docs}
    keyed = [(row, doc, question_key(task, doc)) for row, doc in enumerate(docs)]
    held_apart = [each for each in keyed if each[2] not in evaluation_keys]
    first_row = {key: row for row, _, key in reversed(held_apart)}
    rows = [each for each in held_apart if first_row[each[2]] == each[0]]
    return TuningDocuments(split, rows, len(keyed) - len(held_apart), len(held_apart) - len(rows))


def check_disjoint(task: Task, keys: Iterable[str]) -> None:
    """Raise TarotError if the task evaluates one of these documents.

    Args:
        task: an lm-eval task.
        keys: keys by `document_key`; two keys of the same question count as one.

    Example:
        >>> from tarot.objectives.tasks.samples import draw_samples
        >>> from tarot.objectives.tasks.task_loading import load_task
        >>> task = load_task("synth_color")
        >>> check_disjoint(task, [sample.key for sample in draw_samples(task, 20)])
    """
    questions = set(map(question_part, keys))
    if not questions:
        return
    evaluated_rows = {question_key(task, doc): row for row, doc in enumerate(task.eval_docs)}
    if common := questions & evaluated_rows.keys():
        row = min(evaluated_rows[key] for key in common)
        raise TarotError(
            f"{task.config.task} evaluates {len(common)} of the {len(questions)} documents used as samples or shots "
            f"(row {row} is one).",
            hint="give the task a training split without them",
        )


def _tuning_split(task: Task) -> tuple[str, list[Doc]]:
    if task.has_training_docs():
        return task.config.training_split, list(task.training_docs())
    if task.has_validation_docs() and task.has_test_docs():
        return task.config.validation_split, list(task.validation_docs())
    raise TarotError(
        f"The task {task.config.task!r} has no split to tune on: neither a training split nor a validation split "
        "besides the test split.",
        hint="add training_split to its file",
    )
