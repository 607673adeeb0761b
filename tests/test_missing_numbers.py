"""Documents without a number are counted and named; a model that gives no number at all is refused."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint import byte_model, byte_tokenizer, write_tasks
from hypothesis import given
from hypothesis import strategies as st
from lm_eval.api.instance import Instance
from lm_eval.api.model import CachingLM

from tarot.errors import TarotError
from tarot.evaluation.evaluate import evaluate
from tarot.models import lm_eval_model
from tarot.models.lm_eval_model import TarotLM
from tarot.models.loaded_model import LoadedModel
from tarot.models.missing_numbers import (
    BrokenRows,
    check_some_number,
    is_number,
    record_missing_numbers,
    replace_nonfinite,
)

finite = st.floats(allow_nan=False, allow_infinity=False)
nested = st.recursive(
    finite | st.text() | st.booleans() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)
odd = st.sampled_from([math.nan, math.inf, -math.inf])


@given(nested, odd)
def test_a_nonfinite_value_is_found_at_any_depth(value: Any, bad: float) -> None:
    assert is_number(value)
    assert replace_nonfinite(value) == value
    for broken in ([value, bad], {"a": value, "b": [(bad,)]}, [[value], [bad]]):
        assert not is_number(broken)
        json.dumps(replace_nonfinite(broken), allow_nan=False)


@given(st.lists(st.tuples(st.integers(0, 2), finite | odd), min_size=1, max_size=8))
def test_documents_are_counted_once_and_named(scores: list[tuple[int, float]]) -> None:
    documents = [
        {"doc_id": i, "filtered_resps": [(value, False)], "metrics": []}
        for i, (copies, value) in enumerate(scores)
        for _ in range(copies + 1)
    ]
    results: dict[str, Any] = {"samples": {"task": documents}, "results": {"task": {"acc,none": 0.5}}}
    expected = [i for i, (_, value) in enumerate(scores) if not math.isfinite(value)]
    if len(expected) == len(scores):
        with pytest.raises(TarotError, match=f"all {len(scores)} documents of task"):
            record_missing_numbers(results, {})
        return
    record_missing_numbers(results, {})
    assert results["without_number"] == ({"task": expected} if expected else {})
    assert {each["doc_id"] for each in documents if each.get("without_number")} == set(expected)


def test_the_metrics_of_a_task_without_any_number_are_nan() -> None:
    def document(value: float) -> dict[str, Any]:
        return {"doc_id": 0, "filtered_resps": [(value, False)], "metrics": []}

    samples = {"good": [document(-1.0)], "bad": [document(math.nan)], "empty": [document(0.0) | {"filtered_resps": []}]}
    results: dict[str, Any] = {"samples": samples, "results": {name: {"acc,none": 0.5} for name in samples}}
    record_missing_numbers(results, {})
    assert results["results"]["good"] == {"acc,none": 0.5}
    assert all(math.isnan(results["results"][name]["acc,none"]) for name in ("bad", "empty"))


@given(st.lists(st.lists(finite | odd, min_size=3, max_size=3), min_size=1, max_size=5))
def test_generation_ends_where_logits_are_not_numbers(rows: list[list[float]]) -> None:
    scores = torch.tensor(rows, dtype=torch.float64)
    broken = {
        i
        for i, row in enumerate(rows)
        if any(math.isnan(value) or value == math.inf for value in row) or all(value == -math.inf for value in row)
    }
    processor = BrokenRows(end=1)
    after = processor(torch.zeros(len(rows), 1, dtype=torch.long), scores)
    assert processor.rows == broken
    for i in range(len(rows)):
        assert after[i].argmax() == 1 if i in broken else torch.equal(after[i], scores[i])


@pytest.fixture(scope="module")
def nan_model() -> LoadedModel:
    model = byte_model()
    model.model.layers[1].mlp.down_proj.weight.fill_(math.nan)
    return LoadedModel("nan", model, byte_tokenizer())


@pytest.mark.parametrize("task", ["own_choice", "openings"])
def test_a_model_that_gives_only_nan_is_refused(nan_model: LoadedModel, tmp_path: Path, task: str) -> None:
    with pytest.raises(TarotError, match=f"NaN.*{task}"):
        evaluate(nan_model.model, nan_model.tokenizer, [task], include_path=write_tasks(tmp_path), limit=2)


@pytest.fixture
def broken(tmp_path: Path) -> tuple[LoadedModel, Path]:
    """A model that computes NaN for the question of document 3, which has a byte that no other has, and the tasks."""
    folder = write_tasks(tmp_path / "tasks", test=6)
    path = folder / "test.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[3]["question"] += " ~"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    loaded = LoadedModel("bytes", byte_model(), byte_tokenizer())
    (token,) = loaded.tokenizer.encode("~", add_special_tokens=False)[-1:]
    loaded.model.get_input_embeddings().weight[token] = math.nan
    return loaded, folder


def test_documents_of_nan_are_named(broken: tuple[LoadedModel, Path], caplog: pytest.LogCaptureFixture) -> None:
    loaded, folder = broken
    results = evaluate(*loaded, ["own_choice"], include_path=folder)
    assert results["without_number"] == {"own_choice": [3]}
    assert "own_choice: 1 of 6 documents without a number (NaN or infinite): 3" in caplog.text


TASKS = ["own_choice", "own_generate", "own_loglikelihood"]


def test_answers_without_a_number_are_not_kept(broken: tuple[LoadedModel, Path], tmp_path: Path) -> None:
    loaded, folder = broken
    log = tmp_path / "answers.jsonl"
    runs = [evaluate(*loaded, TASKS, include_path=folder, answers=log) for _ in range(3)]
    assert [run["without_number"] for run in runs] == [{task: [3] for task in TASKS}] * 3
    assert len(log.read_text().splitlines()) == 5 * (3 + 1 + 1)


def test_a_response_cache_forgets_answers_without_a_number(
    broken: tuple[LoadedModel, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under `tarot lm-eval --use_cache`: the second run asks the model again, and names the document again."""
    loaded, _ = broken
    named: list[dict[str, Any]] = []
    monkeypatch.setattr(lm_eval_model, "check_some_number", lambda missing, *_, **__: named.append(dict(missing)))
    for _ in range(2):
        lm = TarotLM(loaded.model, tokenizer=loaded.tokenizer)
        lm._checks_numbers = True
        cached = CachingLM(lm, str(tmp_path / "cache.db"))
        for kind, options in (("generate_until", {"until": ["\n"], "max_gen_toks": 3}), ("loglikelihood", " red")):
            texts = enumerate(("item", "item ~"))
            getattr(cached, kind)([Instance(kind, {}, (text, options), i, ("task", i, 1)) for i, text in texts])
        cached.dbdict.close()
    assert named == [{"task": {1}}] * 4


def test_one_broken_document_of_a_repeated_run_is_no_broken_model() -> None:
    with pytest.raises(TarotError):
        check_some_number({"task": [3]}, {"task": 1})
    check_some_number({"task": [3]}, {"task": 1}, has_others=True)
