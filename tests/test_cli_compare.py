"""`tarot compare` and `tarot report`: comparisons on the same documents, and their page."""

import csv
import json
import math
import shlex
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
from cli_suite import INCLUDE, MODEL, SMALL, TUNE, run_in

from tarot.edit.adapter import Adapter
from tarot.errors import TarotError
from tarot.evaluation.compare import compare as compare_answers
from tarot.evaluation.cost.speed import BUSY_NOTE
from tarot.evaluation.results.comparison import Comparison
from tarot.evaluation.results.results_file import load_comparisons

pytest_plugins = ["cli_suite"]


def test_comparisons_are_kept_if_the_next_one_fails(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*arguments: object, **options: object) -> Comparison:
        if measured:
            raise KeyboardInterrupt
        measured.append(compare_answers(*arguments, **options))
        return measured[0]

    measured: list[Comparison] = []
    monkeypatch.setattr("tarot.evaluation.compare.compare", failing)
    assert run_in(home, *TUNE, "--seed", "1", "--output-path", "second") == 0
    compare = ("compare", *MODEL, "--adapter", "adapter", *INCLUDE, "--limit", "2", "--num-fewshot", "0")
    assert run_in(home, *compare, "--adapter", "second", "--output-path", "first.json") == 130
    assert load_comparisons(home / "first.json") == measured
    measured.clear()
    control = ("--adapter", "second", "--control", "adapter", "--output-path", "refused.json")
    assert run_in(home, *compare, *control) == 2
    assert "control" in capsys.readouterr().err
    assert not measured and not (home / "refused.json").exists()


