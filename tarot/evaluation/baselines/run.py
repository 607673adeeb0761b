"""Run a baseline: make what it changes, answer the documents, and measure what it costs."""

import time
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from tarot.evaluation.baselines.edit import BaselineEdit
from tarot.evaluation.baselines.prompting import Answered
from tarot.evaluation.baselines.registry import BASELINES
from tarot.evaluation.baselines.setting import Setting
from tarot.evaluation.cost.peak_memory import PeakMemory
from tarot.evaluation.lm_eval_results import LoggedDocument, logged_documents
from tarot.models.precision import fast_products


@dataclass(frozen=True)
class BaselineAnswers:
    """Answers of a baseline, and their cost.

    Attributes:
        documents: the logged documents.
        labels: labelled documents that it saw.
        preparation_seconds: how long it took before the first document.
        seconds: how long the answers took; of a prompting baseline, with the choice of its shots.
        stored_bytes: what it has to store.
        peak_memory: most memory in use meanwhile, in bytes; 0 where it cannot be measured.
    """

    documents: list[LoggedDocument]
    labels: int
    preparation_seconds: float
    seconds: float
    stored_bytes: int
    peak_memory: int


def run_baseline(name: str, setting: Setting) -> BaselineAnswers:
    """Answer a comparison's documents by a baseline; the model is unchanged afterwards.

    Raises:
        TarotError: the baseline does not fit the task or the model.
    """
    started = time.perf_counter()
    with PeakMemory(setting.loaded.model.device) as peak:
        if not BASELINES[name].changes_model:
            answered: Answered = _find_method(name)(setting)
            seconds = round(time.perf_counter() - started, 3)
            return BaselineAnswers(answered.documents, answered.labels, 0.0, seconds, 0, peak.read())
        edit = make_edit(name, setting)
        prepared = time.perf_counter()
        results = setting.answer_as_tuned(edit)
        return BaselineAnswers(
            logged_documents(results, setting.config.task),
            setting.labels.edited,
            round(prepared - started, 3),
            round(time.perf_counter() - prepared, 3),
            edit.stored_bytes,
            peak.read(),
        )


def make_edit(name: str, setting: Setting) -> BaselineEdit:
    """Make the edit of a baseline that changes the model: under the limit of divergence and as fast as the search.

    Raises:
        TarotError: the baseline does not fit the task or the model.
    """
    options = {"retention": setting.make_retention()} if BASELINES[name].is_trained else {}
    method = _find_method(name)
    with fast_products():
        edit: BaselineEdit = method(setting.make_objective(), setting.budget, setting.config.seed, **options)
    return edit


def _find_method(name: str) -> Any:
    return import_module(f"tarot.evaluation.baselines.{BASELINES[name].module}").BASELINES[name]
