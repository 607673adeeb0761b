"""`tarot evaluate` and `tarot lm-eval`: results and predictions."""

import json
from argparse import Namespace
from functools import partialmethod
from pathlib import Path
from typing import NoReturn

import pytest
from cli_suite import INCLUDE, MODEL, run_in
from lm_eval._cli import HarnessCLI
from lm_eval.tasks.manager import TaskManager

from tarot.edit.adapter import Adapter
from tarot.errors import TarotError
from tarot.evaluation.evaluate import evaluate as evaluate_model
from tarot.models.load import load_model

pytest_plugins = ["cli_suite"]


def test_evaluate_writes_results_and_predictions(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate = ("evaluate", *MODEL, "--tasks", "own_choice", *INCLUDE, "--num-fewshot", "2")
    assert run_in(home, *evaluate, "--adapter", "adapter", "--output-path", "edited.json") == 0
    printed = capsys.readouterr().out.split()
    assert "own_choice" in printed
    results = json.loads((home / "edited.json").read_text())
    error = results["results"]["own_choice"]["acc_stderr,none"]
    assert f"{error:.2g}" in printed and f"{error:.4f}" not in printed  # more digits than it has
    assert results["config"]["adapter"] == Adapter.from_pretrained(home / "adapter").fingerprint
    assert results["results"]["own_choice"].keys() >= {"acc,none"}
    assert len(results["samples"]["own_choice"]) == 12
    assert run_in(home, *evaluate, "--limit", "3", "--output-path", "base.json") == 0
    base = json.loads((home / "base.json").read_text())
    capsys.readouterr()
    assert base["config"]["adapter"] == "base" and len(base["samples"]["own_choice"]) == 3


def test_evaluate_names_the_shots_that_an_adapter_was_tuned_on(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate = ("evaluate", *MODEL, "--tasks", "own_choice", *INCLUDE, "--limit", "2")
    for shots, is_named in (("0", True), ("2", False)):
        assert run_in(home, *evaluate, "--adapter", "adapter", "--num-fewshot", shots) == 0
        assert ("tuned on prompts of 2 shots; --num-fewshot 2" in capsys.readouterr().out) == is_named


def test_results_are_kept_if_a_reward_fails(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> NoReturn:
        raise TarotError("a word list", "none")

    monkeypatch.setattr("tarot.evaluation.reward_metrics.add_rewards", failing)
    evaluate = ("evaluate", *MODEL, "--tasks", "own_choice", *INCLUDE, "--limit", "2")
    assert run_in(home, *evaluate, "--output-path", "unscored.json") == 2
    capsys.readouterr()
    assert len(json.loads((home / "unscored.json").read_text())["samples"]["own_choice"]) == 2
    assert (home / ".unscored.json.answers.jsonl").exists()  # the same command generates nothing again


def test_strength_0_is_the_base_model(home: Path) -> None:
    evaluate = ("evaluate", *MODEL, "--tasks", "own_choice", *INCLUDE, "--limit", "4")
    assert run_in(home, *evaluate, "--adapter", "adapter", "--strength", "0", "--output-path", "zero.json") == 0
    assert run_in(home, *evaluate, "--output-path", "none.json") == 0
    zero, base = (json.loads((home / name).read_text())["results"] for name in ("zero.json", "none.json"))
    assert zero["own_choice"]["acc,none"] == base["own_choice"]["acc,none"]


def test_strength_evaluates_the_scaled_adapter(home: Path) -> None:
    command = ("evaluate", *MODEL, "--tasks", "own_choice", *INCLUDE, "--limit", "4", "--adapter", "adapter")
    assert run_in(home, *command, "--strength", "0.5", "--output-path", "half.json") == 0
    loaded = load_model(home / "model")
    half = Adapter.from_pretrained(home / "adapter").scaled(0.5)
    results = evaluate_model(*loaded, "own_choice", adapter=half, include_path=home / "tasks", limit=4)
    written = json.loads((home / "half.json").read_text())
    assert written["config"]["adapter"] == results["config"]["adapter"] == half.fingerprint
    assert written["results"]["own_choice"]["acc,none"] == results["results"]["own_choice"]["acc,none"]


def test_a_limit_may_be_a_fraction(home: Path) -> None:
    evaluate = ("evaluate", *MODEL, "--tasks", "own_choice,own_loglikelihood", *INCLUDE)
    assert run_in(home, *evaluate, "--limit", "0.25", "--output-path", "quarter.json") == 0
    samples = json.loads((home / "quarter.json").read_text())["samples"]
    assert {name: len(documents) for name, documents in samples.items()} == {"own_choice": 3, "own_loglikelihood": 3}


def test_lm_eval_knows_the_model_and_the_tasks(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # lm-eval takes six seconds to index its own tasks, which this test does not need.
    monkeypatch.setattr(TaskManager, "__init__", partialmethod(TaskManager.__init__, include_defaults=False))
    arguments = (
        "--model",
        "tarot",
        "--model_args",
        "pretrained=model,adapter=adapter",
        "--tasks",
        "own_choice,synth_color",
    )
    assert run_in(home, "lm-eval", *arguments, "--include_path", "tasks", "--limit", "2", "--output_path", "out") == 0
    assert "own_choice" in capsys.readouterr().out
    (written,) = (home / "out").rglob("results_*.json")
    results = json.loads(written.read_text())
    assert results["config"]["adapter"] == Adapter.from_pretrained(home / "adapter").fingerprint
    assert results["results"].keys() >= {"own_choice", "synth_color"}
    assert run_in(home, "lm-eval", "--help") == 0
    assert "pretrained=REF[,adapter=DIR]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "device", "folders"),
    [
        ((), "auto", []),
        (("--device=cpu",), "cpu", []),
        (("--device", "cpu", "--include_path", "tasks"), "cpu", ["tasks"]),
        (("--config", "run.yaml"), "cuda:1", ["more_tasks"]),
        (("--config", "run.yaml", "--device", "cpu", "--include_path", "tasks"), "cpu", ["tasks"]),
    ],
)
def test_lm_eval_gets_the_users_device_and_folders(
    home: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], device: str, folders: list[str]
) -> None:
    (home / "run.yaml").write_text("device: cuda:1\ninclude_path: more_tasks\n")
    (home / "more_tasks").mkdir(exist_ok=True)
    executed: list[Namespace] = []
    monkeypatch.setattr(HarnessCLI, "execute", lambda _, args: executed.append(args))
    assert run_in(home, "lm-eval", "--model", "tarot", "--tasks", "synth_color", *arguments) == 0
    assert executed[0].device == device and executed[0].include_path[1:] == folders


def test_a_reward_has_its_name_and_another_than_the_tuned_one_is_named(
    home: Path, capsys: pytest.CaptureFixture[str], reward_adapter: Adapter
) -> None:
    reward_adapter.save_pretrained(home / "fluent")
    texts = ("evaluate", *MODEL, "--tasks", "openings", "--limit", "2", "--adapter", "fluent")
    for reward, is_named in (("fluency", False), ("sentiment:positive", True)):
        assert run_in(home, *texts, "--reward", reward) == 0
        printed = " ".join(capsys.readouterr().out.split())
        assert f"reward {reward}" in printed
        assert ("scored by sentiment:positive; the edit was tuned for fluency" in printed) == is_named
