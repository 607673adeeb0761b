"""Commands that turn an adapter into something else: merge, export, import, compose, prune; analysis and effects."""

import json
from pathlib import Path

import pytest
import torch
from checkpoint import byte_model, write_gguf
from cli_suite import EDIT, INCLUDE, MERGE, MODEL, TASK, run_in
from transformers import AutoModelForCausalLM, AutoTokenizer

from tarot.edit.adapter import Adapter

pytest_plugins = ["cli_suite"]


def test_analysis_prune_and_effects(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_in(home, "analysis", *EDIT, "--limit", "4", "--output-path", "pictures") == 0
    assert "lens.csv, lens.svg, heads.csv" in " ".join(capsys.readouterr().out.split())
    assert run_in(home, "prune", *EDIT, "--keep", "0.5", "--output-path", "pruned") == 0
    smaller = Adapter.from_pretrained(home / "pruned")
    heads = smaller.provenance["pruned"]["heads"]
    printed, progress = capsys.readouterr()
    assert progress.splitlines()[-1] == "dropping heads"
    assert f"{heads} of 12 heads, found with" in printed and smaller.fingerprint in printed
    assert run_in(home, "prune", *EDIT, "--output-path", "pruned") == 2
    assert run_in(home, "compare", *EDIT, "--adapter", "pruned", "--limit", "2") == 0
    assert smaller.provenance["scores"]["best"] == smaller.provenance["pruned"]["scores"]["pruned"]
    small = ("--tokens", "40", "--limit", "4")
    suite = ("--tasks", "own_loglikelihood", "--strengths", "0,1")
    assert run_in(home, "effects", *EDIT, *small, *suite, "--adapter", "pruned", "--output-path", "effects") == 0
    printed = capsys.readouterr().out
    assert (
        "adapter: other tasks, zero-shot" in printed
        and "own_loglikelihood" in printed
        and "KL, nats a token" in printed
    )
    report = ("report", "cells.json", "--output-path", "page", "--analysis", "pictures", "--analysis", "effects")
    assert run_in(home, "compare", *EDIT, "--limit", "4", "--output-path", "cells.json") == 0
    assert run_in(home, *report) == 0
    page = (home / "page" / "index.html").read_text()
    figures = [*(home / "pictures").glob("*.svg"), *(home / "effects").glob("*.svg")]
    drawn = {figure.stem for figure in figures} | {"flips"}  # no document of a random model may flip
    assert drawn == {"lens", "heads-alone", "heads-missed", "flips", "attention", "effects", "tradeoff"}
    assert page.count('<img src="data:image/svg+xml;base64,') == len(figures)
    assert run_in(home, *report, "--analysis", "tasks") == 2


def test_merge_is_an_ordinary_checkpoint(home: Path) -> None:
    assert run_in(home, "merge", *MERGE, "--output-path", "merged") == 0
    adapter = Adapter.from_pretrained(home / "adapter")
    plain = AutoModelForCausalLM.from_pretrained(home / "model").eval()
    merged = AutoModelForCausalLM.from_pretrained(home / "merged").eval()
    tokens = torch.arange(5, 25)[None]
    with adapter.apply(plain):
        expected = plain(tokens).logits
    torch.testing.assert_close(merged(tokens).logits, expected, atol=1e-4, rtol=1e-4)
    tokenizer = AutoTokenizer.from_pretrained(home / "merged")
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(home / "model").chat_template
    assert run_in(home, "merge", *MERGE, "--output-path", "merged") == 2
    for model in (plain, merged):
        model.generation_config.update(max_new_tokens=24, min_new_tokens=24, do_sample=False)
    prompts = tokenizer(
        ["item 1: ", "another, longer item 2: "], padding=True, padding_side="left", return_tensors="pt"
    )
    with adapter.apply(plain):
        expected = plain.generate(**prompts)
    assert torch.equal(merged.generate(**prompts), expected)
    assert not torch.equal(plain.generate(**prompts), expected)
    assert run_in(home, "merge", *MODEL, "--adapter", "adapter", "--output-path", "shards", "--shard-size", "20KB") == 0
    assert len(list((home / "shards").glob("model-*.safetensors"))) > 1


def test_export_and_import(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_in(home, "export", *MERGE, "--to", "peft", "--output-path", "oft") == 0
    assert "for peft=oft" in capsys.readouterr().out
    assert json.loads((home / "oft" / "adapter_config.json").read_text())["base_model_name_or_path"] == "model"
    assert run_in(home, "import", "--model", "model", "--from-peft", "oft", "--output-path", "imported") == 0
    assert "not known" not in capsys.readouterr().out
    tuned, imported = Adapter.from_pretrained(home / "adapter"), Adapter.from_pretrained(home / "imported")
    torch.testing.assert_close(imported.angles, tuned.angles, atol=1e-6, rtol=0)
    assert (imported.edit, imported.provenance) == (tuned.edit, tuned.provenance)
    Adapter(imported.angles, imported.edit, {}).save_pretrained(home / "foreign")  # as PEFT would train one
    assert run_in(home, "compose", "adapter", "foreign", "--output-path", "unknown") == 0
    assert f"the samples that {imported.fingerprint} was tuned on are not known" in " ".join(
        capsys.readouterr().out.split()
    )


@pytest.mark.parametrize("reference", ["org/name", "//host/share", "/nowhere/at/all", "\x1b[2Jorg/name"])
def test_an_adapter_cannot_choose_what_is_downloaded(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], reference: str
) -> None:
    chosen = str(tmp_path / "chosen")
    adapter = Adapter.from_pretrained(home / "adapter")
    Adapter(adapter.angles, adapter.edit, {**adapter.provenance, "model": reference}).save_pretrained(
        home / "elsewhere"
    )
    assert run_in(home, "compose", "elsewhere", "elsewhere", "--output-path", chosen) == 2
    printed = " ".join(capsys.readouterr().err.split())
    assert "if you trust it, add --model" in printed and "\x1b" not in printed
    assert run_in(home, "compose", "elsewhere", "elsewhere", "--model", "model", "--output-path", chosen) == 0


def test_what_an_adapter_retained_is_not_read(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A task of its own is what the user asks for by its use, and the command names it first."""
    adapter = Adapter.from_pretrained(home / "adapter")
    retained = {"search": "adam", "space": "full", "max_kl": 0.02, "retain": ["no-such-task", "missing.txt"]}
    Adapter(adapter.angles, adapter.edit, {**adapter.provenance, **retained}).save_pretrained(home / "retains")
    edit = (*MODEL, "--adapter", "retains", *INCLUDE)
    for command in (("gate",), ("prune", "--keep", "0.5"), ("analysis", "--limit", "2")):
        assert run_in(home, *command, *edit, "--output-path", f"{command[0]} of retains") == 0
        assert "loading the task that the adapter names: own_choice" in capsys.readouterr().err


def test_export_to_gguf(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export = ("export", "--model", "model.gguf", "--adapter", "adapter", "--to", "gguf", "--output-path", "edited.gguf")
    write_gguf(byte_model(), home / "model.gguf")
    assert run_in(home, *export) == 0
    printed = " ".join(capsys.readouterr().out.split())
    adapter = Adapter.from_pretrained(home / "adapter")
    assert (
        printed == f"exported adapter {adapter.fingerprint} to edited.gguf, {len(adapter.edit.layers)} tensors edited"
    )
    assert run_in(home, *export) == 2
    assert "edited.gguf" in capsys.readouterr().err
    evaluate = ("evaluate", "--device", "cpu", "--tasks", "own_choice", *INCLUDE, "--limit", "2")
    assert run_in(home, *evaluate, "--model", "edited.gguf") == 0


def test_compose_adds_scaled_angles(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    strengths = ("--strength", "0.5", "--strength", "-0.25")
    assert run_in(home, "compose", "adapter", "adapter", *strengths, "--output-path", "quarter") == 0
    adapter, quarter = Adapter.from_pretrained(home / "adapter"), Adapter.from_pretrained(home / "quarter")
    assert quarter.fingerprint in capsys.readouterr().out
    torch.testing.assert_close(quarter.angles, adapter.angles / 4, atol=1e-6, rtol=0)
    drawn = adapter.provenance["samples_drawn"]
    assert quarter.provenance["samples_drawn"] == [*drawn, *drawn]
    evaluate = ("evaluate", *MODEL, "--tasks", "own_choice", *INCLUDE, "--limit", "2")
    assert run_in(home, *evaluate, "--adapter", "quarter") == 0


def test_a_single_adapter_is_scaled_and_can_be_compared(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_in(home, "compose", "adapter", "--strength", "0.5", "--output-path", "half") == 0
    adapter, half = Adapter.from_pretrained(home / "adapter"), Adapter.from_pretrained(home / "half")
    assert half == adapter.scaled(0.5)
    assert run_in(home, "compare", *MODEL, "--adapter", "half", *INCLUDE, "--limit", "2") == 0
    assert "scaled by 0.5" in " ".join(capsys.readouterr().out.split())


def test_what_refuses_an_adapter_names_what_takes_it(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A composed adapter has no task, and one tuned for a function of the model no samples."""
    (home / "measured.py").write_text("def n_parameters(model, tokenizer):\n    return float(model.num_parameters())\n")
    monkeypatch.syspath_prepend(home)
    black_box = ("--objective", "measured:n_parameters", "--search", "random", "--budget", "2")
    assert run_in(home, "tune", *MODEL, *TASK, *black_box, "--output-path", "of a function") == 0
    assert "n_parameters: identity" in capsys.readouterr().out.replace("\n", " ")
    missing = ("--model", "no-such-model", "--adapter", "of a function", "--output-path", "nothing")
    assert run_in(home, "gate", *missing, *INCLUDE) == 2 and "no samples" in capsys.readouterr().err
    assert run_in(home, "compose", "adapter", "adapter", "--output-path", "sum") == 0
    task_commands = ("compare", "gate", "prune", "analysis")
    few = ("--limit", "2")
    tries = ("--tasks", "own_choice", *few)
    small = (
        "--tasks",
        "own_loglikelihood",
        "--strengths",
        "1",
        "--tokens",
        "20",
        "--limit",
        "2",
        "--output-path",
        "seen",
    )
    others = {"evaluate": tries, "try": tries, "effects": small}
    for name, refused_by in (("sum", (*task_commands, "effects")), ("of a function", task_commands)):
        edit, named = (*MODEL, "--adapter", name, *INCLUDE), set()
        for command in refused_by:
            assert run_in(home, command, *edit, "--output-path", "nothing") == 2
            (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
            hint, _, parts = error.partition("; ")[2].partition("; ")
            named |= {each for each in others if each in hint}
            assert hint and ("made from" in parts) == (name == "sum") and not (home / "nothing").exists()
        assert named == others.keys() - set(refused_by)
        for command in named:
            assert run_in(home, command, *edit, *others[command]) == 0


def test_gate_and_what_refuses_a_gated_adapter(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_in(home, "gate", *EDIT, "--output-path", "gated") == 0
    gated = Adapter.from_pretrained(home / "gated")
    printed, progress = capsys.readouterr()
    assert gated.gate and gated.fingerprint in printed and progress.splitlines()[-1] == "fitting the gate"
    model = ("--model", "model")
    for command in (("merge",), ("export", "--to", "peft")):
        assert run_in(home, *command, *model, "--adapter", "gated", "--output-path", "folded") == 2
        assert "gate" in capsys.readouterr().err and not (home / "folded").exists()
    assert run_in(home, "merge", *model, "--adapter", "gated", "--without-gate", "--output-path", "folded") == 0
