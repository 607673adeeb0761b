"""Samples: drawn by the seed, without replacement, from documents that are not evaluated."""

import json
from pathlib import Path

import pytest
from checkpoint import write_tasks
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_eval.api.task import Task

from tarot.errors import TarotError
from tarot.objectives.tasks.documents import document_key
from tarot.objectives.tasks.samples import MIXED_SHOTS, Sample, draw_samples
from tarot.objectives.tasks.task_loading import load_task


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module")
def choice(folder: Path) -> Task:
    return load_task("own_choice", folder)


@given(n=st.integers(1, 20), seed=st.integers(0, 5), shots=st.sampled_from([0, 1, 6, "mix"]))
@settings(max_examples=25)
def test_samples_are_distinct_and_no_shots(choice: Task, n: int, seed: int, shots: int | str) -> None:
    samples = draw_samples(choice, n, num_fewshot=shots, seed=seed)
    most = max(MIXED_SHOTS) if shots == "mix" else shots
    assert len({sample.key for sample in samples}) == n
    assert not {int(sample.id.split("/")[1]) for sample in samples} & set(range(most))
    assert all(sample.num_fewshot in (MIXED_SHOTS if shots == "mix" else (shots,)) for sample in samples)
    questions = [f"item {sample.id.split('/')[1]}\n" for sample in samples]
    for sample, question in zip(samples, questions, strict=True):
        context = sample.pairs[0][0]
        assert context.endswith(question + "A:")
        assert context.count("A:") == sample.num_fewshot + 1
        assert not any(other in context for other in questions if other != question)


@given(seed=st.integers(0, 100))
@settings(max_examples=10)
def test_one_seed_draws_the_same_samples(choice: Task, seed: int) -> None:
    assert draw_samples(choice, 5, num_fewshot="mix", seed=seed) == draw_samples(
        choice, 5, num_fewshot="mix", seed=seed
    )


def test_other_seeds_draw_other_samples(choice: Task) -> None:
    drawn = {tuple(sample.id for sample in draw_samples(choice, 5, seed=seed)) for seed in range(10)}
    assert len(drawn) == 10


@given(row=st.integers(0, 29))
@settings(max_examples=10)
def test_a_document_key_depends_on_its_content_only(choice: Task, row: int) -> None:
    doc = dict(choice.training_docs()[row])
    assert document_key(choice, doc) == document_key(choice, {**doc})
    assert document_key(choice, doc) != document_key(choice, {**doc, "question": "another"})
    assert document_key(choice, doc) != document_key(choice, {**doc, "gold": (doc["gold"] + 1) % 3})


def error_of(*args: object, **kwargs: object) -> str:
    with pytest.raises(TarotError) as error:
        draw_samples(*args, **kwargs)
    return str(error.value)


def test_too_few_documents_are_an_error(choice: Task) -> None:
    assert error_of(choice, 25, num_fewshot=6) == (
        "expected at least 25 samples and 6 shots in the 'train' split of own_choice, got 30 documents; "
        "use fewer samples or shots"
    )
    assert len(draw_samples(choice, 24, num_fewshot=6)) == 24


@pytest.mark.parametrize("shots", [-1, "many", "1.5", "6"])
def test_a_wrong_number_of_shots_is_an_error(choice: Task, shots: object) -> None:
    assert error_of(choice, 5, num_fewshot=shots).startswith("num_fewshot must be ")


def test_a_training_split_that_is_evaluated_is_an_error(tmp_path: Path) -> None:
    write_tasks(tmp_path)
    (tmp_path / "test.jsonl").write_text((tmp_path / "train.jsonl").read_text())
    assert error_of(load_task("own_choice", tmp_path), 20) == (
        "expected at least 20 samples and 0 shots in the 'train' split of own_choice, got 30 documents "
        "(30 also evaluated); use fewer samples or shots"
    )


@pytest.mark.parametrize("pinned", [True, False])
@pytest.mark.parametrize("shots", [2, "mix"])
def test_a_task_that_sets_no_shots_gets_none(tmp_path: Path, pinned: bool, shots: int | str) -> None:
    write_tasks(tmp_path)
    if pinned:
        (file := tmp_path / "choice.yaml").write_text(file.read_text() + "num_fewshot: 0\n")
    samples = draw_samples(load_task("own_choice", tmp_path), 9, num_fewshot=shots)
    assert {sample.num_fewshot for sample in samples} <= ({0} if pinned else {0, 2, 4, 6})
    assert any(sample.pairs[0][0].count("A:") > 1 for sample in samples) != pinned


@pytest.mark.parametrize("gold", [3, -1, None])
def test_wrong_answers_of_evaluated_documents_are_an_error(tmp_path: Path, gold: object) -> None:
    write_tasks(tmp_path)
    with (tmp_path / "test.jsonl").open("a") as file:
        file.write(json.dumps({"question": "item", "choices": ["red", "redder", "blue"], "gold": gold}) + "\n")
    (file := tmp_path / "choice.yaml").write_text(file.read_text().replace('"{{gold}}"', "gold"))
    assert f"got {gold} in test/12 of own_choice" in error_of(load_task("own_choice", tmp_path), 5)


@pytest.mark.parametrize(
    ("replace", "by", "expected"),
    [
        (
            "training_split: train",
            "",
            "The task 'own_choice' has no split to tune on",
        ),
        (
            'doc_to_text: "{{question}}\\nA:"',
            'doc_to_text: ""',
            "The prompt of train/",
        ),
        (
            'doc_to_target: "{{gold}}"',
            'doc_to_target: "{{gold if question|length > 8 else gold + 7}}"',
            "expected a gold answer among ['red', 'redder', 'blue']",
        ),
        (
            "output_type: multiple_choice",
            "output_type: loglikelihood_rolling",
            "expected a task of output type multiple_choice",
        ),
    ],
)
def test_tasks_that_cannot_be_tuned_on_are_an_error(tmp_path: Path, replace: str, by: str, expected: str) -> None:
    write_tasks(tmp_path)
    file = tmp_path / "choice.yaml"
    assert replace in file.read_text()
    text = file.read_text().replace(replace, by)
    if "doc_to_text" in by:
        text = text.replace('description: "Name what it says.\\n"\n', "")
    file.write_text(text)
    assert error_of(load_task("own_choice", tmp_path), 5).startswith(expected)


def test_a_sample_is_plain_data(choice: Task) -> None:
    (sample,) = draw_samples(choice, 1)
    assert isinstance(hash(sample), int)
    assert Sample(**vars(sample)) == sample
