"""`tarot tune` and `tarot models`: what they print and leave."""

import shutil
from contextlib import suppress
from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from cli_suite import INCLUDE, MODEL, TASK, TUNE, run_in

from tarot.cli.tune import tune
from tarot.edit.adapter import Adapter
from tarot.errors import TarotError
from tarot.models.formats.listing import ModelInfo
from tarot.search.config import TaRotConfig
from tarot.search.trials import Trial, TrialLog

pytest_plugins = ["cli_suite"]


def test_tune_has_the_defaults_of_the_configuration() -> None:
    defaults = {name: parameter.default for name, parameter in signature(tune).parameters.items()}
    shared = {field.name: field.default for field in fields(TaRotConfig)} | {"search": None, "space": None}
    shared |= {"objective": None}  # or --reward
    shared |= {"retain": None}  # a list, where the configuration has a tuple
    shared.pop("task")
    assert defaults.keys() >= shared.keys()
    assert {name: str(defaults[name]) for name in shared} == {name: str(value) for name, value in shared.items()}


def test_models_prints_a_row_for_each_model(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    infos = [ModelInfo("wheel:a", "wheel-a", 1234, 30, 9, 64), ModelInfo("org/b", "hub cache", None, None, None, None)]
    monkeypatch.setattr("tarot.models.formats.listing.available", lambda: infos)
    assert run_in(home, "models") == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert any({"wheel:a", "1,234", "30", "9", "64", "wheel-a"} <= set(row) for row in rows)
    assert any({"org/b", "?", "hub", "cache"} <= set(row) for row in rows)


def test_tune_prints_scores_and_writes_the_adapter(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_in(home, *TUNE, "--output-path", "again") == 0
    printed = capsys.readouterr()
    assert "log_probability on 5 samples: identity" in printed.out and "of 0-3)" in printed.out
    assert "budget spent after 4 of 4 evaluations" in printed.err
    adapter = Adapter.from_pretrained(home / "again")
    assert adapter.fingerprint in printed.out
    assert adapter.fingerprint == Adapter.from_pretrained(home / "adapter").fingerprint


def test_resuming_a_finished_search_shows_it_finished(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_in(home, *TUNE, "--output", "finished") == 0
    capsys.readouterr()
    assert run_in(home, *TUNE, "--output", "finished", "--resume") == 0
    printed = capsys.readouterr().err
    assert "resuming after 4 trials" in printed and "after 4 of 4 evaluations" in printed


def test_ctrl_c_ends_with_its_exit_code_and_says_how_to_go_on(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    append = TrialLog.append

    def append_and_stop(log: TrialLog, trial: Trial) -> None:
        append(log, trial)
        if len(log.trials) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrialLog, "append", append_and_stop)
        assert run_in(home, *TUNE, "--output-path", "stopped") == 130
    assert "--resume continues" in " ".join(capsys.readouterr().err.split())
    assert Adapter.from_pretrained(home / "stopped").provenance["interrupted"]
    assert run_in(home, *TUNE, "--output-path", "stopped", "--resume") == 0
    finished = Adapter.from_pretrained(home / "stopped")
    assert finished.fingerprint == Adapter.from_pretrained(home / "adapter").fingerprint


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError("broken"), TarotError("broken")], ids=repr)
def test_a_search_without_a_trial_leaves_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException] | BaseException
) -> None:
    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(TrialLog, "append", fail)
        with suppress(RuntimeError):
            run_in(home, *TUNE, "--output-path", "new/place")
    assert not (home / "new").exists()
    assert run_in(home, *TUNE, "--output-path", "new/place") == 0
    shutil.rmtree(home / "new")


@pytest.mark.parametrize("option", ["--objective", "--reward"])
def test_a_failing_function_of_the_user_leaves_nothing(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    (home / "failing.py").write_text("def fail(first, second):\n    raise KeyError('the cause')\n")
    monkeypatch.syspath_prepend(home)
    task = ("--tasks", "own_generate", *INCLUDE, "--num-samples", "2", "--search", "random", "--budget", "2")
    for name, keyword in (("failing:fail", "the cause"), ("failing:nosuch", "nosuch"), ("nosuch:fail", "nosuch")):
        assert run_in(home, "tune", *MODEL, *task, option, name, "--output-path", "failed") == 2
        assert keyword in capsys.readouterr().err and not (home / "failed").exists()


def test_the_older_names_of_options_tune_the_same_adapter(home: Path) -> None:
    """Scripts that were written for them keep working."""
    older = ("tune", *MODEL, "--include-path", "tasks", "--task", "own_choice", "--samples", "5", "--batch", "1")
    search = ("--budget", "4", "--space", "head", "--search", "random", "--num_fewshot", "2")
    assert run_in(home, *older, *search, "--output", "older") == 0
    adapters = [Adapter.from_pretrained(home / name).fingerprint for name in ("older", "adapter")]
    assert adapters[0] == adapters[1]


def test_what_was_picked_is_printed_beside_the_front(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    search = ("tune", *MODEL, *TASK, "--num-samples", "4", "--budget", "9", "--max-kl", "0.5")

    def tuned(pick: str) -> tuple[Adapter, str]:
        resume = ["--resume"] * (home / "front").exists()
        assert run_in(home, *search, "--output-path", "front", *resume, "--front", "--pick", pick) == 0
        return Adapter.from_pretrained(home / "front"), capsys.readouterr().out

    adapter, printed = tuned("2")
    retention: Any = adapter.provenance["retention"]
    kl = f"{retention['kl']:.4f}"
    assert f"{kl} nats a token, of trial 2, which was picked" in printed and "allowed" not in printed
    (row,) = [line.split() for line in printed.splitlines() if line.startswith("2 ")]
    assert row[2] == kl and "KL (estimate)" in printed
    adapter, printed = tuned("0.000001")
    assert not adapter.angles.any() and "within 1e-06 nats a token scores higher" in printed
    assert "at most 1e-06 picked" in printed
    assert "trial 0 was picked: the adapter changes nothing" in tuned("0")[1]
