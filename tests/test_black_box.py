"""Black-box objectives: functions of the edited model, noisy ones, and an engine that serves the edited file."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
import torch
from checkpoint import byte_model, byte_tokenizer, write_gguf
from transformers import LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from tarot.edit.adapter import Adapter
from tarot.edit.export.gguf import to_gguf
from tarot.errors import TarotError
from tarot.objectives.kind import ObjectiveKind
from tarot.search.config import TaRotConfig
from tarot.search.folder import RECIPE, read_trials
from tarot.search.tune import tune

CONFIG = TaRotConfig("openings", objective="model", layers=0.5, bound=1.5)
IDS = torch.arange(5, 25)[None]


def first_logit(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> float:
    return float(model(IDS).logits[0, -1, 5])


def test_the_best_edit_is_the_one_that_the_function_prefers(tmp_path: Path) -> None:
    model, tokenizer = byte_model(), byte_tokenizer()
    adapter = tune(model, tokenizer, CONFIG, budget=9, objective=first_logit, output_dir=tmp_path / "out")
    base = first_logit(model, tokenizer)
    assert adapter.provenance["scores"]["identity"] == pytest.approx(base, abs=1e-5)
    with adapter.apply(model):
        best = first_logit(model, tokenizer)
    assert best == pytest.approx(adapter.provenance["scores"]["best"], abs=1e-4) and best > base
    assert adapter.provenance["objective"] == "model" and adapter.provenance["samples_drawn"] == []
    again = tune(model, tokenizer, CONFIG, budget=9, objective=first_logit)
    assert again.fingerprint == adapter.fingerprint


def test_a_standard_error_is_logged_and_resumed(tmp_path: Path) -> None:
    model, tokenizer = byte_model(), byte_tokenizer()
    n_calls = 0

    def noisy(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[float, float]:
        nonlocal n_calls
        n_calls += 1
        return first_logit(model, tokenizer), 0.25

    tune(model, tokenizer, CONFIG, budget=8, objective=noisy, output_dir=tmp_path / "out")
    whole = tune(model, tokenizer, CONFIG, budget=10, objective=noisy)
    n_calls = 0
    resumed = tune(model, tokenizer, CONFIG, budget=10, objective=noisy, output_dir=tmp_path / "out", resume=True)
    assert n_calls == 2 and resumed.fingerprint == whole.fingerprint
    assert [trial.error for trial in read_trials(tmp_path / "out")] == [0.25] * 10
    assert not (tmp_path / "out" / RECIPE).exists()  # no file can name the function
    with pytest.raises(TarotError, match="functions"):
        tune(model, tokenizer, CONFIG, budget=12, objective=first_logit, output_dir=tmp_path / "out", resume=True)


def test_a_function_can_be_imported_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "counted.py").write_text("def layers(model, tokenizer):\n    return len(model.model.layers)\n")
    monkeypatch.chdir(tmp_path)
    config = TaRotConfig("openings", objective="model:counted:layers", search="random")
    assert config.kind is ObjectiveKind.FUNCTION
    adapter = tune(byte_model(), byte_tokenizer(), config, budget=2)
    assert adapter.provenance["scores"] == {"identity": 4, "best": 4}


@pytest.mark.parametrize(
    ("objective", "function", "keyword"),
    [
        ("model", None, "needs a function"),
        ("log_probability", first_logit, "objective='model'"),
        ("model:no_such_module:f", first_logit, "no_such_module"),
        ("model:no_such_module:f", None, "no_such_module"),
        ("model", lambda model, tokenizer: "high", "number"),
        ("model", lambda model, tokenizer: (1.0, -1.0), "standard error"),
        ("model", lambda prompts: 1.0, "--reward"),
    ],
)
def test_wrong_functions_are_errors(tmp_path: Path, objective: str, function: object, keyword: str) -> None:
    config = TaRotConfig("synth_color", objective=objective)
    with pytest.raises(TarotError, match=keyword):
        tune(byte_model(), byte_tokenizer(), config, budget=6, objective=function, output_dir=None)


@pytest.mark.parametrize("settings", [{"search": "adam"}, {"search": "policy-gradient"}])
def test_it_has_no_gradient(settings: dict[str, str]) -> None:
    with pytest.raises(TarotError, match="gradient"):
        TaRotConfig("openings", objective="model", **settings)


def test_an_engine_serves_the_edited_file(tmp_path: Path) -> None:
    """llama.cpp answers from the edited GGUF file, and the score is that of the edited model in transformers."""
    xllamacpp = pytest.importorskip("xllamacpp", reason="xllamacpp, which runs GGUF files, is not installed")
    source = write_gguf(byte_model(d_mlp=36), tmp_path / "source.gguf", merges=["a b"])
    model = LlamaForCausalLM.from_pretrained(tmp_path, gguf_file=source.name, dtype=torch.float32)
    prompt = list(b"The capital")

    @contextmanager
    def served(model: PreTrainedModel, adapter: Adapter) -> Iterator[str]:
        to_gguf(model, adapter, source, file := tmp_path / "edited.gguf")
        params = xllamacpp.CommonParams()
        params.model.path, params.n_ctx, params.n_parallel, params.warmup = str(file), 256, 1, False
        params.cpuparams.n_threads = 1
        server = xllamacpp.Server(params)
        yield server.listening_address
        del server
        file.unlink()

    def share_of_high_tokens(address: str, tokenizer: PreTrainedTokenizerBase) -> float:
        body = {"prompt": prompt, "n_predict": 12, "temperature": 0, "ignore_eos": True, "return_tokens": True}
        with urlopen(Request(f"{address}/completion", json.dumps(body).encode())) as answer:
            return sum(token > 128 for token in json.load(answer)["tokens"]) / 12

    config = TaRotConfig("openings", objective="model", layers=(3,), bound=1.5, search="random", seed=1)
    adapter = tune(model, byte_tokenizer(), config, budget=4, objective=share_of_high_tokens, serve=served)
    with adapter.apply(model):
        tokens = model.generate(torch.tensor([prompt]), max_new_tokens=12, min_new_tokens=12, do_sample=False)
    assert adapter.provenance["scores"]["best"] == sum(int(token) > 128 for token in tokens[0, len(prompt) :]) / 12
    assert adapter.provenance["scores"]["best"] >= adapter.provenance["scores"]["identity"]
