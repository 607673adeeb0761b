"""Shots: the number of labelled examples in a prompt, and the documents that may be shown as such."""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any

from lm_eval.api.task import Task

from tarot.errors import TarotError
from tarot.objectives.tasks.documents import Doc, evaluated_split, question_key, shot_keys

logger = logging.getLogger("tarot")


def forbids_shots(task: Task) -> bool:
    """Return whether the file of the task or its group sets `num_fewshot: 0`, which no request overrides."""
    return bool(task.config.num_fewshot == 0)


def resolve_num_fewshot(task: Task, requested: int | str | None) -> int | str:
    """Return the number of shots that a task's prompts have, by lm-eval's rule.

    Args:
        task: an lm-eval task as it was loaded.
        requested: a number, or "mix"; None for the task's own number.

    Raises:
        TarotError: The task file's `num_fewshot` is not a whole number.

    Example:
        >>> from tarot.objectives.tasks.task_loading import load_task
        >>> resolve_num_fewshot(load_task("synth_color"), 6)
        6
    """
    own = task.config.num_fewshot
    if requested is None:
        if own is not None and not isinstance(own, int):
            raise TarotError(f"a whole number as num_fewshot of {task.config.task}", repr(own), "check its file")
        return int(own or 0)
    if requested and forbids_shots(task):
        logger.warning(
            "%s sets num_fewshot: 0, as lm-eval does its prompts have no shots, though %s were requested",
            task.config.task,
            requested,
        )
        return 0
    return requested


class ShotPool:
    """The documents that a task may show as shots: none that is evaluated.

    If shots come from the evaluated split itself, each prompt leaves out its own document.

    Args:
        task: an lm-eval task.
        tuning: whether the prompts are a search's, which never show an evaluated document.

    Attributes:
        docs: the documents, in the order of the pool.
        left_out: number of documents left out because they are also evaluated.
        max_shots: largest number of shots that every prompt can have.

    Example:
        >>> from tarot.objectives.tasks.task_loading import load_task
        >>> ShotPool(load_task("synth_color")).max_shots
        200
    """

    def __init__(self, task: Task, *, tuning: bool = False) -> None:
        self.task = task
        pool = list(task.sampler.df) if hasattr(task, "sampler") else []
        evaluated = {question_key(task, doc) for doc in task.eval_docs}
        keyed = [(doc, shot_keys(task, doc)) for doc in pool]
        self.by_document = not tuning and _pool_split(task) == evaluated_split(task)
        self._keyed = [(doc, keys) for doc, keys in keyed if self.by_document or keys.isdisjoint(evaluated)]
        self.docs = [doc for doc, _ in self._keyed]
        self.left_out = len(pool) - len(self.docs)
        copies = Counter(key for _, keys in self._keyed for key in keys if key in evaluated)
        self.max_shots = len(self.docs) - max(copies.values(), default=0)
        if self.left_out:
            logger.warning(
                "left out %d of %d documents of %s that could be shots: they are also evaluated",
                self.left_out,
                len(pool),
                task.config.task,
            )

    def first_keys(self, n: int) -> frozenset[str]:
        """Return the question keys of the first n documents."""
        return frozenset().union(*(keys for _, keys in self._keyed[:n]))

    def without(self, keys: Collection[str]) -> list[Doc]:
        """Return the documents without those that ask one of these questions."""
        return [doc for doc, own in self._keyed if own.isdisjoint(keys)]

    def show(self, tuned_on: Collection[str] = (), shown: set[frozenset[str]] | None = None) -> Callable[[], None]:
        """Make lm-eval's sampler draw shots from this pool only.

        Args:
            tuned_on: question keys of samples, which are not shown either.
            shown: receives the question keys of each shot that a prompt shows.

        Returns:
            A function that restores the sampler.
        """
        task, sampler, before = self.task, self.task.sampler, self.task.sampler.df
        pool = self.without(tuned_on)
        draw_shots, render = sampler.sample, task.fewshot_context
        current: list[Doc] = []  # the document whose prompt is being rendered

        def fewshot_context(doc: Doc, *args: Any, **kwargs: Any) -> Any:
            current[:] = [doc]
            return render(doc, *args, **kwargs)

        def sample(n: int, eval_doc: Doc | None = None, **kwargs: Any) -> Sequence[Doc]:
            own = question_key(task, current[0])
            # Given an evaluated document, lm-eval draws one shot more than it shows.
            shots = draw_shots(n, eval_doc=eval_doc if len(pool) > n else None, **kwargs)
            if any(own in shot_keys(task, shot) for shot in shots):
                sampler.replace_df(self.without({own, *tuned_on}))
                shots = draw_shots(n, eval_doc=None, **kwargs)
                sampler.replace_df(pool)
            for shot in shots:
                _check_shot(task, shot, own)
                if shown is not None:
                    shown.add(shot_keys(task, shot))
            return shots

        def restore() -> None:
            sampler.sample, task.fewshot_context = draw_shots, render
            sampler.replace_df(before)

        sampler.replace_df(pool if len(pool) < len(before) else before)
        sampler.sample, task.fewshot_context = sample, fewshot_context
        return restore


def _pool_split(task: Task) -> str | None:
    """Return the split that shots come from, by lm-eval's rule; None for shots listed in the task file."""
    config = task.config
    if task.fewshot_cfg.split is not None:
        return str(task.fewshot_cfg.split)
    if task.fewshot_cfg.samples is not None:
        return None
    split = config.training_split or config.validation_split or config.test_split
    return str(split)


def _check_shot(task: Task, shot: Doc, own: str) -> None:
    """Raise TarotError if a shot is the question itself, or its answer is not among its choices."""
    config = task.fewshot_cfg
    if own in shot_keys(task, shot):
        hint = "check the sampler of fewshot_config"
        raise TarotError(f"The sampler of {task.config.task} shows the question itself as a shot.", hint=hint)
    if config.doc_to_choice is None:
        return
    choices = task.doc_to_choice(shot, config.doc_to_choice)
    answer = (
        task.doc_to_text(shot, config.doc_to_text)
        if task.multiple_input
        else task.doc_to_target(shot, config.doc_to_target)
    )
    if answer is None or (isinstance(answer, int) and not 0 <= answer < len(choices)):
        raise TarotError(
            f"A shot of {task.config.task} has the answer {answer!r}, which is not among its choices {choices}.",
            hint="check the data",
        )