def test_answers_are_kept_until_the_comparison_is_written(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> NoReturn:
        raise TarotError("planted")

    compare = ("compare", *MODEL, "--adapter", "adapter", *INCLUDE, "--limit", "2", "--output-path", "again.json")
    with monkeypatch.context() as patch:
        patch.setattr("tarot.evaluation.arms.calibrate", failing)
        assert run_in(home, *compare) == 2
    answers = home / ".again.json.answers.jsonl"
    assert str(answers.name) in capsys.readouterr().err and answers.exists()
    assert run_in(home, *compare) == 0
    assert not answers.exists() and len(load_comparisons(home / "again.json")) == 1


def test_every_arm_is_logged_for_inspect_and_every_answer_stands_in_the_csv(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = pytest.importorskip("inspect_ai.log", reason="needs the extra inspect")
    compare = ("compare", *MODEL, "--adapter", "adapter", *INCLUDE, "--limit", "2", "--draws", "2", "--log-format")
    assert run_in(home, *compare, "inspect") == 2
    assert "--output-path" in capsys.readouterr().err
    assert run_in(home, *compare, "inspect", "--output-path", "logged.json") == 0
    assert "inspect view --log-dir logged.logs" in capsys.readouterr().out
    (comparison,) = load_comparisons(home / "logged.json")
    logs = {
        each.eval.task_args["arm"]: each
        for each in map(log.read_eval_log, log.list_eval_logs(str(home / "logged.logs")))
    }
    assert logs.keys() == {arm.name for arm in comparison.arms}
    for arm in comparison.arms:
        for row, sample in enumerate(logs[arm.name].samples):
            numbers = sample.metadata["log_probabilities"]
            assert math.exp(numbers[comparison.choices[row][comparison.gold[row]]]) == pytest.approx(
                arm.gold_probability[row]
            )
            assert max(numbers, key=numbers.__getitem__) == comparison.choices[row][arm.predicted[row]]
    shown = {name: logs[name].samples[0].input for name in ("zero-shot", "edited")}
    assert shown["edited"].endswith(comparison.texts[0]) or comparison.texts[0] in shown["edited"]
    with (home / "logged.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 2 * len(comparison.arms)


def test_files_beside_the_results_are_checked_before_a_model_is_loaded(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "mine.csv").write_text("mine")
    (home / "taken.csv").mkdir()
    (home / "taken.logs").write_text("mine")
    model = ("--model", "no/such")
    compare = ("compare", *model, "--adapter", "adapter", *INCLUDE)
    commands = [compare, ("evaluate", *model, "--tasks", "own_choice", *INCLUDE)]
    commands += [("bench", *model, "--tasks", "own_choice", *INCLUDE)]
    for command in commands:
        for name in ("mine", "taken"):
            assert run_in(home, *command, "--output-path", f"{name}.json") == 2
            assert f"{name}.csv" in capsys.readouterr().err
    assert run_in(home, *compare, "--log-format", "inspect", "--output-path", "taken.json") == 2
    (home / "taken.csv").rmdir()
    capsys.readouterr()
    assert run_in(home, *compare, "--log-format", "inspect", "--output-path", "taken.json") == 2
    assert "taken.logs" in capsys.readouterr().err and (home / "mine.csv").read_text() == "mine"


def test_compare_and_report(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare = ("compare", *MODEL, "--adapter", "adapter", *INCLUDE, "--num-fewshot", "3", "--draws", "2")
    assert run_in(home, *compare, "--output-path", "cells.json") == 0
    printed = capsys.readouterr().out
    assert "own_choice, 12 documents, weighted F1 of the greedy answer, seed 0" in " ".join(printed.split())
    assert all(
        word in printed
        for word in ("zero-shot", "few-shot (base)", "edited", "repeat it with: tarot tune --model model")
    )
    (comparison,) = load_comparisons(home / "cells.json")
    labels = {arm.name: arm.labels for arm in comparison.arms}
    assert (labels["zero-shot"], labels["few-shot"], labels["edited"]) == (0, 2, 7)
    assert len(comparison.gold) == 12 and len(comparison.curves["random"]) == 4
    assert len(comparison.draws) == 2 and "--draws 2" in comparison.command
    assert run_in(home, "report", "cells.json", "--output-path", "page") == 0
    assert "own_choice" in (home / "page" / "index.html").read_text()
    (home / "site").mkdir()
    (home / "site" / "index.html").write_text(mine := "<title>my site</title>")
    assert run_in(home, "report", "cells.json", "--output-path", "site") == 2
    assert (home / "site" / "index.html").read_text() == mine
    assert run_in(home, "report", "nothing.json", "--output-path", "page") == 2


def test_seconds_of_a_busy_machine_are_called_so(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([(1.0,), (2.0,)])
    monkeypatch.setattr("tarot.evaluation.compare.time_reference_workload", lambda: next(times))
    compare = ("compare", *MODEL, "--adapter", "adapter", *INCLUDE, "--limit", "2", "--baseline", "all-shots")
    assert run_in(home, *compare) == 0
    assert BUSY_NOTE in " ".join(capsys.readouterr().out.split())


def test_the_printed_command_repeats_a_comparison_with_its_controls(home: Path, tmp_path: Path) -> None:
    beside = ("--space", "head", "--search", "bo")
    assert run_in(home, *TUNE[:-2], *beside, "--num-fewshot", "2", "--output-path", "bo") == 0
    compare = ("compare", *MODEL, "--adapter", "adapter", *INCLUDE, "--limit", "0.5")  # 6 of 12 documents
    assert run_in(home, *compare, "--control", "bo", "--output-path", "first.json") == 0
    assert run_in(home, *compare, "--control", "bo", "--control", "bo", "--control", "adapter") == 0
    (first,) = load_comparisons(home / "first.json")
    for name in ("model", "tasks"):
        (tmp_path / name).symlink_to(home / name)
    for line in first.command.split(" && "):
        output = ("--output-path", "again.json") if "compare" in line else ()
        assert run_in(tmp_path, *shlex.split(line)[1:], "--device", "cpu", *output) == 0
    (again,) = load_comparisons(tmp_path / "again.json")
    assert [arm.name for arm in again.arms][:4] == ["zero-shot", "few-shot", "edited", "bo search"]
    untimed = {"seconds": 0.0, "preparation_seconds": 0.0}
    assert [replace(arm, **untimed) for arm in first.arms] == [replace(arm, **untimed) for arm in again.arms]
    assert first.curves == again.curves and first.curves.keys() == {"random", "bo"}


def test_an_adapter_does_not_choose_a_classifier(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapter = Adapter.from_pretrained(home / "adapter")
    objective = {"objective": "classifier:org/name#x", "search": "bo"}
    Adapter(adapter.angles, adapter.edit, {**adapter.provenance, **objective}).save_pretrained(home / "classified")
    compare = ("compare", "--model", "model", *INCLUDE, "--adapter", "classified", "--limit", "2")
    assert run_in(home, *compare) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "which loads a model" in error and "--reward 'classifier:org/name#x'" in error


REWARD = ("--tasks", "openings", "--objective", "toxicity:low", "--fluency-floor", "50%", "--layers", "0.5")


def test_a_reward_is_tuned_compared_and_reported(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_in(home, "tune", *MODEL, *SMALL, *REWARD, "--output-path", "rewarded") == 0
    assert "toxicity:low on 5 samples: identity" in capsys.readouterr().out
    scored_texts = ("--adapter", "rewarded", "--limit", "4", "--reward", "fluency")
    assert run_in(home, "compare", *MODEL, *scored_texts, "--output-path", "scored.json") == 0
    printed = capsys.readouterr().out
    assert "openings, 4 documents, fluency, seed 0" in printed
    assert all(word in printed for word in ("base", "edited", "distinct-2", "repetition", "(identity)"))
    assert len(json.loads((home / "scored.json").read_text())["rewards"][0]["base"]["texts"]) == 4
    drawn = ("--adapter", "rewarded", "--limit", "2", "--reward", "fluency")
    assert run_in(home, "analysis", *MODEL, *drawn, "--output-path", "layers") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "attention.svg, layers.csv, layers.svg in layers a reward has no right answers" in printed
    assert run_in(home, "report", "scored.json", "--output-path", "texts") == 0
    assert "openings fluency seed 0" in (home / "texts" / "index.html").read_text()
    assert run_in(home, "evaluate", *MODEL, "--tasks", "openings", "--limit", "2", "--output-path", "texts.json") == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("words", "reward", "fluency", "distinct_2"))
    assert "reward" in json.loads((home / "texts.json").read_text())["samples"]["openings"][0]
    assert run_in(home, "evaluate", *MODEL, "--tasks", "openings", "--reward", "sentiment:no") == 2
    assert "sentiment:no" in capsys.readouterr().err
