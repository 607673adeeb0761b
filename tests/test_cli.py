"""The command, as a user types it: what it prints, what it leaves, how it fails."""

import json
import shlex
import subprocess
import sys
from argparse import Namespace
from dataclasses import fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from checkpoint import byte_model, save_checkpoint, write_gguf, write_tasks
from lm_eval._cli import HarnessCLI
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.main import get_command

from tarot.__main__ import main
from tarot.cli.main import app
from tarot.edit.adapter import Adapter
from tarot.errors import TarotError
from tarot.evaluation.results import Arm, Comparison
from tarot.evaluation.results_file import load, to_json
from tarot.models.listing import ModelInfo
from tarot.search.config import TaRotConfig


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, task files and a tuned adapter."""
    home = tmp_path_factory.mktemp("home")
    (home / "cache").mkdir()  # the libraries'; whichever test is first would make it
    save_checkpoint(home / "model")
    write_tasks(home / "tasks")
    run_in(home, *TUNE, "--output", "adapter")
    arms = (Arm("zero-shot", 0, (0,), (0,), (0.5,), 1.0), Arm("edited", 5, (0,), (0,), (0.5,), 1.0))
    of = ("model", "task", 0, 0, 5, 4, "random", "head", "log_probability", "tarot tune", ("a",), (0,), ("A",))
    (home / "bench.json").write_text(to_json([Comparison(*of, arms, 2.0, 0.1, asked="0123")]))
    return home


MODEL = ("--model", "model", "--device", "cpu")
TASK = ("--include-path", "tasks", "--task", "own_choice")
SMALL = ("--samples", "5", "--budget", "4", "--space", "head", "--search", "random")
TUNE = ("tune", *MODEL, *TASK, *SMALL, "--num-fewshot", "2")


def run_in(folder: Path, *arguments: str) -> int:
    """Exit code of the command in a folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setattr(sys, "argv", ["tarot", *arguments])
        try:
            return int(main() or 0)
        except SystemExit as stop:
            return int(stop.code or 0)


def test_help_is_quick_and_names_every_command() -> None:
    """No command's help may import torch: it is asked for more often than anything else."""
    run_help = "from tarot.cli.main import main; sys.argv = ['tarot', '--help']; main()"
    code = f"import sys; {run_help}; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"'torch'", "'transformers'", "'lm_eval'", "'botorch'"} & set(done.stdout.replace(",", "").split())
    assert all(name in done.stdout for name in ("models", "tune", "evaluate", "compare", "merge", "export", "lm-eval"))
    assert {command.name or command.callback.__name__ for command in app.registered_commands} >= {"tune", "evaluate"}


