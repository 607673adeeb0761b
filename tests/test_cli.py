"""The command, as a user types it: what it prints, what it leaves, how it fails."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkpoint import save_checkpoint, write_tasks
from transformers import AutoModelForCausalLM, AutoTokenizer

from tarot.adapter import Adapter
from tarot.cells import load
from tarot.cli import app, main


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, task files and a tuned adapter."""
    home = tmp_path_factory.mktemp("home")
    save_checkpoint(home / "model")
    write_tasks(home / "tasks")
    run_in(home, *TUNE, "--output", "adapter")
    return home


MODEL = ("--model", "model", "--device", "cpu")
TASK = ("--include-path", "tasks", "--task", "stranger_choice")
SMALL = ("--samples", "5", "--budget", "4", "--space", "head", "--search", "random")
TUNE = ("tune", *MODEL, *TASK, *SMALL, "--num-fewshot", "2")


def run_in(folder: Path, *arguments: str) -> int:
    """Exit code of the command in a folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["tarot", *arguments])
        try:
            main()
        except SystemExit as stop:
            return int(stop.code or 0)
        return 0


def test_help_is_quick_and_names_every_command() -> None:
    """No command's help may import torch: it is asked for more often than anything else."""
    code = "import sys; from tarot.cli import main; sys.argv = ['tarot', '--help']; main(); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"'torch'", "'transformers'", "'lm_eval'", "'botorch'"} & set(done.stdout.replace(",", "").split())
    assert all(name in done.stdout for name in ("models", "tune", "evaluate", "compare", "merge", "lm-eval"))
    assert {command.name or command.callback.__name__ for command in app.registered_commands} >= {"tune", "evaluate"}


