"""The input of every baseline of a comparison: the model, the task, and the labels that the search had."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from lm_eval.api.task import Task

from tarot.edit.adapter import Adapter
from tarot.errors import TarotError
from tarot.evaluation.as_tuned import evaluate_as_tuned
from tarot.evaluation.baselines.edit import BaselineEdit
from tarot.evaluation.in_context import evaluate_with_shots
from tarot.evaluation.labels import Labels, count_labels
from tarot.evaluation.options import DEFAULT_OPTIONS, EvaluationOptions
from tarot.models.lm_eval_model import TarotLM
from tarot.models.loaded_model import LoadedModel
from tarot.models.precision import fast_products
from tarot.objectives.answers import AnswerObjective
from tarot.objectives.tasks.documents import Doc
from tarot.objectives.tasks.prompts import ChatTemplate, get_chat_template
from tarot.search.config import TaRotConfig
from tarot.search.problem import Problem
from tarot.search.retention import Retention, retained_contexts


@dataclass(frozen=True)
class Setting:
    """A comparison as its baselines see it.

    Attributes:
        loaded: the model, unedited, and its tokenizer.
        config: what the compared edit was tuned with.
        task: the task.
        labelled: the labelled documents of the search, in its order.
        n_shots: shots of the few-shot arm.
        budget: evaluations that the search was allowed.
        options: how the task is evaluated.
    """

    loaded: LoadedModel
    config: TaRotConfig
    task: Task
    labelled: Sequence[Doc]
    n_shots: int
    budget: int
    options: EvaluationOptions = DEFAULT_OPTIONS

    @cached_property
    def lm(self) -> TarotLM:
        """The model as lm-eval's interface."""
        return TarotLM(self.loaded.model, tokenizer=self.loaded.tokenizer)

    @cached_property
    def chat_template(self) -> ChatTemplate | None:
        """The template of the prompts; None for plain text."""
        return get_chat_template(self.lm, self.config.apply_chat_template)

    @cached_property
    def labels(self) -> Labels:
        """The numbers of labelled documents that base and edited models see."""
        return count_labels(self.config, self.options.include_path, self.options.limit)

    def make_objective(self) -> AnswerObjective:
        """Return the objective that the search maximized, on the same samples.

        Raises:
            TarotError: the edit was tuned for a reward.
        """
        objective = self._problem(self.config).objective
        if not isinstance(objective, AnswerObjective):
            raise TarotError("an edit tuned on labelled answers", f"one tuned for {self.config.objective}")
        return objective

    def make_retention(self) -> Retention | None:
        """Return tarot's own retained contexts, for a method that changes every layer; None if there was no limit.

        The tasks and files that an adapter names are not read.
        """
        if self.config.max_kl is None:
            return None
        config = replace(self.config, layers=1.0, retain=())
        given = (self.loaded, self._problem(config), self.options.include_path, self.options.batch_size)
        sources = retained_contexts(*given)
        with fast_products():  # the trained model reads with them too, and what they round would count as divergence
            return Retention.from_problem(*given, sources)

    def _problem(self, config: TaRotConfig) -> Problem:
        return Problem.from_config(self.loaded, config, self.options.include_path, self.options.batch_size)

    def answer_as_tuned(self, edit: Adapter | BaselineEdit | None, num_fewshot: int | None = None) -> dict[str, Any]:
        """Return lm-eval's results of the model with an edit; arguments as for `evaluate_as_tuned`."""
        return evaluate_as_tuned(self.loaded, self.config, edit, self.options, num_fewshot)

    def answer_with(
        self, shots: Sequence[Doc], choose: Callable[[Task, Doc], Sequence[Doc]] | None = None
    ) -> dict[str, Any]:
        """Return lm-eval's results of the unedited model with shots; arguments as for `evaluate_with_shots`."""
        return evaluate_with_shots(
            self.loaded,
            self.config.task,
            shots,
            self.options,
            choose=choose,
            apply_chat_template=self.config.apply_chat_template,
        )
