"""In-context baselines: chosen shots in every prompt, independent draws, and calibration against a slow oracle."""

import math
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from checkpoint import byte_model, byte_tokenizer, write_tasks
from hypothesis import given
from hypothesis import strategies as st
from test_compare import tuned

from tarot.errors import TarotError
from tarot.evaluation.evaluate import evaluate
from tarot.evaluation.in_context import (
    _log_mean_exp,
    _log_softmax,
    calibrate,
    can_calibrate,
    draw_shots,
    evaluate_with_shots,
    labelled_documents,
    question_frame,
)
from tarot.evaluation.lm_eval_results import read_answers
from tarot.evaluation.options import EvaluationOptions
from tarot.models.lm_eval_model import TarotLM
from tarot.models.loaded_model import LoadedModel
from tarot.objectives.tasks.task_loading import load_task

TASK = "own_choice"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_tasks(tmp_path_factory.mktemp("tasks"))
    for path in folder.glob("*.jsonl"):
        path.write_text(path.read_text().replace('"redder"', '"tan"').replace('"blue"', '"sky"'))
    return folder


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return LoadedModel("bytes", byte_model(), byte_tokenizer())


# Draws and frames


@given(st.integers(2, 12), st.data(), st.integers(0, 9))
def test_draws_do_not_depend_on_how_many_follow(n: int, data: st.DataObject, seed: int) -> None:
    k = data.draw(st.integers(1, n))
    docs = [{"i": i} for i in range(n)]
    five = draw_shots(docs, k, 5, seed)
    assert draw_shots(docs, k, 3, seed) == five[:3]
    assert all(len({doc["i"] for doc in draw}) == k for draw in five)
    assert five == draw_shots(docs, k, 5, seed)


def test_draws_and_seeds_differ() -> None:
    docs = [{"i": i} for i in range(20)]
    draws = [tuple(doc["i"] for doc in draw) for seed in range(3) for draw in draw_shots(docs, 6, 5, seed)]
    assert len(set(draws)) == 15


words = st.text(alphabet="ab \n", max_size=12)


@given(words, words, st.lists(words, min_size=2, max_size=5))
def test_every_question_has_the_frame(before: str, after: str, contents: list[str]) -> None:
    texts = [f"{before} {content} {after}" for content in contents]
    head, tail = question_frame(texts)
    assert all(text.startswith(head) and text.endswith(tail) and len(head) + len(tail) <= len(text) for text in texts)


def test_frames_end_at_white_space() -> None:
    assert question_frame(["Q: is red 12 ?\nA:", "Q: is red 13 ?\nA:"]) == ("Q: is red ", " ?\nA:")
    assert question_frame(["item 10", "item 11"]) == ("item ", "")
    assert question_frame(["one question"]) == question_frame([]) == ("", "")


# Shots


def test_the_samples_of_a_search_are_looked_up(loaded: LoadedModel, folder: Path) -> None:
    adapter, task = tuned(loaded, folder), load_task(TASK, folder)
    drawn = adapter.provenance["samples_drawn"]
    docs = labelled_documents(task, drawn)
    assert [f"train/{list(task.training_docs()).index(doc)}" for doc in docs] == [sample["id"] for sample in drawn]
    with pytest.raises(
        TarotError, match="expected the data that the adapter was tuned on in train/30, got other data; tune again"
    ):
        labelled_documents(task, [{"id": "train/30", "key": drawn[0]["key"]}])


@pytest.mark.parametrize("chat", [True, False])
def test_every_prompt_has_the_chosen_shots_in_order(loaded: LoadedModel, folder: Path, chat: bool) -> None:
    docs = [list(load_task(TASK, folder).training_docs())[row] for row in (7, 3)]
    results = evaluate_with_shots(loaded, TASK, docs, EvaluationOptions(folder, limit=3), apply_chat_template=chat)
    for logged in results["samples"][TASK]:
        prompt = logged["arguments"][0][0]
        places = [prompt.index(f"item {row}\n") for row in (7, 3)] + [prompt.index(logged["doc"]["question"])]
        assert places == sorted(places)
        assert prompt.count("item ") == 3
        assert ("<user>" in prompt) == chat


def test_scores_are_those_of_lm_eval_with_the_same_shots(loaded: LoadedModel, folder: Path) -> None:
    """The first documents are the shots that lm-eval itself shows."""
    docs = list(load_task(TASK, folder).training_docs())[:4]
    ours = evaluate_with_shots(loaded, TASK, docs, EvaluationOptions(folder))["samples"][TASK]
    theirs = evaluate(loaded.model, loaded.tokenizer, [TASK], include_path=folder, num_fewshot=4)["samples"][TASK]
    assert [logged["filtered_resps"] for logged in ours] == [logged["filtered_resps"] for logged in theirs]


