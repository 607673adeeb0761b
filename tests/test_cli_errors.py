"""What is wrong with a command line: one line that quotes it, exit code 2, and no model is loaded or file written."""

from pathlib import Path

import pytest
from cli_suite import EDIT, INCLUDE, MERGE, MODEL, SMALL, TASK, TUNE, run_in
from transformers import AutoModelForCausalLM

pytest_plugins = ["cli_suite"]

NEW = ("--output-path", "x")
TUNE_OTHER = ("tune", *MODEL, *INCLUDE, *SMALL, *NEW)
EVALUATE = ("evaluate", *MODEL, *INCLUDE, "--tasks", "own_choice")
BENCH = ("bench", "--model", "model", "--tasks", "own_choice", *INCLUDE, "--output-path", "new.json")
BELOW_A_FILE = "tasks/train.jsonl/x"

# Found when the model is loaded, or after it.
LOADING = [
    (("tune", "--model", "modle", *TASK, *NEW), "'modle'"),
    (("tune", "--model", "wheel:smollm", *TASK, *NEW), "'wheel:smollm2-135m'"),
    ((*TUNE, *NEW, "--device", "tpu"), "'tpu'"),
    (("export", *MERGE, "--output-path", "x.gguf", "--to", "gguf"), "tarot merge"),
    (("import", "--model", "model", "--from-peft", "tasks", *NEW), "PEFT"),
    (("compose", "adapter", "--strength", "nan", *NEW), "strength"),
    ((*TUNE, *NEW, "--layers", "4-60"), "got 4-60"),
    (("tune", *MODEL, *TASK, "--output-path", "x" * 300), "File name too long"),
]


@pytest.mark.parametrize(
    ("arguments", "keyword"), LOADING, ids=lambda value: " ".join(value[-2:])[-40:] if isinstance(value, tuple) else ""
)
def test_an_error_is_one_line_and_leaves_nothing(
    home: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], keyword: str
) -> None:
    before = sorted(path.name for path in home.iterdir())
    assert run_in(home, *arguments) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert keyword in error
    assert sorted(path.name for path in home.iterdir()) == before


