"""Baselines that change prompts or read the answers differently: which shots each document sees, and calibration."""

import math
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint import byte_model, byte_tokenizer, write_tasks
from hypothesis import given
from hypothesis import strategies as st
from test_compare import tuned

from tarot.errors import TarotError, UnknownName
from tarot.evaluation.arms import LoggedAnswers
from tarot.evaluation.as_tuned import config_of, tuning_samples
from tarot.evaluation.baselines import prompting
from tarot.evaluation.baselines.prompting import BASELINES, batch_calibrate, embed_text
from tarot.evaluation.baselines.registry import BASELINES as REGISTERED
from tarot.evaluation.baselines.registry import check_baselines
from tarot.evaluation.baselines.requirements import check_requirements
from tarot.evaluation.baselines.run import run_baseline
from tarot.evaluation.baselines.setting import Setting
from tarot.evaluation.compare import check_compare, compare
from tarot.evaluation.grid.cell_runner import CellRunner, ModelCache
from tarot.evaluation.grid.grid import CellRequest, request_digest
from tarot.evaluation.in_context import labelled_documents
from tarot.evaluation.lm_eval_results import LoggedDocument, question_text
from tarot.evaluation.options import EvaluationOptions
from tarot.evaluation.results.results_file import comparisons_to_json, load_comparisons
from tarot.models.loaded_model import LoadedModel
from tarot.objectives.tasks.prompts import render_pairs
from tarot.objectives.tasks.task_loading import load_task
from tarot.report.costs import COST_HEADER, cost_rows
from tarot.search.config import TaRotConfig

