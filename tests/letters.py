"""A random model that writes letters, prompts for it, and planted rewards whose direction is known."""

import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
import torch
from checkpoint import byte_model, byte_tokenizer

from tarot.models.lm_eval_model import TarotLM
from tarot.models.loaded_model import LoadedModel

PROMPTS = ("is it red? ", "was it? ", "and the actors, all of them, ")


@cache
def lettered() -> TarotLM:
    """Return a random model that writes only lower-case letters and spaces, one token each."""
    tokenizer = byte_tokenizer()
    model = byte_model()
    letters = tokenizer("abcdefghijklmnopqrstuvwxyz ").input_ids
    bias = torch.full((258,), -1e4)
    bias[letters] = 0.0
    model.get_output_embeddings().bias = torch.nn.Parameter(bias, requires_grad=False)
    return TarotLM(model, tokenizer=tokenizer)


def vowels(prompts: Sequence[str], continuations: Sequence[str]) -> list[float]:
    """Score texts by a planted reward, the fraction of vowels."""
    return [sum(text.count(v) for v in "aeiou") / max(len(text), 1) for text in continuations]


def plant_rewards(folder: Path, monkeypatch: pytest.MonkeyPatch) -> LoadedModel:
    """Write the module `planted`, whose rewards are each other's opposite, make it importable, and return the model."""
    (folder / "planted.py").write_text(
        "def vowels(prompts, continuations):\n"
        "    return [sum(t.count(v) for v in 'aeiou') / max(len(t), 1) for t in continuations]\n"
        "def consonants(prompts, continuations):\n    return [1 - v for v in vowels(prompts, continuations)]\n"
    )
    monkeypatch.chdir(folder)
    monkeypatch.delitem(sys.modules, "planted", raising=False)  # of another test of this process
    return LoadedModel("letters", lettered().model, lettered().tokenizer)
