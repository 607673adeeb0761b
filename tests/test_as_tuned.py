"""Evaluating an adapter as it was tuned."""

from dataclasses import replace
from pathlib import Path

import pytest
from test_compare import folder, loaded, tuned

from tarot.errors import TarotError
from tarot.evaluation.as_tuned import check_as_tuned, config_of, evaluate_as_tuned, evaluation_shots, kept_limit
from tarot.evaluation.compare import compare
from tarot.evaluation.evaluate import evaluate
from tarot.evaluation.options import EvaluationOptions
from tarot.models.loaded_model import LoadedModel
from tarot.objectives.tasks.documents import document_key
from tarot.objectives.tasks.task_loading import load_task
from tarot.search.config import TaRotConfig

__all__ = ["folder", "loaded"]  # fixtures


@pytest.mark.parametrize(
    ("change", "keyword"),
    [
        ({"task": 5}, "task"),
        ({"bound": "wide"}, "bound"),
        ({"apply_chat_template": 1}, "apply_chat_template"),
        ({"search": "bayes"}, "search"),
        ({"objective": "acuracy"}, "did you mean 'accuracy'"),
        ({"num_fewshot": "many"}, "num_fewshot"),
        ({"seed": True}, "seed"),
    ],
    ids=str,
)
def test_configurations_that_no_search_accepts(
    loaded: LoadedModel, folder: Path, change: dict[str, object], keyword: str
) -> None:
    adapter = tuned(loaded, folder)
    with pytest.raises(TarotError, match=keyword):
        config_of(replace(adapter, provenance={**adapter.provenance, **change}))


def test_the_prompts_are_those_of_the_samples(loaded: LoadedModel, folder: Path) -> None:
    """The results equal those of an evaluation with the adapter's shots and without its chat template."""
    adapter = tuned(loaded, folder, num_fewshot=2, apply_chat_template=False)
    results = evaluate_as_tuned(loaded, config_of(adapter), adapter, EvaluationOptions(folder, limit=3))
    expected = evaluate(
        loaded.model,
        loaded.tokenizer,
        "own_choice",
        adapter=adapter,
        include_path=folder,
        num_fewshot=2,
        limit=3,
        apply_chat_template=False,
    )
    assert results["samples"] == expected["samples"]
    assert results["config"]["apply_chat_template"] is False


@pytest.mark.parametrize(("num_fewshot", "shots"), [(0, 0), (3, 3), ("mix", 0)])
def test_mixed_shots_are_evaluated_without_shots(num_fewshot: int | str, shots: int) -> None:
    assert evaluation_shots(TaRotConfig("own_choice", num_fewshot=num_fewshot)) == shots


def test_a_document_that_was_tuned_on_is_not_evaluated(loaded: LoadedModel, folder: Path) -> None:
    adapter = tuned(loaded, folder)
    task = load_task("own_choice", folder)
    evaluated = [{"id": "test/0", "key": document_key(task, next(iter(task.eval_docs)))}]
    leaked = replace(adapter, provenance={**adapter.provenance, "samples_drawn": evaluated})
    with pytest.raises(TarotError, match="own_choice"):
        check_as_tuned(leaked, include_path=folder)
    assert check_as_tuned(adapter, include_path=folder).config.task == "own_choice"


@pytest.mark.parametrize(
    ("name", "value", "missing"),
    [
        ("task", None, "task"),
        ("budget", None, "budget"),
        ("samples_drawn", None, "samples"),
        ("samples_drawn", [{"key": "k"}], "samples"),
    ],
)
def test_adapters_must_record_how_they_were_tuned(
    loaded: LoadedModel, folder: Path, name: str, value: object, missing: str
) -> None:
    """The error is raised before any arm answers."""
    adapter = tuned(loaded, folder)
    provenance = {**adapter.provenance, name: value}
    provenance = {key: value for key, value in provenance.items() if value is not None}
    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(TarotError, match=f"does not record the {missing} .*tarot evaluate"),
    ):
        patch.setattr("tarot.evaluation.baselines.setting.evaluate_as_tuned", None)
        compare(loaded.model, loaded.tokenizer, replace(adapter, provenance=provenance), include_path=folder)


def test_a_limit_is_kept_only_where_the_edit_was_measured_within_it(loaded: LoadedModel, folder: Path) -> None:
    adapter = tuned(loaded, folder)
    limited = {**adapter.provenance, "search": "adam", "space": "full", "max_kl": 0.01}
    for retention, limit in (({"kl": 0.01}, 0.01), ({"kl": 0.02}, 0.0), ({"kl": None}, 0.0), (None, 0.0)):
        edit = replace(adapter, provenance=limited | ({} if retention is None else {"retention": retention}))
        assert kept_limit(edit) == limit
        assert kept_limit(edit.scaled(2.0)) == 0
    assert kept_limit(adapter) == 0
