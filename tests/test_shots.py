"""Shots: as many as lm-eval shows, and none that is evaluated."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from checkpoint import byte_model, byte_tokenizer
from lm_eval import evaluator
from lm_eval.defaults import DEFAULT_OTHER_SEED

from tarot.errors import TarotError
from tarot.evaluation import in_context as icl
from tarot.evaluation.compare import compare
from tarot.evaluation.evaluate import evaluate
from tarot.evaluation.options import EvaluationOptions
from tarot.models.lm_eval_model import TarotLM
from tarot.models.loaded_model import LoadedModel
from tarot.objectives.tasks.documents import normalize_text, question_key, shot_keys
from tarot.objectives.tasks.samples import render_evaluation_documents
from tarot.objectives.tasks.shots import ShotPool, resolve_num_fewshot
from tarot.objectives.tasks.task_loading import load_task, load_tasks
from tarot.search.config import TaRotConfig
from tarot.search.tune import tune

TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {files}}}
{splits}
output_type: multiple_choice
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_choice: choices
doc_to_target: gold
metric_list: [{{metric: acc}}]
{more}
"""
ALL = "training_split: train\ntest_split: test\n"
Row = dict[str, object]


def rows(start: int, stop: int) -> list[Row]:
    return [{"question": f"item {i}", "choices": ["red", "redder", "blue"], "gold": i % 3} for i in range(start, stop)]


def disguised(row: Row) -> Row:
    """Write the same document with reversed choices, in capitals, with wide spaces."""
    choices = list(row["choices"])
    gold = len(choices) - 1 - int(row["gold"])
    return {"question": f" {str(row['question']).upper()}\u3000", "choices": choices[::-1], "gold": gold}


def write(folder: Path, name: str, more: str = "", splits: str = ALL, **data: Sequence[Row]) -> str:
    files = {split: str(folder / f"{name}-{split}.jsonl") for split in data}
    for split, path in files.items():
        Path(path).write_text("".join(json.dumps(row) + "\n" for row in data[split]))
    text = TASK.format(name=name, files=json.dumps(files), splits=splits, more=more)
    (folder / f"{name}.yaml").write_text(text)
    return name


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return LoadedModel("bytes", byte_model(layers=1), byte_tokenizer())


def shown(results: Mapping[str, Any], task: str) -> list[list[str]]:
    """Return the items of each prompt: those of the shots, then the question's own."""
    prompts = [document["arguments"][0][0] for document in results["samples"][task]]
    return [re.findall(r"item \d+", normalize_text(prompt)) for prompt in prompts]


SOURCES = {
    "test split alone": "test_split: test\n",
    "validation split alone": "validation_split: test\n",
    "shots from the test split": ALL + "fewshot_split: test\n",
    "shots from the validation split": "validation_split: test\nfewshot_split: test\n",
}


@pytest.mark.parametrize("sampler", ["default", "first_n"])
@pytest.mark.parametrize("source", SOURCES)
def test_no_prompt_shows_its_own_answer(tmp_path: Path, loaded: LoadedModel, source: str, sampler: str) -> None:
    data = {"train": rows(50, 60), "test": [*rows(0, 5), disguised(rows(2, 3)[0])]}
    write(tmp_path, "own", f"fewshot_config: {{sampler: {sampler}}}", SOURCES[source], **data)
    for shots in (1, 4):
        items = shown(
            evaluate(loaded.model, loaded.tokenizer, ["own"], include_path=tmp_path, num_fewshot=shots), "own"
        )
        assert len(items) == 6
        assert all(len(each) == shots + 1 and each[-1] not in each[:-1] for each in items)
    with pytest.raises(TarotError, match="expected 0 to 4 shots, the documents that own has for them, got 5"):
        evaluate(loaded.model, loaded.tokenizer, ["own"], include_path=tmp_path, num_fewshot=5)