N_SHOTS = 2
log_probability = st.floats(-8, 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks"), test=5)


@pytest.fixture(scope="module")
def setting(folder: Path) -> Setting:
    loaded = LoadedModel("bytes", byte_model(), byte_tokenizer())
    adapter = tuned(loaded, folder)
    task = load_task("own_choice", folder)
    labelled = labelled_documents(task, tuning_samples(adapter))
    return Setting(loaded, config_of(adapter), task, labelled, N_SHOTS, budget=9, options=EvaluationOptions(folder))


def contexts(documents: Sequence[LoggedDocument]) -> list[str]:
    return [document["arguments"][0][0] for document in documents]


def shown(setting: Setting, context: str) -> list[int]:
    """Return the rows of the labelled documents in a prompt, in the order in which they appear."""
    places = {row: context.find(question_text(setting.task, doc)) for row, doc in enumerate(setting.labelled)}
    return sorted((row for row, place in places.items() if place >= 0), key=places.__getitem__)


def test_all_labelled_documents_are_shown(setting: Setting) -> None:
    documents, labels = BASELINES["all-shots"](setting)
    assert labels == len(setting.labelled) == 6
    assert all(shown(setting, context) == [0, 1, 2, 3, 4, 5] for context in contexts(documents))


def test_only_as_many_documents_are_shown_as_the_context_holds(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    longest = max(
        len(setting.lm.tok_encode(context)) for context in contexts(BASELINES["all-shots"](setting).documents)
    )
    monkeypatch.setattr(type(setting.lm), "max_length", longest - 5)
    documents, labels = BASELINES["all-shots"](setting)
    assert 0 < labels < 6
    assert all(shown(setting, context) == list(range(labels)) for context in contexts(documents))
    monkeypatch.setattr(type(setting.lm), "max_length", 10)
    with pytest.raises(TarotError, match="holds a shot"):
        BASELINES["all-shots"](setting)


def test_the_longest_document_is_that_with_most_tokens(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """Characters do not tell: a token is a byte here."""
    wide = {**setting.task.eval_docs[0], "question": "\N{GRINNING FACE}" * 12}
    narrow = {**wide, "question": "a" * 20}
    task = load_task("own_choice", setting.options.include_path)
    monkeypatch.setattr(type(task), "eval_docs", [narrow, wide])
    monkeypatch.setattr(prompting, "load_task", lambda name, include_path: task)
    assert prompting._longest_document(setting) == wide


def test_shots_leave_room_for_a_generated_answer(setting: Setting) -> None:
    task = load_task("own_generate", setting.options.include_path)
    setting = replace(setting, config=replace(setting.config, task="own_generate"), task=task)
    (document,) = list(task.eval_docs)[:1]
    prompt = setting.lm.tok_encode(render_pairs(task, "a", document, 0, setting.chat_template)[0][0][0])
    assert prompting._n_tokens(setting, task, document, 0) == len(prompt) + 3


def test_a_draw_without_a_number_is_not_the_best(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([math.nan, -3.0, -2.0, *[-5.0] * (prompting.DRAWS - 3)])
    monkeypatch.setattr(prompting, "_mean_likelihood", lambda setting, shots: next(values))
    drawn = prompting.draw_shots(setting.labelled, N_SHOTS, prompting.DRAWS, setting.config.seed)[2]
    documents, _ = BASELINES["best-shots"](setting)
    assert shown(setting, contexts(documents)[0]) == [setting.labelled.index(shot) for shot in drawn]


def test_the_best_draw_is_the_likeliest_for_the_other_labels(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    draws: list[tuple[float, list[int]]] = []
    likelihood = prompting._mean_likelihood

    def recorded(setting: Setting, shots: Sequence[object]) -> float:
        value = likelihood(setting, shots)
        draws.append((value, [setting.labelled.index(shot) for shot in shots]))
        return value

    monkeypatch.setattr(prompting, "_mean_likelihood", recorded)
    documents, labels = BASELINES["best-shots"](setting)
    assert labels == 6  # the others decide
    assert len(draws) == prompting.DRAWS
    assert len({value for value, _ in draws}) > 1
    assert shown(setting, contexts(documents)[0]) == max(draws)[1]
    with pytest.raises(TarotError, match="at least 2"):
        BASELINES["best-shots"](replace(setting, labelled=setting.labelled[:1]))


def test_the_nearest_documents_are_shown_the_nearest_last(setting: Setting) -> None:
    documents, _ = BASELINES["nearest-shots"](setting)
    embeddings = [embed_text(setting, question_text(setting.task, doc)) for doc in setting.labelled]
    for document, context in zip(documents, contexts(documents), strict=True):
        own = embed_text(setting, question_text(setting.task, document["doc"]))
        nearness = [float(own @ other) for other in embeddings]
        assert shown(setting, context) == sorted(range(6), key=nearness.__getitem__)[-N_SHOTS:]


def test_a_document_is_never_its_own_shot(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where the same question is among the labelled documents."""
    chosen = []

    def answer_with(self: Setting, shots: object, choose: Any) -> dict[str, object]:
        chosen.extend((doc, choose(self.task, doc)) for doc in self.labelled)
        return {"samples": {"own_choice": []}}

    monkeypatch.setattr(Setting, "answer_with", answer_with)
    BASELINES["nearest-shots"](setting)
    assert len(chosen) == 6
    assert all(doc not in shots and len(shots) == N_SHOTS for doc, shots in chosen)


def test_an_embedding_is_the_unit_mean_of_the_last_hidden_states(setting: Setting) -> None:
    tokens = torch.tensor([setting.lm.tok_encode("is it red?")])
    with torch.no_grad():
        hidden = setting.loaded.model.model(tokens).last_hidden_state[0].mean(0)
    torch.testing.assert_close(embed_text(setting, "is it red?"), hidden / hidden.norm())


# Batch calibration


def document(values: Sequence[float]) -> LoggedDocument:
    return {
        "arguments": [("question", f" {i}") for i in range(len(values))],
        "filtered_resps": [(value, False) for value in values],
        "metrics": ["acc"],
    }


def probabilities(document: LoggedDocument) -> list[float]:
    return [math.exp(value) for value, _ in document["filtered_resps"]]


@given(st.lists(st.lists(log_probability, min_size=3, max_size=3), min_size=1, max_size=6))
def test_the_mean_of_one_document_is_the_document(rows: list[list[float]]) -> None:
    for calibrated in batch_calibrate([document(row) for row in rows]):
        assert sum(probabilities(calibrated)) == pytest.approx(1)
    single = [batch_calibrate([document(row)])[0] for row in rows]
    assert all(probability == pytest.approx(1 / 3) for each in single for probability in probabilities(each))


@given(st.permutations([-0.5, -1.5, -3.0]))
def test_uniform_mean_answers_make_calibration_the_identity(row: list[float]) -> None:
    """The documents' answers are those of one document in every cyclic order, so their mean is uniform."""
    turned = [row[i:] + row[:i] for i in range(3)]
    total = sum(map(math.exp, row))
    for before, after in zip(turned, batch_calibrate(list(map(document, turned))), strict=True):
        assert probabilities(after) == pytest.approx([math.exp(value) / total for value in before])
        assert [flag for _, flag in after["filtered_resps"]] == [value == max(before) for value in before]


def test_documents_with_other_numbers_of_choices_are_calibrated_apart() -> None:
    alone = batch_calibrate([document([-1.0, -2.0]), document([-3.0, -1.0])])
    mixed = batch_calibrate([document([-1.0, -2.0]), document([-1.0, -2.0, -0.1]), document([-3.0, -1.0])])
    assert [mixed[0], mixed[2]] == alone


def test_a_document_without_numbers_leaves_the_others_as_they_are() -> None:
    broken = document([math.nan, -2.0])
    alone = batch_calibrate([document([-1.0, -2.0]), document([-3.0, -1.0])])
    assert batch_calibrate([document([-1.0, -2.0]), broken, document([-3.0, -1.0])]) == [alone[0], broken, alone[1]]


# Registry and runner


def test_every_registered_baseline_exists() -> None:
    for name, baseline in REGISTERED.items():
        assert name in import_module(f"tarot.evaluation.baselines.{baseline.module}").BASELINES


def test_unknown_and_repeated_baselines_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_baselines(REGISTERED)
    with pytest.raises(UnknownName, match="'lora'"):
        check_baselines(["lorra"])
    with pytest.raises(TarotError, match="once"):
        check_baselines(["caa", "caa"])
    monkeypatch.setattr("tarot.errors.find_spec", lambda name: None)
    with pytest.raises(TarotError, match=r"-e '\.\[peft\]'"):
        check_baselines(["lora"])


def test_an_unknown_baseline_is_refused_before_a_model_is_loaded(setting: Setting, folder: Path) -> None:
    with pytest.raises(UnknownName, match="'lora'"):
        check_compare(tuned(setting.loaded, folder), baselines=["lorra"], include_path=folder)
    with pytest.raises(UnknownName, match="'lora'"):
        CellRequest("bytes", "own_choice", include_path=str(folder), baselines=("lorra",)).check()


@pytest.mark.parametrize(
    ("name", "task", "changes", "keyword"),
    [
        ("batch-calibration", "own_generate", {}, "choose"),
        ("caa", "own_generate", {}, "wrong answers"),
        ("iti", "own_choice", {"num_samples": 1}, "2 labelled"),
        ("best-shots", "own_choice", {"num_samples": 1}, "2 labelled"),
        ("lora", "own_choice", {"objective": "accuracy"}, "gradient"),
        ("eigenpruning", "own_choice", {"objective": "fluency", "search": ""}, "labelled answers"),
    ],
)
def test_what_a_baseline_cannot_do_is_known_before_a_model_is_loaded(
    folder: Path, name: str, task: str, changes: dict[str, Any], keyword: str
) -> None:
    config = TaRotConfig(task, **({"search": "random"} | changes))
    loaded_task = load_task(task, folder)
    with pytest.raises(TarotError, match=keyword):
        check_requirements([name], loaded_task, config)
    check_requirements(["caa", "iti", "best-shots"], load_task("own_choice", folder), TaRotConfig("own_choice"))


def test_prompts_of_a_task_without_shots_get_none(folder: Path) -> None:
    task = load_task("own_choice", folder)
    task.set_config("num_fewshot", 0)
    for name, baseline in REGISTERED.items():
        if not baseline.changes_model:
            with pytest.raises(TarotError, match="num_fewshot"):
                check_requirements([name], task, TaRotConfig("own_choice"))


def test_compare_asks_before_it_measures(setting: Setting, folder: Path) -> None:
    adapter = tuned(setting.loaded, folder)
    few = replace(adapter, provenance={**adapter.provenance, "num_samples": 1})
    arms: list[str] = []
    with pytest.raises(TarotError, match="2 labelled"):
        compare(
            setting.loaded.model,
            setting.loaded.tokenizer,
            few,
            include_path=folder,
            baselines=["iti"],
            on_arm=lambda name, *_: arms.append(name),
        )
    with pytest.raises(TarotError, match="2 labelled"):
        check_compare(few, baselines=["iti"], include_path=folder)
    request = CellRequest("bytes", "own_choice", samples=1, include_path=str(folder), baselines=("iti",))
    with pytest.raises(TarotError, match="2 labelled"):
        CellRunner(folder, ModelCache()).check(request)
    with pytest.raises(TarotError, match="2 labelled"):
        CellRunner(folder, ModelCache()).compare(request, setting.loaded)
    assert not arms
    check_compare(adapter, baselines=[*REGISTERED], include_path=folder)
    CellRunner(folder, ModelCache()).check(replace(request, samples=6, baselines=tuple(REGISTERED)))


def test_a_grid_tells_cells_with_other_baselines_apart() -> None:
    request = CellRequest("bytes", "own_choice")
    digests = {request_digest(replace(request, baselines=names)) for names in ((), ("caa",), ("caa", "iti"))}
    assert len(digests) == 3


@pytest.mark.parametrize("name", ["lora", "caa", "nearest-shots"])
def test_costs_are_measured_and_the_model_is_left_as_it_was(setting: Setting, name: str) -> None:
    before = {key: value.clone() for key, value in setting.loaded.model.state_dict().items()}
    answers = run_baseline(name, setting)
    after = setting.loaded.model.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[key], value) for key, value in before.items())
    assert answers.seconds > 0
    assert answers.labels == 6
    trained = name == "lora"
    assert (answers.stored_bytes > 0) >= trained
    assert (answers.preparation_seconds > 0) == (name != "nearest-shots")


def test_baselines_are_arms_of_a_comparison(setting: Setting, folder: Path, tmp_path: Path) -> None:
    loaded = setting.loaded
    names = ["batch-calibration", "ia3"]
    logged: LoggedAnswers = {}
    comparison = compare(
        loaded.model,
        loaded.tokenizer,
        tuned(loaded, folder),
        include_path=folder,
        num_fewshot=2,
        baselines=names,
        logged=logged,
    )
    assert [arm.name for arm in comparison.arms][-2:] == names
    prompts = {name: [document["arguments"][0][0] for document in logged[name]] for name in logged}
    assert list(prompts) == [arm.name for arm in comparison.arms]
    assert prompts["batch-calibration"] == prompts["few-shot"] and prompts["ia3"] == prompts["zero-shot"]
    assert [comparison.arm(name).labels for name in names] == [2, 6]
    assert "--baseline batch-calibration --baseline ia3" in comparison.command
    assert comparison.arm("ia3").stored_bytes > 0
    assert comparison.arm("edited").stored_bytes == 2 * 3 * 4 * 4
    path = tmp_path / "results.json"
    path.write_text(comparisons_to_json([comparison]))
    assert load_comparisons(path) == [comparison]
    rows = cost_rows(comparison)
    assert [row[0] for row in rows] == [arm.name for arm in comparison.arms]
    assert {len(row) for row in rows} == {len(COST_HEADER)}
    assert rows[0][COST_HEADER.index("of base")] == "1.00"
