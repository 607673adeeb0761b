"""Changes of other tasks, strengths, and the folder of their figures."""

import csv
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from adapters import TEXT, byte_adapter, loaded_bytes, model_of_bytes
from checkpoint import byte_model, byte_tokenizer, write_tasks

from tarot.analysis.divergence import Divergence, measure_divergence
from tarot.analysis.side_effects import SideEffects, check_side_effects, measure_side_effects
from tarot.analysis.task_changes import measure_task_changes
from tarot.analysis.trade_off import StrengthPoint, measure_trade_off
from tarot.errors import TarotError
from tarot.evaluation.options import EvaluationOptions
from tarot.evaluation.statistics.gains import Gain
from tarot.evaluation.statistics.means import Mean
from tarot.models.loaded_model import LoadedModel
from tarot.report.side_effect_words import read_costs
from tarot.report.side_effects import write_side_effects


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks"))


def test_the_identity_changes_no_task(folder: Path) -> None:
    adapters = [byte_adapter().scaled(0.0), byte_adapter(3.0)]
    names = ["own_choice", "own_loglikelihood"]
    nothing, row = measure_task_changes(loaded_bytes(), adapters, names, EvaluationOptions(folder))
    assert nothing.keys() == row.keys() == set(names)
    for change in nothing.values():
        gain = change.gain
        assert (gain.value, gain.gained, gain.lost, gain.n, gain.p) == (0, 0, 0, 12, 1)
    for name, change in row.items():
        assert change.edited - change.base == pytest.approx(change.gain.value)
        assert change.base == nothing[name].base == nothing[name].edited


def test_documents_without_a_number_are_counted_and_named(folder: Path, tmp_path: Path) -> None:
    broken = LoadedModel("bytes", byte_model(), byte_tokenizer())
    (token,) = broken.tokenizer.encode("3", add_special_tokens=False)
    broken.model.get_input_embeddings().weight[token] = torch.nan  # the questions are item 1000 to 1011
    (row,) = measure_task_changes(broken, [byte_adapter()], ["own_choice"], EvaluationOptions(folder, limit=6))
    change = row["own_choice"]
    assert change.without_number == (3,) and change.gain.n == 6
    point = StrengthPoint(1.0, change, Divergence(40, 1.0, 1.0, Mean(0.0, 0.0, 0.0)))
    write_side_effects(SideEffects({"one": "1f"}, {"one": "another"}, {"one": row}, {"one": [point]}), tmp_path)
    for name in ("effects.csv", "tradeoff.csv"):
        with (tmp_path / name).open(newline="") as file:
            assert [each["without_number"] for each in csv.DictReader(file)] == ["3"]
    assert "answers without a number, which count as wrong: 1" in (tmp_path / "effects.svg").read_text()
    assert "answers without a number, which count as wrong: 1 of own_choice (rows 3)" in read_costs(tmp_path)[0].tasks


def test_a_trade_off_goes_from_the_base_to_the_adapter(folder: Path) -> None:
    adapter = byte_adapter()
    (first, half, last) = measure_trade_off(loaded_bytes(), adapter, TEXT, (0.0, 0.5, 1.0), EvaluationOptions(folder))
    assert (first.change.gain.value, first.drift.kl.value) == (0, 0)
    assert 0 < half.drift.kl.value < last.drift.kl.value
    assert [last.drift] == measure_divergence(model_of_bytes(), [adapter], TEXT)
    (row,) = measure_task_changes(loaded_bytes(), [adapter], ["own_choice"], EvaluationOptions(folder), num_fewshot=0)
    assert row["own_choice"] == last.change


