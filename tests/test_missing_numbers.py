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

from tarot.errors import TarotError
from tarot.evaluation.evaluate import evaluate
from tarot.models.loaded_model import LoadedModel
from tarot.models.missing_numbers import BrokenRows, is_number, record_missing_numbers, replace_nonfinite

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


def test_documents_of_nan_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The embedding of a byte that only one document contains is NaN."""
    folder = write_tasks(tmp_path, test=6)
    path = folder / "test.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[3]["question"] += " ~"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    loaded = LoadedModel("bytes", byte_model(), byte_tokenizer())
    (token,) = loaded.tokenizer.encode("~", add_special_tokens=False)[-1:]
    loaded.model.get_input_embeddings().weight[token] = math.nan
    results = evaluate(*loaded, ["own_choice"], include_path=folder)
    assert results["without_number"] == {"own_choice": [3]}
    assert "own_choice: 1 of 6 documents without a number (NaN or infinite): 3" in caplog.text