@pytest.mark.parametrize("sampler", ["default", "first_n"])
@pytest.mark.parametrize("listed", [True, False])
def test_evaluated_documents_are_never_shots(
    tmp_path: Path, loaded: LoadedModel, sampler: str, listed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    train, test = rows(0, 6), [*rows(100, 108), *map(disguised, rows(1, 3))]
    samples = f", samples: {json.dumps(train)}" if listed else ""
    write(tmp_path, "own", f"fewshot_config: {{sampler: {sampler}{samples}}}", train=train, test=test)
    results = evaluate(loaded.model, loaded.tokenizer, ["own"], include_path=tmp_path, num_fewshot=4)
    for items in shown(results, "own"):
        assert set(items[:-1]) == {"item 0", "item 3", "item 4", "item 5"}
    assert results["configs"]["own"]["metadata"]["shots_left_out"] == 2
    assert "left out 2 of 6 documents of own that could be shots: they are also evaluated" in caplog.text
    with pytest.raises(TarotError, match=r"0 to 4 shots, .* got 5; 2 more are also evaluated"):
        evaluate(loaded.model, loaded.tokenizer, ["own"], include_path=tmp_path, num_fewshot=5)


def test_evaluation_documents_have_the_shots_of_an_evaluation(tmp_path: Path, loaded: LoadedModel) -> None:
    write(tmp_path, "own", splits=SOURCES["test split alone"], test=rows(0, 5))
    results = evaluate(
        loaded.model, loaded.tokenizer, ["own"], include_path=tmp_path, num_fewshot=3, apply_chat_template=False
    )
    prompts = [document["arguments"][0][0] for document in results["samples"]["own"]]
    task = load_task("own", tmp_path)
    assert [sample.pairs[0][0] for sample in render_evaluation_documents(task, num_fewshot=3)] == prompts
    assert len(task.sampler.df) == 5


@pytest.mark.parametrize("sampler", ["default", "first_n"])
def test_shots_are_lm_evals_own_if_none_is_evaluated(tmp_path: Path, loaded: LoadedModel, sampler: str) -> None:
    write(tmp_path, "own", f"fewshot_config: {{sampler: {sampler}}}", train=rows(0, 9), test=rows(100, 106))
    selected = load_tasks(["own"], tmp_path)
    selected["tasks"]["own"].set_config("num_fewshot", 3)
    selected["tasks"]["own"].set_fewshot_seed(DEFAULT_OTHER_SEED)
    lm = TarotLM(loaded.model, tokenizer=loaded.tokenizer)
    stock = evaluator.evaluate(lm, selected, bootstrap_iters=0)
    ours = evaluate(
        loaded.model, loaded.tokenizer, ["own"], include_path=tmp_path, num_fewshot=3, apply_chat_template=False
    )
    assert shown(ours, "own") == shown(stock, "own")


@pytest.mark.parametrize("gold", [-1, 3, None])
def test_a_shot_without_an_answer_is_an_error(tmp_path: Path, loaded: LoadedModel, gold: object) -> None:
    train = [*rows(0, 3), rows(3, 4)[0] | {"gold": gold}]
    write(tmp_path, "own", train=train, test=rows(100, 104))
    with pytest.raises(TarotError, match="not among its choices"):
        evaluate(loaded.model, loaded.tokenizer, ["own"], include_path=tmp_path, num_fewshot=4)


def test_a_sampler_that_shows_the_question_itself_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, "own", splits=SOURCES["test split alone"], test=rows(0, 4))
    task = load_task("own", tmp_path)
    task.sampler.sample = lambda n, eval_doc=None, **_: list(task.eval_docs)[:n]
    with pytest.raises(TarotError, match="the question itself"):
        render_evaluation_documents(task, num_fewshot=2)


