"""Batches of prompts against one prompt at a time."""

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_model, tokens

from tarot.analysis.next_tokens import answer_request, next_log_probabilities
from tarot.edit.prompt_batches import prompt_batches
from tarot.models.lm_eval_model import TarotLM
from tarot.models.loaded_model import LoadedModel
from tarot.objectives.tasks.samples import Sample

PROMPTS = [tuple(tokens(1, length, seed=length)[0].tolist()) for length in (7, 3, 11, 7, 1)]


@pytest.mark.parametrize(
    ("prompt", "answer", "context", "first"),
    [("<assistant>\n", "yes", "<assistant>\n", "yes"), ("A:", " yes", "A: ", "yes"), ("Q", " \n", "Q", " \n")],
)
def test_white_space_belongs_to_the_prompt(
    loaded: LoadedModel, prompt: str, answer: str, context: str, first: str
) -> None:
    """A lens on the line end of a chat template would see what every model knows."""
    encode = TarotLM(loaded.model, tokenizer=loaded.tokenizer).encode
    request = answer_request(Sample("test/0", "a", (("", "no"), (prompt, answer)), 1, 0), encode, loaded.tokenizer)
    assert (loaded.tokenizer.decode(request.context), loaded.tokenizer.decode(request.continuation)) == (context, first)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(1, 500_000))
@settings(max_examples=50)
def test_batches_contain_each_prompt_once(lengths: list[int], logits_each: int) -> None:
    model = tiny_llama()
    prompts = [list(range(n)) for n in lengths]
    rows = {}
    for batch in prompt_batches(model, prompts, logits_each):
        for index, row, last in zip(batch.indices, batch.ids.tolist(), batch.last.tolist(), strict=True):
            assert index not in rows
            rows[index] = row[: last + 1]
    assert [rows[i] for i in range(len(prompts))] == prompts


tiny_llama = cache(lambda: tiny_model("llama"))


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2", "qwen3_next"])
def test_next_log_probabilities_equal_those_of_single_prompts(architecture: str) -> None:
    model = tiny_model(architecture)
    with torch.no_grad():
        oracle = [model(torch.tensor([p])).logits[0, -1].log_softmax(-1) for p in PROMPTS]
    torch.testing.assert_close(next_log_probabilities(model, PROMPTS), torch.stack(oracle), atol=1e-4, rtol=0)