def test_models_lists_what_is_here(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_in(home, "models") == 0
    assert "reference" in capsys.readouterr().out


def test_tune_says_what_it_found(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_in(home, *TUNE, "--output", "said") == 0
    said = capsys.readouterr()
    assert "log_probability on 5 samples: identity" in said.out and "of 4)" in said.out
    assert "4/4" in said.err
    adapter = Adapter.load(home / "said")
    assert adapter.fingerprint in said.out
    assert adapter.fingerprint == Adapter.load(home / "adapter").fingerprint


def test_evaluate_writes_results_and_predictions(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate = ("evaluate", *MODEL, "--tasks", "stranger_choice", "--include-path", "tasks", "--num-fewshot", "2")
    assert run_in(home, *evaluate, "--adapter", "adapter", "--output", "edited.json") == 0
    assert "stranger_choice" in capsys.readouterr().out
    results = json.loads((home / "edited.json").read_text())
    assert results["config"]["adapter"] == Adapter.load(home / "adapter").fingerprint
    assert results["results"]["stranger_choice"].keys() >= {"acc,none"}
    assert len(results["samples"]["stranger_choice"]) == 12
    assert run_in(home, *evaluate, "--limit", "3", "--output", "base.json") == 0
    base = json.loads((home / "base.json").read_text())
    assert base["config"]["adapter"] == "base" and len(base["samples"]["stranger_choice"]) == 3


def test_compare_and_report(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare = ("compare", *MODEL, "--adapter", "adapter", "--include-path", "tasks", "--shots", "3")
    assert run_in(home, *compare, "--output", "cells.json") == 0
    said = capsys.readouterr().out
    assert "stranger_choice, 12 documents, weighted F1 of the greedy answer, seed 0" in " ".join(said.split())
    assert all(word in said for word in ("zero-shot", "few-shot (base)", "edited", "again: tarot tune --model model"))
    (cell,) = load(home / "cells.json")
    labels = {arm.name: arm.labels for arm in cell.arms}
    assert (labels["zero-shot"], labels["few-shot"], labels["edited"]) == (0, 2, 7)  # prompts as it was tuned on
    assert len(cell.gold) == 12 and len(cell.curves["random"]) == 4
    assert run_in(home, "report", "cells.json", "--output", "page") == 0
    assert "stranger_choice" in (home / "page" / "index.html").read_text()
    assert run_in(home, "report", "nothing.json", "--output", "page") == 2


def test_merge_is_an_ordinary_checkpoint(home: Path) -> None:
    assert run_in(home, "merge", "--model", "model", "--adapter", "adapter", "--output", "merged") == 0
    adapter = Adapter.load(home / "adapter")
    plain = AutoModelForCausalLM.from_pretrained(home / "model").eval()
    merged = AutoModelForCausalLM.from_pretrained(home / "merged").eval()
    tokens = torch.arange(5, 25)[None]
    with adapter.applied(plain):
        expected = plain(tokens).logits
    torch.testing.assert_close(merged(tokens).logits, expected, atol=1e-4, rtol=1e-4)
    tokenizer = AutoTokenizer.from_pretrained(home / "merged")
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(home / "model").chat_template
    assert run_in(home, "merge", "--model", "model", "--adapter", "adapter", "--output", "merged") == 2


def test_lm_eval_knows_the_model_and_the_tasks(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (
        "--model",
        "tarot",
        "--model_args",
        "pretrained=model,adapter=adapter",
        "--tasks",
        "stranger_choice,synth_color",
    )
    assert run_in(home, "lm-eval", *arguments, "--include_path", "tasks", "--limit", "2", "--output_path", "out") == 0
    assert "stranger_choice" in capsys.readouterr().out
    (written,) = (home / "out").rglob("results_*.json")
    results = json.loads(written.read_text())
    assert results["config"]["adapter"] == Adapter.load(home / "adapter").fingerprint
    assert results["results"].keys() >= {"stranger_choice", "synth_color"}


BAD = [
    (("tune", "--model", "modle", *TASK, "--output", "x"), "got 'modle', which is"),
    (("tune", "--model", "wheel:smollm", *TASK, "--output", "x"), "did you mean 'wheel:smollm2-135m'?"),
    ((*TUNE, "--output", "adapter"), "expected an empty output folder"),
    ((*TUNE, "--output", "x", "--samples", "40"), "expected at least 40 samples and 2 shots"),
    ((*TUNE, "--output", "x", "--samples", "many"), "Invalid value for '--samples'"),
    ((*TUNE, "--output", "x", "--num-fewshot", "few"), "expected a number of shots, got 'few'"),
    ((*TUNE, "--output", "x", "--bound", "-1"), "expected a positive bound in radians, got -1.0"),
    ((*TUNE, "--output", "x", "--batch-size", "big"), "expected a batch size from 1, or 'auto', got 'big'"),
    ((*TUNE, "--output", "x", "--device", "tpu"), "expected a device"),
    ((*TUNE, "--output", "x", "--dtype", "int8"), "expected a known dtype, got 'int8'"),
    (("tune", *MODEL, "--task", "x"), "Missing option '--output'"),
    (("evaluate", *MODEL, "--tasks", " , "), "expected names of tasks separated by commas, got ' , '"),
    (("evaluate", *MODEL, "--tasks", "synth_color", "--adapter", "model"), "expected an adapter folder"),
    (("merge", "--model", "model", "--adapter", "none", "--output", "x"), "expected an adapter folder"),
    (("evalute",), "No such command 'evalute'."),
]


@pytest.mark.parametrize(
    ("arguments", "message"), BAD, ids=lambda value: " ".join(value[-2:]) if isinstance(value, tuple) else ""
)
def test_bad_input_is_one_line_and_exit_code_2(
    home: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    before = sorted(path.name for path in home.iterdir())
    assert run_in(home, *arguments) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(said) == 1 and message in said[0]
    assert sorted(path.name for path in home.iterdir()) == before


REWARDED = ("--task", "openings", "--objective", "toxicity:low", "--fluency-floor", "50%", "--output", "rewarded")


def test_a_reward_from_tuning_to_comparison(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_in(home, "tune", *MODEL, *SMALL, *REWARDED) == 0
    assert "toxicity:low on 5 samples: identity" in capsys.readouterr().out
    judged = ("--adapter", "rewarded", "--limit", "4", "--reward", "fluency")
    assert run_in(home, "compare", *MODEL, *judged, "--output", "judged.json") == 0
    said = capsys.readouterr().out
    assert "openings, 4 documents, fluency, seed 0" in said
    assert all(word in said for word in ("base", "edited", "distinct-2", "repetition", "(identity)"))
    assert len(json.loads((home / "judged.json").read_text())["rewarded"][0]["base"]["texts"]) == 4
    assert run_in(home, "evaluate", *MODEL, "--tasks", "openings", "--limit", "2", "--output", "texts.json") == 0
    said = capsys.readouterr().out
    assert all(word in said for word in ("words", "reward", "fluency", "distinct_2"))
    assert "reward" in json.loads((home / "texts.json").read_text())["samples"]["openings"][0]
    assert run_in(home, "evaluate", *MODEL, "--tasks", "openings", "--reward", "sentiment:no") == 2
    assert "expected a known reward, got 'sentiment:no'" in capsys.readouterr().err