def test_shots_have_the_keys_of_both_templates(tmp_path: Path) -> None:
    more = 'fewshot_config: {doc_to_text: "{{q}}", samples: [{q: shot, choices: [red, blue], gold: 0}]}'
    write(tmp_path, "own", more, train=rows(0, 4), test=rows(10, 14))
    task = load_task("own", tmp_path)
    (shot,) = ShotPool(task).docs
    assert len(shot_keys(task, shot)) == 1
    assert question_key(task, task.eval_docs[0]) not in shot_keys(task, shot)
    with pytest.raises(TarotError, match="cannot render its shots"):
        shot_keys(task, {"other": "fields"})


# Numbers of shots


@pytest.mark.parametrize(
    "own, requested, expected",
    [(None, None, 0), (None, 3, 3), (2, None, 2), (2, 3, 3), (2, 0, 0), (0, None, 0), (0, 3, 0)],
)
def test_the_number_of_shots_follows_lm_eval(
    tmp_path: Path, own: int | None, requested: int | None, expected: int, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, "own", "" if own is None else f"num_fewshot: {own}", train=rows(0, 4), test=rows(10, 14))
    task = load_task("own", tmp_path)
    assert resolve_num_fewshot(task, requested) == expected
    assert ("own sets num_fewshot: 0" in caplog.text) == (own == 0 and requested == 3)


def test_a_fractional_number_of_shots_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, "own", "num_fewshot: 1.5", train=rows(0, 4), test=rows(10, 14))
    with pytest.raises(TarotError, match="num_fewshot of own"):
        resolve_num_fewshot(load_task("own", tmp_path), None)


def test_one_task_of_a_group_has_no_shots(tmp_path: Path, loaded: LoadedModel) -> None:
    for name in ("free", "pinned", "named"):
        more = "num_fewshot: 0" if name == "pinned" else ""
        write(tmp_path, name, more, train=rows(0, 4), test=rows(10, 14))
    (tmp_path / "group.yaml").write_text("group: both\ntask: [free, pinned, {task: named, num_fewshot: 0}]\n")
    results = evaluate(loaded.model, loaded.tokenizer, ["both"], include_path=tmp_path, num_fewshot=2, limit=2)
    assert results["n-shot"] == {"free": 2, "pinned": 0, "named": 0} | {
        name: n for name, n in results["n-shot"].items() if name == "both"
    }
    lengths = {name: {len(items) for items in shown(results, name)} for name in ("free", "pinned", "named")}
    assert lengths == {"free": {3}, "pinned": {1}, "named": {1}}


def test_an_adapter_records_the_shots_of_its_prompts(tmp_path: Path, loaded: LoadedModel) -> None:
    train, test = [*rows(0, 20), disguised(rows(3, 4)[0])], [*rows(100, 104), disguised(rows(0, 1)[0])]
    write(tmp_path, "own", "num_fewshot: 0", train=train, test=test)
    config = TaRotConfig("own", num_fewshot=3, num_samples=5, search="random", space="head")
    adapter = tune(
        loaded.model, loaded.tokenizer, config, output_dir=tmp_path / "edit", budget=2, include_path=tmp_path
    )
    assert adapter.provenance["num_fewshot"] == 0
    assert adapter.provenance["rows_left_out"] == {"evaluated": 1, "repeated": 1}
    comparison = compare(loaded.model, loaded.tokenizer, adapter, include_path=tmp_path, num_fewshot=3)
    assert comparison.num_fewshot == 0
    assert not any("few-shot" in arm.name for arm in comparison.arms)
    with pytest.raises(TarotError, match="a task that takes shots"):
        icl.evaluate_with_shots(loaded, "own", train[:2], EvaluationOptions(tmp_path))


def test_evaluated_documents_as_chosen_shots_are_an_error(tmp_path: Path, loaded: LoadedModel) -> None:
    write(tmp_path, "own", train=rows(0, 9), test=rows(5, 7))
    with pytest.raises(TarotError, match="evaluates 1 of the 2 documents"):
        icl.evaluate_with_shots(loaded, "own", [rows(0, 1)[0], disguised(rows(5, 6)[0])], EvaluationOptions(tmp_path))