def test_nothing_asked_is_the_help_and_no_error(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_in(home) == 2
    said = capsys.readouterr()
    assert "Commands" in said.out and not said.err
    assert run_in(home, "--version") == 0
    assert capsys.readouterr().out == f"tarot {version('tarot-lm')}\n"


def test_tune_has_the_defaults_of_a_recipe() -> None:
    options = {parameter.name: parameter.default for parameter in get_command(app).commands["tune"].params}  # type: ignore[attr-defined]  # a group
    shared = {
        field.name: field.default for field in fields(TaRotConfig) if field.name in options and field.name != "task"
    }
    assert shared.keys() >= {"layers", "bound", "seed", "samples", "rotation", "num_fewshot", "objective"}
    assert {name: str(options[name]) for name in shared} == {name: str(value) for name, value in shared.items()}


def test_models_lists_what_is_here(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = [ModelInfo("wheel:a", "wheel-a", 1234, 30, 9, 64), ModelInfo("org/b", "hub cache", None, None, None, None)]
    monkeypatch.setattr("tarot.models.listing.available", lambda: known)
    assert run_in(home, "models") == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert any({"wheel:a", "1,234", "30", "9", "64", "wheel-a"} <= set(row) for row in rows)
    assert any({"org/b", "?", "hub", "cache"} <= set(row) for row in rows)


def test_ctrl_c_is_said(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def available() -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr("tarot.models.listing.available", available)
    assert run_in(home, "models") == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_tune_says_what_it_found(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_in(home, *TUNE, "--output", "said") == 0
    said = capsys.readouterr()
    assert "log_probability on 5 samples: identity" in said.out and "of 0-3)" in said.out
    assert "4/4" in said.err
    adapter = Adapter.from_pretrained(home / "said")
    assert adapter.fingerprint in said.out
    assert adapter.fingerprint == Adapter.from_pretrained(home / "adapter").fingerprint


def test_resuming_what_is_finished_shows_it_finished(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_in(home, *TUNE, "--output", "finished") == 0
    capsys.readouterr()
    assert run_in(home, *TUNE, "--output", "finished", "--resume") == 0
    said = capsys.readouterr().err
    assert "resuming after 4 trials" in said and "4/4" in said


def test_evaluate_writes_results_and_predictions(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate = ("evaluate", *MODEL, "--tasks", "own_choice", "--include-path", "tasks", "--num-fewshot", "2")
    assert run_in(home, *evaluate, "--adapter", "adapter", "--output", "edited.json") == 0
    assert "own_choice" in capsys.readouterr().out
    results = json.loads((home / "edited.json").read_text())
    assert results["config"]["adapter"] == Adapter.from_pretrained(home / "adapter").fingerprint
    assert results["results"]["own_choice"].keys() >= {"acc,none"}
    assert len(results["samples"]["own_choice"]) == 12
    assert run_in(home, *evaluate, "--limit", "3", "--output", "base.json") == 0
    base = json.loads((home / "base.json").read_text())
    capsys.readouterr()
    assert base["config"]["adapter"] == "base" and len(base["samples"]["own_choice"]) == 3


def test_evaluate_says_on_how_many_shots_an_edit_was_tuned(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate = ("evaluate", *MODEL, "--tasks", "own_choice", "--include-path", "tasks", "--limit", "2")
    for shots, told in (("0", True), ("2", False)):
        assert run_in(home, *evaluate, "--adapter", "adapter", "--num-fewshot", shots) == 0
        assert ("tuned on prompts of 2 shots: --num-fewshot 2" in capsys.readouterr().out) == told


def test_results_are_kept_whatever_becomes_of_their_rewards(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unjudged(*_: object) -> NoReturn:
        raise TarotError("a word list", "none")

    monkeypatch.setattr("tarot.evaluation.compare_rewards.add_rewards", unjudged)
    evaluate = ("evaluate", *MODEL, "--tasks", "own_choice", "--include-path", "tasks", "--limit", "2")
    assert run_in(home, *evaluate, "--output", "unjudged.json") == 2
    capsys.readouterr()
    assert len(json.loads((home / "unjudged.json").read_text())["samples"]["own_choice"]) == 2


def test_cells_are_kept_whatever_becomes_of_the_next(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*arguments: object, **options: object) -> Comparison:
        if measured:
            raise KeyboardInterrupt
        measured.append(compare(*arguments, **options))  # type: ignore[arg-type]  # whatever the command gives it
        return measured[0]

    measured: list[Comparison] = []
    monkeypatch.setattr("tarot.evaluation.compare.compare", failing)
    assert run_in(home, *TUNE, "--seed", "1", "--output", "second") == 0
    compare = ("compare", *MODEL, "--adapter", "adapter", "--include-path", "tasks", "--limit", "2", "--shots", "0")
    assert run_in(home, *compare, "--adapter", "second", "--output", "first.json") == 130
    assert load(home / "first.json") == measured
    measured.clear()
    control = ("--adapter", "second", "--control", "adapter", "--output", "none.json")  # the second's labels are others
    assert run_in(home, *compare, *control) == 2
    assert "expected a control tuned as the edit was" in capsys.readouterr().err
    assert not measured and not (home / "none.json").exists()


def test_compare_and_report(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare = ("compare", *MODEL, "--adapter", "adapter", "--include-path", "tasks", "--shots", "3", "--draws", "2")
    assert run_in(home, *compare, "--output", "cells.json") == 0
    said = capsys.readouterr().out
    assert "own_choice, 12 documents, weighted F1 of the greedy answer, seed 0" in " ".join(said.split())
    assert all(word in said for word in ("zero-shot", "few-shot (base)", "edited", "again: tarot tune --model model"))
    (comparison,) = load(home / "cells.json")
    labels = {arm.name: arm.labels for arm in comparison.arms}
    assert (labels["zero-shot"], labels["few-shot"], labels["edited"]) == (0, 2, 7)  # prompts as it was tuned on
    assert len(comparison.gold) == 12 and len(comparison.curves["random"]) == 4
    assert len(comparison.draws) == 2 and "--draws 2" in comparison.command
    assert run_in(home, "report", "cells.json", "--output", "page") == 0
    assert "own_choice" in (home / "page" / "index.html").read_text()
    assert run_in(home, "report", "nothing.json", "--output", "page") == 2


def test_the_printed_command_repeats_a_cell_with_its_controls(home: Path, tmp_path: Path) -> None:
    beside = ("--space", "layer", "--search", "bo")
    assert run_in(home, *TUNE[:-2], *beside, "--num-fewshot", "2", "--output", "bo") == 0
    compare = ("compare", *MODEL, "--adapter", "adapter", "--include-path", "tasks", "--limit", "6")
    assert run_in(home, *compare, "--control", "bo", "--output", "first.json") == 0
    assert run_in(home, *compare, "--control", "bo", "--control", "bo", "--control", "adapter") == 0
    (first,) = load(home / "first.json")
    for name in ("model", "tasks"):
        (tmp_path / name).symlink_to(home / name)
    for line in first.command.split(" && "):
        output = ("--output", "again.json") if "compare" in line else ()
        assert run_in(tmp_path, *shlex.split(line)[1:], "--device", "cpu", *output) == 0
    (again,) = load(tmp_path / "again.json")
    assert [arm.name for arm in again.arms][:4] == ["zero-shot", "few-shot", "edited", "bo search"]
    assert [replace(arm, seconds=0) for arm in first.arms] == [replace(arm, seconds=0) for arm in again.arms]
    assert first.curves == again.curves and first.curves.keys() == {"random", "bo"}


def test_analysis_prune_and_effects(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit = (*MODEL, "--adapter", "adapter", "--include-path", "tasks")
    assert run_in(home, "analysis", *edit, "--limit", "4", "--output", "pictures") == 0
    assert "lens.csv, lens.svg, heads.csv" in " ".join(capsys.readouterr().out.split())
    assert run_in(home, "prune", *edit, "--keep", "0.5", "--output", "pruned") == 0
    smaller = Adapter.from_pretrained(home / "pruned")
    heads = smaller.provenance["pruned"]["heads"]
    said = capsys.readouterr().out
    assert f"{heads} of 12 heads, found with" in said and smaller.fingerprint in said
    assert run_in(home, "prune", *edit, "--output", "pruned") == 2
    assert run_in(home, "compare", *edit, "--adapter", "pruned", "--limit", "2") == 0  # which has no trials
    assert smaller.provenance["scores"]["best"] == smaller.provenance["pruned"]["scores"]["pruned"]
    small = ("--tokens", "40", "--limit", "4")
    suite = ("--tasks", "own_loglikelihood", "--strengths", "0,1")
    assert run_in(home, "effects", *edit, *small, *suite, "--adapter", "pruned", "--output", "effects") == 0
    said = capsys.readouterr().out
    assert "adapter: other tasks, zero-shot" in said and "own_loglikelihood" in said and "KL, nats a token" in said
    report = ("report", "cells.json", "--output", "page", "--analysis", "pictures", "--analysis", "effects")
    assert run_in(home, "compare", *edit, "--limit", "4", "--output", "cells.json") == 0
    assert run_in(home, *report) == 0
    page = (home / "page" / "index.html").read_text()
    assert page.count('<img src="data:image/svg+xml;base64,') == 7
    assert run_in(home, *report, "--analysis", "tasks") == 2


def test_evaluate_at_a_strength_with_side_effects(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate = ("evaluate", *MODEL, "--tasks", "own_choice", "--include-path", "tasks", "--limit", "4")
    at_zero = ("--adapter", "adapter", "--strength", "0", "--side-effects", "--suite", "own_loglikelihood")
    assert run_in(home, *evaluate, *at_zero, "--tokens", "40", "--output", "zero.json") == 0
    said = capsys.readouterr().out
    assert "side effects: tasks that it was not tuned on" in " ".join(said.split())
    assert "40 tokens that the base model wrote" in said and "KL 0.0000 [0.0000, inf] nats a token" in said  # one text
    assert run_in(home, *evaluate, "--output", "none.json") == 0
    zero, base = (json.loads((home / name).read_text())["results"] for name in ("zero.json", "none.json"))
    assert zero["own_choice"]["acc,none"] == base["own_choice"]["acc,none"]


def test_merge_is_an_ordinary_checkpoint(home: Path) -> None:
    assert run_in(home, "merge", "--model", "model", "--adapter", "adapter", "--output", "merged") == 0
    adapter = Adapter.from_pretrained(home / "adapter")
    plain = AutoModelForCausalLM.from_pretrained(home / "model").eval()
    merged = AutoModelForCausalLM.from_pretrained(home / "merged").eval()
    tokens = torch.arange(5, 25)[None]
    with adapter.apply(plain):
        expected = plain(tokens).logits
    torch.testing.assert_close(merged(tokens).logits, expected, atol=1e-4, rtol=1e-4)
    tokenizer = AutoTokenizer.from_pretrained(home / "merged")
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(home / "model").chat_template
    assert run_in(home, "merge", "--model", "model", "--adapter", "adapter", "--output", "merged") == 2
    for model in (plain, merged):
        model.generation_config.update(max_new_tokens=24, min_new_tokens=24, do_sample=False)
    prompts = tokenizer(
        ["item 1: ", "another, longer item 2: "], padding=True, padding_side="left", return_tensors="pt"
    )
    with adapter.apply(plain):
        expected = plain.generate(**prompts)
    assert torch.equal(merged.generate(**prompts), expected)
    assert not torch.equal(plain.generate(**prompts), expected)
    assert run_in(home, "merge", *MODEL, "--adapter", "adapter", "--output", "shards", "--shard-size", "20KB") == 0
    assert len(list((home / "shards").glob("model-*.safetensors"))) > 1


def test_export_and_import(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_in(home, "export", "--model", "model", "--adapter", "adapter", "--to", "peft", "--output", "oft") == 0
    assert "for peft=oft" in capsys.readouterr().out
    assert json.loads((home / "oft" / "adapter_config.json").read_text())["base_model_name_or_path"] == "model"
    assert run_in(home, "import", "--model", "model", "--from-peft", "oft", "--output", "imported") == 0
    assert "not known" not in capsys.readouterr().out
    tuned, imported = Adapter.from_pretrained(home / "adapter"), Adapter.from_pretrained(home / "imported")
    torch.testing.assert_close(imported.angles, tuned.angles, atol=1e-6, rtol=0)
    assert (imported.edit, imported.provenance) == (tuned.edit, tuned.provenance)
    Adapter(imported.angles, imported.edit, {}).save_pretrained(home / "foreign")  # as one that PEFT trained comes
    assert run_in(home, "compose", "adapter", "foreign", "--output", "unknown") == 0
    assert f"what {imported.fingerprint} was tuned on is not known" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("reference", ["org/name", "//host/share", "/nowhere/at/all", "\x1b[2Jorg/name"])
def test_an_adapter_does_not_choose_a_download(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], reference: str
) -> None:
    chosen = str(tmp_path / "chosen")
    adapter = Adapter.from_pretrained(home / "adapter")
    Adapter(adapter.angles, adapter.edit, {**adapter.provenance, "model": reference}).save_pretrained(
        home / "elsewhere"
    )
    assert run_in(home, "compose", "elsewhere", "--output", chosen) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "if you trust it, add --model" in told and "\x1b" not in told
    assert run_in(home, "compose", "elsewhere", "--model", "model", "--output", chosen) == 0


def test_an_adapter_does_not_choose_a_classifier(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapter = Adapter.from_pretrained(home / "adapter")
    objective = {"objective": "classifier:org/name#x", "search": "bo"}
    Adapter(adapter.angles, adapter.edit, {**adapter.provenance, **objective}).save_pretrained(home / "classified")
    compare = ("compare", "--model", "model", "--include-path", "tasks", "--adapter", "classified", "--limit", "2")
    assert run_in(home, *compare) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "a reward that loads no model in an adapter" in told and "--reward 'classifier:org/name#x'" in told


def test_export_to_gguf(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export = ("export", "--model", "model.gguf", "--adapter", "adapter", "--to", "gguf", "--output", "edited.gguf")
    write_gguf(byte_model(), home / "model.gguf")
    assert run_in(home, *export) == 0
    told = " ".join(capsys.readouterr().out.split())
    adapter = Adapter.from_pretrained(home / "adapter")
    assert told == f"exported adapter {adapter.fingerprint} to edited.gguf, {len(adapter.edit.layers)} tensors edited"
    assert run_in(home, *export) == 2
    assert "expected a new file, got edited.gguf, which is there; choose another --output" in capsys.readouterr().err
    evaluate = ("evaluate", "--device", "cpu", "--tasks", "own_choice", "--include-path", "tasks", "--limit", "2")
    assert run_in(home, *evaluate, "--model", "edited.gguf") == 0


def test_compose(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    strengths = ("--strength", "0.5", "--strength", "-0.25")
    assert run_in(home, "compose", "adapter", "adapter", *strengths, "--output", "quarter") == 0
    adapter, quarter = Adapter.from_pretrained(home / "adapter"), Adapter.from_pretrained(home / "quarter")
    assert quarter.fingerprint in capsys.readouterr().out
    torch.testing.assert_close(quarter.angles, adapter.angles / 4, atol=1e-6, rtol=0)
    drawn = adapter.provenance["samples_drawn"]
    assert quarter.provenance["samples_drawn"] == [*drawn, *drawn]
    evaluate = ("evaluate", *MODEL, "--tasks", "own_choice", "--include-path", "tasks", "--limit", "2")
    assert run_in(home, *evaluate, "--adapter", "quarter") == 0


def test_lm_eval_knows_the_model_and_the_tasks(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
    ("given", "device", "folders"),
    [
        ((), "auto", []),
        (("--device=cpu",), "cpu", []),
        (("--device", "cpu", "--include_path", "tasks"), "cpu", ["tasks"]),
        (("--config", "run.yaml"), "cuda:1", ["theirs"]),
        (("--config", "run.yaml", "--device", "cpu", "--include_path", "tasks"), "cpu", ["tasks"]),
    ],
)
def test_lm_eval_is_asked_for_what_the_user_asks_for(
    home: Path, monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...], device: str, folders: list[str]
) -> None:
    (home / "run.yaml").write_text("device: cuda:1\ninclude_path: theirs\n")
    (home / "theirs").mkdir(exist_ok=True)
    asked: list[Namespace] = []
    monkeypatch.setattr(HarnessCLI, "execute", lambda _, args: asked.append(args))
    assert run_in(home, "lm-eval", "--model", "tarot", "--tasks", "synth_color", *given) == 0
    assert asked[0].device == device and asked[0].include_path[1:] == folders


OFT = ("--model", "model", "--adapter", "adapter")
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
    (("merge", *MODEL, "--adapter", "adapter", "--output", "x", "--shard-size", "big"), "expected a size of files"),
    (
        ("export", *OFT, "--output", "x", "--to", "loro"),
        "expected a known form of export, got 'loro'; known: gguf, peft",
    ),
    (
        ("export", *OFT, "--output", "x.gguf", "--to", "gguf"),
        "expected a model from a GGUF file, PATH.gguf or wheel:NAME, got 'model'; tarot merge writes the folder",
    ),
    (("export", *OFT, "--output", "tasks"), "expected an empty output folder"),
    (("import", "--model", "model", "--from-peft", "tasks", "--output", "x"), "expected a PEFT adapter folder"),
    (("compose", "adapter", "none", "--output", "x"), "expected an adapter folder"),
    (("compose", "adapter", "--strength", "1", "--strength", "2", "--output", "x"), "expected a --strength for each"),
    (
        ("compose", "adapter", "--strength", "nan", "--output", "x"),
        "expected a strength that leaves every angle finite",
    ),
    (
        ("evaluate", *MODEL, "--tasks", "synth_color", "--strength", "0.5"),
        "expected an adapter for --strength and --side-effects, got none; add --adapter DIR",
    ),
    (
        ("evaluate", *MODEL, "--tasks", "synth_color", "--adapter", "adapter", "--strength", "2"),
        "expected a strength from 0 (the base model) to 1 (the adapter), got 2.0",
    ),
    (
        ("effects", *MODEL, "--adapter", "adapter", "--output", "x", "--strengths", "0,half"),
        "expected numbers from 0 to 1 as strength, got 'half'; for example 0,0.5,1",
    ),
    (("analysis", *MODEL, "--adapter", "model", "--output", "x"), "expected an adapter folder"),
    # Told before an hour of measuring.
    (
        ("compare", *OFT, "--output", "bench.json"),
        "expected a file of its own to write, got bench.json, in which tarot bench keeps cells; choose another",
    ),
    (("compare", *OFT, "--metric", "greedy-f1"), "expected a known metric, got 'greedy-f1'"),
    (("compare", *OFT, "--output", "tasks"), "expected a file to write, got 'tasks', which is none"),
    (("compare", *OFT, "--shots", "-1"), "Invalid value for '--shots'"),
    (("compare", *OFT, "--reward", "fluency", "--draws", "2"), "expected no arms beside base and edited texts"),
    (("evaluate", *MODEL, "--tasks", "synth_color", "--output", "tasks"), "expected a file to write, got 'tasks'"),
    (
        ("evaluate", *MODEL, "--tasks", "synth_color", "--reward", "fluency", "--output", "x.json"),
        "expected a task that generates, to judge by fluency, got multiple_choice in synth_color",
    ),
    (
        ("evaluate", *MODEL, "--tasks", "synth_color", "--adapter", "adapter", "--side-effects", "--suite", "x"),
        "expected a known task, got 'x'",
    ),
    ((*TUNE, "--output", "x", "--layers", "1"), "got '1'; 1-1 is one layer, 1.0 is all"),
    (("tune", *MODEL, *TASK, "--output", "x" * 300), "File name too long"),
    *(
        ((name, *OFT, "--output", "tasks/train.jsonl"), "expected a folder to write, got 'tasks/train.jsonl'")
        for name in ("analysis", "prune", "effects", "merge")
    ),
    (("prune", *OFT, "--output", "tasks/train.jsonl/x"), "expected a place to write, got 'tasks/train.jsonl/x'"),
    (("bench", *MODEL[:2], "--task", "x", "--output", "."), "expected a file to write, got '.', which is none"),
    (
        ("prune", *MODEL, "--adapter", "adapter", "--include-path", "tasks", "--output", "x", "--keep", "2"),
        "expected a share of the gain to keep, above 0 and at most 1, got 2.0",
    ),
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


INCLUDE = ("--include-path", "tasks")
EDIT = (*MODEL, "--adapter", "adapter", *INCLUDE)
BENCH = ("bench", "--model", "model", "--task", "own_choice", *INCLUDE, "--output", "new.json")
BELOW = "tasks/train.jsonl/x"  # below a file
LATE = [
    ((*TUNE, "--output", ""), "''"),
    ((*TUNE, "--output", BELOW), BELOW),
    ((*TUNE, "--output", "x", "--include-path", "nowhere"), "'nowhere'"),
    ((*TUNE, "--output", "x", "--include-path", ""), "''"),
    ((*TUNE, "--output", "x", "--task", "own_chioce"), "did you mean 'own_choice'?"),
    ((*TUNE, "--output", "x", "--objective", "probabilty"), "'probabilty'"),
    ((*TUNE, "--output", "x", "--search", "adma"), "'adma'"),
    ((*TUNE, "--output", "x", "--space", "haed"), "'haed'"),
    ((*TUNE, "--output", "x", "--sites", "hedas"), "'hedas'"),
    ((*TUNE, "--output", "x", "--rotation", "rotray"), "'rotray'"),
    ((*TUNE, "--output", "x", "--layers", "4-"), "'4-'"),
    ((*TUNE, "--output", "x", "--engine", "cloud"), "'cloud'"),
    ((*TUNE, "--output", "x", "--samples", "40"), "40 samples"),
    ((*TUNE, "--output", "x", "--budget", "0"), "0"),
    *(
        (("evaluate", *MODEL, *INCLUDE, "--tasks", "own_choice", *option), quoted)
        for option, quoted in (
            (("--tasks", "own_chioce"), "'own_chioce'"),
            (("--output", ""), "''"),
            (("--output", BELOW), BELOW),
            (("--include-path", "nowhere"), "'nowhere'"),
            (("--limit", "0"), "0"),
            (("--num-fewshot", "99"), "99"),
            (("--num-fewshot", "-1"), "-1"),
            (("--adapter", "nowhere"), "nowhere"),
            (("--reward", "sentimnt:positive"), "the module sentimnt"),
            (("--adapter", "adapter", "--side-effects", "--suite", "nosuch"), "'nosuch'"),
            (("--adapter", "adapter", "--side-effects", "--tokens", "0"), "0"),
            (("--batch-size", "0"), "'0'"),
        )
    ),
    *(
        (("compare", *EDIT, *option), quoted)
        for option, quoted in (
            (("--output", ""), "''"),
            (("--output", BELOW), BELOW),
            (("--include-path", "nowhere"), "'nowhere'"),
            (("--control", "nowhere"), "nowhere"),
            (("--limit", "0"), "0"),
            (("--reward", "toxicity:hgih"), "'toxicity:hgih'"),
            (("--metric", "ac"), "'ac'"),
        )
    ),
    *(
        ((*BENCH, *option), quoted)
        for option, quoted in (
            (("--task", "nosuch"), "'nosuch'"),
            (("--output", ""), "''"),
            (("--output", BELOW), BELOW),
            (("--work", "tasks/train.jsonl"), "tasks/train.jsonl'"),
            (("--include-path", "nowhere"), "'nowhere'"),
            (("--search", "adma"), "'adma'"),
            (("--space", "haed"), "'haed'"),
            (("--seeds", "0,x"), "'0,x'"),
            (("--shots", "few"), "'few'"),
            (("--engine", "cloud"), "'cloud'"),
        )
    ),
    *(
        ((command, *EDIT, *(("--output", "x") if "--output" not in option else ()), *option), quoted)
        for command in ("analysis", "prune", "effects")
        for option, quoted in (
            (("--output", ""), "''"),
            (("--output", BELOW), BELOW),
            (("--include-path", "nowhere"), "'nowhere'"),
            *(((("--limit", "0"), "0"),) if command != "prune" else ()),
            *(((("--reward", "flency:low"), "the module flency"),) if command != "effects" else ()),
            *(((("--tasks", "nosuch"), "'nosuch'"),) if command == "effects" else ()),
            *(((("--strengths", "0,2"), "2"),) if command == "effects" else ()),
            *(((("--tokens", "0"), "0"),) if command == "effects" else ()),
        )
    ),
    (("report", "bench.json", "--output", BELOW), BELOW),
    (("report", "bench.json", "--output", ""), "''"),
    (("report", "bench.json", "--output", "x", "--analysis", "nowhere"), "nowhere"),
    (("report", "", "--output", "x"), "''"),
    (("merge", *OFT, "--output", ""), "''"),
    (("export", *OFT, "--output", ""), "''"),
    (("export", *OFT, "--output", BELOW), BELOW),
    (("import", "--model", "model", "--from-peft", "nowhere", "--output", "x"), "'nowhere'"),
    (("import", "--model", "model", "--from-peft", "tasks", "--output", BELOW), BELOW),
    (("compose", "adapter", "--output", BELOW), BELOW),
    (("compose", "adapter", "--output", ""), "''"),
]


@pytest.mark.parametrize(
    ("arguments", "quoted"), LATE, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_what_is_wrong_is_quoted_before_a_model_is_read(
    home: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    quoted: str,
) -> None:
    monkeypatch.delattr(AutoModelForCausalLM, "from_pretrained")
    before = sorted(path.relative_to(home) for path in home.rglob("*") if "cache" not in path.parts)
    assert run_in(home, *arguments) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert quoted in error
    assert sorted(path.relative_to(home) for path in home.rglob("*") if "cache" not in path.parts) == before


REWARDED = (
    "--layers",
    "0.5",
    "--task",
    "openings",
    "--objective",
    "toxicity:low",
    "--fluency-floor",
    "50%",
    "--output",
    "rewarded",
)


def test_a_reward_from_tuning_to_comparison(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_in(home, "tune", *MODEL, *SMALL, *REWARDED) == 0
    assert "toxicity:low on 5 samples: identity" in capsys.readouterr().out
    scored_texts = ("--adapter", "rewarded", "--limit", "4", "--reward", "fluency")
    assert run_in(home, "compare", *MODEL, *scored_texts, "--output", "judged.json") == 0
    said = capsys.readouterr().out
    assert "openings, 4 documents, fluency, seed 0" in said
    assert all(word in said for word in ("base", "edited", "distinct-2", "repetition", "(identity)"))
    assert len(json.loads((home / "judged.json").read_text())["rewarded"][0]["base"]["texts"]) == 4
    drawn = ("--adapter", "rewarded", "--limit", "2", "--reward", "fluency")
    assert run_in(home, "analysis", *MODEL, *drawn, "--output", "layers") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "attention.svg, layers.csv, layers.svg in layers no lens and no flips, since a reward has" in said
    assert run_in(home, "report", "judged.json", "--output", "texts") == 0
    assert "openings fluency seed 0" in (home / "texts" / "index.html").read_text()
    assert run_in(home, "evaluate", *MODEL, "--tasks", "openings", "--limit", "2", "--output", "texts.json") == 0
    said = capsys.readouterr().out
    assert all(word in said for word in ("words", "reward", "fluency", "distinct_2"))
    assert "reward" in json.loads((home / "texts.json").read_text())["samples"]["openings"][0]
    assert run_in(home, "evaluate", *MODEL, "--tasks", "openings", "--reward", "sentiment:no") == 2
    assert "expected a known reward, got 'sentiment:no'" in capsys.readouterr().err
