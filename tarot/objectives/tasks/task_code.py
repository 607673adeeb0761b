"""Task code: turn whatever a task's templates, filters and metrics raise into a TarotError.

A task folder is code, even without `!function`: loading and evaluating it runs jinja templates and metrics.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from typing import Any

from lm_eval.api.task import Task

from tarot.errors import TarotError

# Steps that take a document as their first argument.
DOCUMENT_STEPS = (
    *("doc_to_text", "doc_to_target", "doc_to_choice", "doc_to_prefix"),
    *("fewshot_context", "construct_requests", "process_results"),
)


@contextmanager
def as_tarot_error(failure: str) -> Iterator[None]:
    """Raise any exception of the body, `SystemExit` included, as a TarotError: "(failure): (class): (message)"."""
    try:
        yield
    except TarotError:
        raise
    except (Exception, SystemExit) as error:
        raise TarotError(f"{failure}: {type(error).__name__}: {error}", hint="check the task file") from error


def guard_task_code(task: Task) -> None:
    """Wrap a task's steps, so that each exception becomes a TarotError that names step, task and document."""
    name = task.config.task
    for step in DOCUMENT_STEPS:
        setattr(task, step, _guarded(task, f"{step} of {name}", getattr(task, step)))
    apply_filters = task.apply_filters

    def filtered(*args: Any, **kwargs: Any) -> Any:
        with as_tarot_error(f"The filters of {name} failed"):
            return apply_filters(*args, **kwargs)

    task.apply_filters = filtered


def _guarded(task: Task, step: str, run: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(run)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            return run(*args, **kwargs)
        except TarotError:
            raise
        except (Exception, SystemExit) as error:
            document = _name_document(task, kwargs["doc"] if "doc" in kwargs else args[0] if args else None)
            with as_tarot_error(f"{step} failed on {document}"):
                raise error

    return guarded


def _name_document(task: Task, doc: Any) -> str:
    with suppress(Exception):  # the task's code makes the documents too
        for row, each in enumerate(task.eval_docs):
            if each == doc:
                return f"document {row}"
    return "a document"