def test_strengths_are_from_0_to_1(folder: Path) -> None:
    with pytest.raises(TarotError, match="strength"):
        measure_trade_off(loaded_bytes(), byte_adapter(), TEXT, (0.0, 1.5), EvaluationOptions(folder))


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ({"heads": 2}, {}, "model"),
        ({}, {"strengths": [0.5, 2.0]}, "strength"),
        ({}, {"tasks": ["own_chioce"]}, "own_chioce"),
    ],
)
def test_errors_are_raised_before_anything_runs(
    folder: Path, model: dict[str, int], options: dict[str, Any], message: str
) -> None:
    steps: list[object] = []
    arguments: dict[str, Any] = {
        "tasks": ["own_choice"],
        "include_path": folder,
        "on_step": lambda *step: steps.append(step),
    }
    with pytest.raises(TarotError, match=message):
        measure_side_effects(loaded_bytes(**model), {"one": byte_adapter()}, **arguments | options)
    assert not steps


def test_the_folder_has_the_matrix_and_the_trade_off(folder: Path, tmp_path: Path) -> None:
    adapters = {"one": byte_adapter(), "two": byte_adapter(3.0, seed=1)}
    suite = ["own_loglikelihood"]
    strengths = (0.0, 1.0)
    effects = measure_side_effects(
        loaded_bytes(), adapters, suite, strengths=strengths, n_tokens=40, include_path=folder, limit=6
    )
    files = write_side_effects(effects, tmp_path)
    assert [file.name for file in files] == ["effects.csv", "effects.svg", "tradeoff.csv", "tradeoff.svg"]
    with (tmp_path / "effects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["adapter"], row["task"], row["tuned_on"]) for row in rows] == [
        (name, task, str(task == "own_choice")) for name in adapters for task in [*suite, "own_choice"]
    ]
    assert {row["adapter"]: row["fingerprint"] for row in rows} == {
        name: adapter.fingerprint for name, adapter in adapters.items()
    }
    assert isinstance(effects.changes["one"]["own_choice"].gain, Gain)
    with (tmp_path / "tradeoff.csv").open(newline="") as file:
        points = list(csv.DictReader(file))
    assert [(point["adapter"], float(point["strength"])) for point in points] == [
        (name, strength) for name in adapters for strength in strengths
    ]
    assert [each.fingerprint for each in read_costs(tmp_path)] == [each.fingerprint for each in adapters.values()]
    assert all(each.tasks and each.text for each in read_costs(tmp_path))
    assert all(float(point["kl_nats"]) == 0 for point in points if point["strength"] == "0")
    for name in ("effects", "tradeoff"):
        root = ElementTree.fromstring((tmp_path / f"{name}.svg").read_text())
        assert "one" in root.find("{*}desc").text


def test_an_adapter_tuned_for_a_reward_has_a_drift_and_no_gain(folder: Path, tmp_path: Path) -> None:
    adapter = replace(byte_adapter(), provenance={"task": "openings", "objective": "fluency", "budget": 4})
    suite = ["own_choice"]
    effects = measure_side_effects(
        loaded_bytes(), {"one": adapter}, suite, strengths=(0.0, 1.0), n_tokens=40, include_path=folder, limit=4
    )
    assert effects.changes["one"].keys() == {"own_choice"}
    assert [point.change for point in effects.curves["one"]] == [None, None]
    assert effects.curves["one"][1].drift.kl.value > 0
    files = write_side_effects(effects, tmp_path)
    assert [file.name for file in files] == ["effects.csv", "effects.svg", "tradeoff.csv"]
    with (tmp_path / "tradeoff.csv").open(newline="") as file:
        assert [(point["gain"], point["score"]) for point in csv.DictReader(file)] == [("", "")] * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [({"strengths": [2.0]}, "strength"), ({"n_tokens": 0}, "token"), ({"tasks": ["own_chioce"]}, "own_chioce")],
)
def test_checks_need_no_model(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(TarotError, match=message):
        check_side_effects({"one": byte_adapter()}, **{"tasks": ["own_choice"], "include_path": folder, **options})
    check_side_effects({"one": byte_adapter()}, ["own_choice"], include_path=folder)
