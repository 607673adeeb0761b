"""Evaluations through lm-eval: which documents a limit keeps, and which arguments are accepted."""

import math
from pathlib import Path

import pytest
from checkpoint import byte_model, byte_tokenizer, write_tasks
from hypothesis import given
from hypothesis import strategies as st
from test_compare import tuned

from tarot.errors import InvalidValueError, TarotError
from tarot.evaluation.compare import check_compare, compare
from tarot.evaluation.evaluate import evaluate, n_evaluated
from tarot.evaluation.limit import check_limit
from tarot.evaluation.lm_eval_results import n_documents
from tarot.models.loaded_model import LoadedModel
from tarot.objectives.tasks.task_loading import load_task

TASK = "own_choice"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks"), test=10)


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return LoadedModel("bytes", byte_model(), byte_tokenizer())


@pytest.mark.parametrize("limit", [None, 3, 3.0, 0.25, 0.01, 99])
def test_a_limit_keeps_the_documents_that_lm_eval_keeps(
    loaded: LoadedModel, folder: Path, limit: int | float | None
) -> None:
    results = evaluate(loaded.model, loaded.tokenizer, TASK, include_path=folder, limit=limit)
    assert n_documents(results, TASK) == n_evaluated(load_task(TASK, folder), limit)


@given(st.floats(0, 1, exclude_min=True, exclude_max=True) | st.integers(1, 10**6))
def test_counts_and_fractions_are_limits(limit: int | float) -> None:
    check_limit(limit)


@pytest.mark.parametrize("limit", [0, -1, 0.0, -0.5, 1.5, math.nan, math.inf, True, False, "5"])
def test_anything_else_is_not_a_limit(limit: object) -> None:
    with pytest.raises(InvalidValueError, match="limit"):
        check_limit(limit)


def test_a_comparison_takes_a_fraction(loaded: LoadedModel, folder: Path) -> None:
    adapter = tuned(loaded, folder)
    compared = compare(loaded.model, loaded.tokenizer, adapter, include_path=folder, limit=0.3)
    assert len(compared.gold) == 3 and "--limit 0.3" in compared.command
    with pytest.raises(InvalidValueError, match="limit"):
        check_compare(adapter, include_path=folder, limit=0)


def test_one_task_is_a_string_or_a_list(loaded: LoadedModel, folder: Path) -> None:
    one, several = (
        evaluate(loaded.model, loaded.tokenizer, tasks, include_path=folder, limit=2) for tasks in (TASK, [TASK])
    )
    assert one["samples"] == several["samples"]


def test_answers_are_not_kept_of_a_model_with_an_open_edit(loaded: LoadedModel, folder: Path, tmp_path: Path) -> None:
    """They would be taken for those of the unedited model."""
    adapter, options = tuned(loaded, folder), {"include_path": folder, "limit": 2}
    with adapter.apply(loaded.model):
        evaluate(loaded.model, loaded.tokenizer, TASK, **options)
        with pytest.raises(TarotError, match="open edit"):
            evaluate(loaded.model, loaded.tokenizer, TASK, **options, answers=tmp_path / "answers.jsonl")
    evaluate(loaded.model, loaded.tokenizer, TASK, **options, answers=tmp_path / "answers.jsonl", adapter=adapter)
