"""Arguments of the public functions: a value of a wrong type is refused in one line, before anything is done."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import tarot
from tarot.errors import TarotError
from tarot.evaluation.results.comparison import Comparison
from tarot.models.loaded_model import LoadedModel

ANYTHING: dict[str, object] = {
    "none": None,
    "flag": True,
    "whole": 3,
    "negative": -1,
    "fraction": 0.5,
    "nan": float("nan"),
    "complex": 1j,
    "text": "nosuch",
    "empty": "",
    "bytes": b"x",
    "numbers": [1],
    "names": ["nosuch"],
    "mapping": {"a": 1},
    "tensor": torch.zeros(2),
    "function": print,
    "object": object(),
}
PATH = "none text"
FUNCTION = "none function"
# The kinds of ANYTHING that each argument may be, where more is not known: other checks refuse unknown names.
TUNE = {
    **{"model": "", "tokenizer": "", "config": "", "budget": "none whole", "output_dir": PATH, "include_path": "none"},
    **{"objective": "none", "serve": "none", "score_batch": FUNCTION, "resume": "", "pick": "none"},
    **{"batch_size": "none whole", "callbacks": "empty"},
}
EVALUATE = {
    **{"model": "", "tokenizer": "", "tasks": "", "adapter": "none", "include_path": "none", "answers": PATH},
    **{"num_fewshot": "none whole", "limit": "none whole fraction", "apply_chat_template": "flag"},
    **{"batch_size": "none whole"},
}
COMPARE = {
    **{"model": "", "tokenizer": "", "adapter": "", "num_fewshot": "whole", "limit": "none whole fraction"},
    **{"include_path": "none", "controls": "none", "draws": "whole", "baselines": "", "curves": "none"},
    **{"trade_off": "empty", "base_answers": "none mapping", "logged": "none mapping", "batch_size": "none whole"},
    **{"answers": PATH, "on_arm": "function"},
}
STRENGTH = "whole negative fraction"


def check_refusals(function: Callable[..., object], arguments: dict[str, Any], allowed: dict[str, str]) -> None:
    """Check that each argument is refused for all but the allowed kinds, and that no parameter is left out."""
    assert set(inspect.signature(function).parameters) == set(allowed)
    for name, kinds in allowed.items():
        for kind in ANYTHING.keys() - set(kinds.split()):
            with pytest.raises(TarotError) as caught:
                function(**{**arguments, name: ANYTHING[kind]})
                pytest.fail(f"{name}={ANYTHING[kind]!r} was accepted")
            assert "\n" not in str(caught.value)


@pytest.fixture
def common(loaded: LoadedModel, tasks_folder: Path) -> dict[str, Any]:
    return {"model": loaded.model, "tokenizer": loaded.tokenizer, "include_path": tasks_folder}


def test_tune(common: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = tarot.TaRotConfig("own_choice", num_samples=6, search="random", space="head")
    check_refusals(tarot.tune, {**common, "config": config, "budget": 3}, TUNE)
    assert not list(tmp_path.iterdir())


def test_evaluate(common: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_refusals(tarot.evaluate, {**common, "tasks": "own_choice", "limit": 2}, EVALUATE)
    assert not list(tmp_path.iterdir())


def test_compare(
    common: dict[str, Any], tuned_adapter: tarot.Adapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    check_refusals(tarot.compare, {**common, "adapter": tuned_adapter, "limit": 2}, COMPARE)
    assert not list(tmp_path.iterdir())


def test_load_model(byte_folder: Path, hub_cache: Path) -> None:
    allowed = {"reference": "", "device": "", "dtype": "", "device_map": "none mapping"}
    check_refusals(tarot.load_model, {"reference": byte_folder}, allowed)


def test_an_adapter(loaded: LoadedModel, tuned_adapter: tarot.Adapter, tmp_path: Path, hub_cache: Path) -> None:
    check_refusals(
        tarot.Adapter,
        {"angles": tuned_adapter.angles, "edit": tuned_adapter.edit, "provenance": {}},
        {"angles": "", "edit": "", "provenance": "mapping", "gate": "none"},
    )
    edited = {"model": loaded.model}
    check_refusals(tuned_adapter.apply, edited, {"model": "", "strength": STRENGTH})
    check_refusals(tuned_adapter.scaled, {}, {"strength": STRENGTH})
    before = [weight.clone() for weight in loaded.model.parameters()]
    check_refusals(tuned_adapter.merge, edited, {"model": "", "strength": STRENGTH, "without_gate": "flag"})
    assert all(map(torch.equal, before, loaded.model.parameters()))
    tuned_adapter.save_pretrained(tmp_path / "saved")
    check_refusals(tuned_adapter.save_pretrained, {}, {"folder": "text"})
    check_refusals(
        tarot.Adapter.from_pretrained,
        {"reference": tmp_path / "saved"},
        {"reference": "", "revision": "none text empty"},
    )
    check_refusals(tarot.Adapter.resolve, {}, {"adapter": ""})
    check_refusals(
        tuned_adapter.push_to_hub, {"repo_id": "a/b"}, {"repo_id": "", "private": "", "results": "", "license": ""}
    )


def test_a_comparison(common: dict[str, Any], tuned_adapter: tarot.Adapter) -> None:
    comparison: Comparison = tarot.compare(adapter=tuned_adapter, **common, limit=2)
    check_refusals(comparison.score, {}, {"metric": "", "arm": ""})
    for measure in (comparison.gain, comparison.changed):
        check_refusals(measure, {}, {"metric": "", "arm": "", "over": "none"})
    check_refusals(comparison.arm, {}, {"name": ""})


def test_what_works_elsewhere_is_accepted(
    common: dict[str, Any], byte_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tarot.load_model(byte_folder).reference == str(byte_folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    config = tarot.TaRotConfig("own_choice", num_samples=6, search="random", space="head")
    tarot.tune(**common, config=config, budget=1, batch_size="auto", output_dir="~/edit")
    assert tarot.Adapter.from_pretrained(tmp_path / "edit").provenance["trials"] == 1
    assert tarot.evaluate(**common, tasks="own_choice", limit=1, batch_size="auto")["config"]["batch_size"] == "auto"


def test_a_loaded_model_is_to_be_unpacked(loaded: LoadedModel, tuned_adapter: tarot.Adapter) -> None:
    with pytest.raises(TarotError, match="unpack"):
        tuned_adapter.apply(loaded)  # type: ignore[arg-type]  # the wrong type is what is tested