# Found before a model is loaded.
EARLY = [
    ((*TUNE, "--output-path", ""), "''"),
    ((*TUNE, "--output-path", BELOW_A_FILE), BELOW_A_FILE),
    ((*TUNE, "--output-path", "adapter"), "adapter"),
    ((*TUNE, *NEW, "--include-path", "nowhere"), "'nowhere'"),
    ((*TUNE, *NEW, "--include-path", ""), "''"),
    ((*TUNE_OTHER, "--tasks", "own_chioce"), "did you mean 'own_choice'?"),
    ((*TUNE_OTHER, "--tasks", "own_choice,own_loglikelihood"), "one task"),
    ((*TUNE, *NEW, "--objective", "probabilty"), "'probabilty'"),
    ((*TUNE, *NEW, "--search", "adma"), "'adma'"),
    ((*TUNE, *NEW, "--space", "haed"), "'haed'"),
    ((*TUNE, *NEW, "--sites", "hedas"), "'hedas'"),
    ((*TUNE, *NEW, "--rotation", "rotray"), "'rotray'"),
    ((*TUNE, *NEW, "--layers", "4-"), "'4-'"),
    ((*TUNE, *NEW, "--layers", "1"), "'1'"),
    ((*TUNE, *NEW, "--engine", "cloud"), "'cloud'"),
    ((*TUNE, *NEW, "--num-samples", "40"), "40 samples"),
    ((*TUNE, *NEW, "--num-samples", "many"), "--num-samples"),
    ((*TUNE, *NEW, "--num-samples", "0"), "--num-samples"),
    ((*TUNE, *NEW, "--num-fewshot", "few"), "'few'"),
    ((*TUNE, *NEW, "--num-fewshot", "0,2"), "'0,2'"),
    ((*TUNE, *NEW, "--bound", "-1"), "-1.0"),
    ((*TUNE, *NEW, "--budget", "0"), "0"),
    ((*TUNE, *NEW, "--dtype", "int8"), "'int8'"),
    ((*TUNE, *NEW, "--batch-size", "big"), "'big'"),
    ((*TUNE, *NEW, "--search", "adam", "--space", "full", "--max-kl", "0"), "'0'"),
    ((*TUNE, *NEW, "--search", "random", "--space", "full", "--max-kl", "0.01"), "gradient"),
    ((*TUNE, *NEW, "--max-kl", "none", "--front"), "--max-kl"),
    ((*TUNE, *NEW, "--resume"), "no search to resume in x"),
    ((*TUNE, *NEW, "--max-kl", "none", "--pick", "3"), "max_kl"),
    (("tune", *MODEL, *TASK), "--output-path"),
    *(
        ((*EVALUATE, *option), keyword)
        for option, keyword in (
            (("--tasks", "own_chioce"), "'own_chioce'"),
            (("--output-path", ""), "''"),
            (("--output-path", "tasks"), "'tasks'"),
            (("--output-path", BELOW_A_FILE), BELOW_A_FILE),
            (("--include-path", "nowhere"), "'nowhere'"),
            (("--limit", "0"), "'0'"),
            (("--limit", "1.0"), "'1.0'"),
            (("--limit", "half"), "'half'"),
            (("--num-fewshot", "99"), "99"),
            (("--num-fewshot", "-1"), "-1"),
            (("--adapter", "nowhere"), "nowhere"),
            (("--adapter", "model"), "model"),
            (("--adapter", ""), "''"),
            (("--strength", "0.5"), "--adapter"),
            (("--adapter", "adapter", "--strength", "2"), "2.0"),
            (("--reward", "sentimnt:positive"), "the module sentimnt"),
            (("--reward", "fluency"), "own_choice"),
            (("--batch-size", "0"), "'0'"),
            (("--side-effects",), "--side-effects"),
        )
    ),
    (("evaluate", *MODEL, "--tasks", " , "), "' , '"),
    *(
        (("try", *EDIT, *option), keyword)
        for option, keyword in (
            (("--prompt", " "), "empty"),
            (("--prompt", "a", "--tasks", "own_choice"), "not both"),
            (("--limit", "2"), "--tasks"),
            (("--tasks", "own_chioce"), "'own_chioce'"),
            (("--tasks", "own_choice,own_generate"), "one task"),
            (("--tasks", "own_choice", "--limit", "0"), "'0'"),
            (("--prompt", "a", "--strength", "2"), "2.0"),
            (("--prompt", "a", "--max-new-tokens", "0"), "--max-new-tokens"),
            (("--prompt", "a", "--adapter", "nowhere"), "nowhere"),
        )
    ),
    *(
        (("ui", *EDIT, "--port", "0", *option), keyword)
        for option, keyword in (
            (("--tasks", "own_chioce"), "'own_chioce'"),
            (("--strength", "2"), "2.0"),
            (("--port", "65536"), "--port"),
            (("--host", "256.0.0.1"), "256.0.0.1"),
            (("--adapter", "nowhere"), "nowhere"),
        )
    ),
    *(
        (("compare", *EDIT, *option), keyword)
        for option, keyword in (
            (("--output-path", ""), "''"),
            (("--output-path", "tasks"), "'tasks'"),
            (("--output-path", BELOW_A_FILE), BELOW_A_FILE),
            (("--output-path", "bench.json"), "bench.json"),
            (("--include-path", "nowhere"), "'nowhere'"),
            (("--control", "nowhere"), "nowhere"),
            (("--limit", "0"), "'0'"),
            (("--num-fewshot", "-1"), "--num-fewshot"),
            (("--reward", "toxicity:hgih"), "'toxicity:hgih'"),
            (("--reward", "fluency", "--draws", "2"), "--draws"),
            (("--metric", "ac"), "'ac'"),
        )
    ),
    *(
        ((*BENCH, *option), keyword)
        for option, keyword in (
            (("--tasks", "nosuch"), "'nosuch'"),
            (("--model", "modle"), "'modle'"),
            (("--model", "modle.gguf"), "modle.gguf"),
            (("--model", "wheel:smolm2-135m"), "'wheel:smollm2-135m'"),
            (("--output-path", ""), "''"),
            (("--output-path", "."), "'.'"),
            (("--output-path", BELOW_A_FILE), BELOW_A_FILE),
            (("--work", "tasks/train.jsonl"), "tasks/train.jsonl'"),
            (("--include-path", "nowhere"), "'nowhere'"),
            (("--search", "adma"), "'adma'"),
            (("--space", "haed"), "'haed'"),
            (("--seeds", "0,x"), "'0,x'"),
            (("--num-fewshot", "few"), "'few'"),
            (("--engine", "cloud"), "'cloud'"),
        )
    ),
    *(
        ((command, *EDIT, *(NEW if "--output-path" not in option else ()), *option), keyword)
        for command in ("analysis", "prune", "effects")
        for option, keyword in (
            (("--output-path", ""), "''"),
            (("--output-path", "tasks/train.jsonl"), "'tasks/train.jsonl'"),
            (("--output-path", BELOW_A_FILE), BELOW_A_FILE),
            (("--include-path", "nowhere"), "'nowhere'"),
            *(((("--limit", "0"), "'0'"),) if command != "prune" else ((("--keep", "2"), "2.0"),)),
            *(((("--reward", "flency:low"), "the module flency"),) if command != "effects" else ()),
            *(((("--tasks", "nosuch"), "'nosuch'"),) if command == "effects" else ()),
            *(((("--strengths", "0,2"), "2"), (("--strengths", "0,half"), "'half'")) if command == "effects" else ()),
            *(((("--tokens", "0"), "0"),) if command == "effects" else ()),
        )
    ),
    (("analysis", *MODEL, "--adapter", "model", *NEW), "model"),
    (("report", "bench.json", "--output-path", BELOW_A_FILE), BELOW_A_FILE),
    (("report", "bench.json", "--output-path", ""), "''"),
    (("report", "bench.json", *NEW, "--analysis", "nowhere"), "nowhere"),
    (("report", "", *NEW), "''"),
    (("report", "bench.json", "--output-path", "adapter"), "adapter with files in it"),
    (("merge", *MERGE, "--output-path", ""), "''"),
    (("merge", *MERGE, "--output-path", "tasks/train.jsonl"), "'tasks/train.jsonl'"),
    (("merge", *MERGE, *NEW, "--shard-size", "big"), "big"),
    (("merge", "--model", "model", "--adapter", "none", *NEW), "none"),
    (("export", *MERGE, "--output-path", ""), "''"),
    (("export", *MERGE, "--output-path", "tasks"), "tasks"),
    (("export", *MERGE, "--output-path", BELOW_A_FILE), BELOW_A_FILE),
    (("export", *MERGE, *NEW, "--to", "loro"), "'loro'"),
    (("import", "--model", "model", "--from-peft", "nowhere", *NEW), "'nowhere'"),
    (("import", "--model", "model", "--from-peft", "tasks", "--output-path", BELOW_A_FILE), BELOW_A_FILE),
    (("compose", "adapter", "--output-path", BELOW_A_FILE), BELOW_A_FILE),
    (("compose", "adapter", "--output-path", ""), "''"),
    (("compose", "adapter", "none", *NEW), "none"),
    (("compose", "adapter", "--strength", "1", "--strength", "2", *NEW), "--strength"),
]


@pytest.mark.parametrize(
    ("arguments", "keyword"),
    EARLY,
    ids=lambda value: " ".join((value[0], *value[-2:])) if isinstance(value, tuple) else "",
)
def test_an_error_is_found_before_a_model_is_loaded(
    home: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    keyword: str,
) -> None:
    monkeypatch.delattr(AutoModelForCausalLM, "from_pretrained")
    before = sorted(path.relative_to(home) for path in home.rglob("*") if "cache" not in path.parts)
    assert run_in(home, *arguments) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert keyword in error
    assert sorted(path.relative_to(home) for path in home.rglob("*") if "cache" not in path.parts) == before