def test_what_lm_eval_raises_is_one_line(loaded: LoadedModel, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> NoReturn:
        raise RuntimeError("planted\nfailure")

    monkeypatch.setattr("tarot.evaluation.evaluate.evaluator.evaluate", fail)
    with pytest.raises(TarotError, match="own_choice: RuntimeError: planted failure"):
        evaluate_with_shots(loaded, "own_choice", [], EvaluationOptions(folder))


def test_shots_for_tasks_that_generate(loaded: LoadedModel, folder: Path) -> None:
    docs = list(load_task("own_generate", folder).training_docs())[3:5]
    results = evaluate_with_shots(loaded, "own_generate", docs, EvaluationOptions(folder, limit=2))
    assert all("item 3" in logged["arguments"][0][0] for logged in results["samples"]["own_generate"])


# Calibration


@pytest.mark.parametrize("chat", [True, False])
def test_calibration_is_that_of_the_paper(folder: Path, chat: bool) -> None:
    """Compare with q = softmax(W p), W = diag(p_cf)^-1, p_cf the mean over three content-free prompts."""
    loaded = LoadedModel("bytes", byte_model(), byte_tokenizer(chat=chat))
    task, lm = load_task(TASK, folder), TarotLM(loaded.model, tokenizer=loaded.tokenizer)
    logged = evaluate(loaded.model, loaded.tokenizer, [TASK], include_path=folder, num_fewshot=0, limit=5)["samples"][
        TASK
    ]

    def probabilities(prompt: str) -> list[float]:
        scores = []
        for choice in ("red", "tan", "sky"):
            context, tokens = lm.encode(prompt, choice if chat else f" {choice}")
            scores.append(
                math.exp(lm._loglikelihood_tokens([((prompt, choice), context, tokens)], disable_tqdm=True)[0][0])
            )
        return [score / sum(scores) for score in scores]

    def prompt(content: str) -> str:
        text = f"item {content}\nA:"
        description = "Name what it says.\n"
        return f"<system>{description}</s><user>{text}</s><assistant>" if chat else f"{description}{text}"

    assert logged[0]["arguments"][0][0].replace("1000", "N/A") == prompt("N/A")
    free = [probabilities(prompt(content)) for content in ("N/A", "", "[MASK]")]
    p_cf = [sum(column) / 3 for column in zip(*free, strict=True)]
    calibrated = calibrate(loaded, task, logged, question_frame(["item 1\nA:", "item 2\nA:"]))
    for before, after in zip(logged, calibrated, strict=True):
        weighted = [p / q for p, q in zip(probabilities(before["arguments"][0][0]), p_cf, strict=True)]
        expected = [w / sum(weighted) for w in weighted]
        assert [math.exp(value) for value, _ in after["filtered_resps"]] == pytest.approx(expected, rel=1e-3)
        assert [flag for _, flag in after["filtered_resps"]] == [w == max(expected) for w in expected]
        assert after["doc"] == before["doc"]


@given(st.lists(st.floats(-2000, 0), min_size=1, max_size=5))
def test_unlikely_answers_have_finite_logarithms(values: list[float]) -> None:
    """Choices of different lengths may have probabilities of 1e-400, which underflow."""
    assert _log_mean_exp(values) == pytest.approx(np.logaddexp.reduce(values) - math.log(len(values)))
    assert np.logaddexp.reduce(_log_softmax(values)) == pytest.approx(0, abs=1e-9)


def test_calibration_removes_the_preference_of_content_free_prompts(loaded: LoadedModel, folder: Path) -> None:
    """A model that ignores its prompt has no preference after calibration."""
    model = byte_model()
    model.get_output_embeddings().weight.zero_()
    flat = LoadedModel("flat", model, byte_tokenizer())
    logged = evaluate(flat.model, flat.tokenizer, [TASK], include_path=folder, num_fewshot=0, limit=2)["samples"][TASK]
    (first, _) = calibrate(flat, load_task(TASK, folder), logged, ("", ""))
    assert [math.exp(value) for value, _ in first["filtered_resps"]] == pytest.approx([1 / 3] * 3)


def test_calibration_ignores_requests_without_a_context(loaded: LoadedModel, folder: Path, tmp_path: Path) -> None:
    """`acc_mutual_info` requests each choice again without a context; the calibrated answers stay the same."""
    text = (folder / "choice.yaml").read_text()
    (tmp_path / "choice.yaml").write_text(text + "metric_list: [{metric: acc}, {metric: acc_mutual_info}]\n")
    arms = []
    for path in (folder, tmp_path):
        task, frame = load_task(TASK, path), question_frame(["item 1\nA:", "item 2\nA:"])
        logged = evaluate(loaded.model, loaded.tokenizer, [TASK], include_path=path, num_fewshot=0, limit=9)["samples"][
            TASK
        ]
        arms.append(read_answers(task, calibrate(loaded, task, logged, frame)))
    assert arms[0] == arms[1]


def test_only_choices_can_be_calibrated(folder: Path) -> None:
    assert can_calibrate(load_task(TASK, folder))
    assert not can_calibrate(load_task("own_generate", folder))
    assert not can_calibrate(load_task("own_loglikelihood", folder))


def test_a_prompt_without_its_question_is_an_error(loaded: LoadedModel, folder: Path) -> None:
    task = load_task(TASK, folder)
    logged = {"doc": task.eval_docs[0], "arguments": [("something else", " red")]}
    with pytest.raises(
        TarotError, match=r"expected the question 'item 1000\\nA:' in its prompt, got a prompt without it"
    ):
        calibrate(loaded, task, [logged], ("", ""))
