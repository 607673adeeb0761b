"""Text streams: chunks change nothing, streams of one model take turns, and texts end where they should."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from checkpoint import byte_model, byte_tokenizer
from edits import EVERY
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_model, tokens

from tarot.models.generation.text_stream import TextStream


class Numbers:
    """A tokenizer that shows token ids."""

    eos_token_id = None

    def decode(self, ids: list[int], **_: Any) -> str:
        return " ".join(map(str, ids))


def texts_of(stream: TextStream) -> Iterator[str]:
    while not stream.is_finished:
        stream.advance()
        yield stream.text


def written(model: Any, prompt: list[int], n: int) -> list[int]:
    stream = TextStream(model, Numbers(), prompt, max_new_tokens=n)
    list(texts_of(stream))
    return stream.tokens


def greedy(model: Any, prompt: list[int], n: int) -> list[int]:
    """Choose the likeliest token n times, each from a pass over the whole text."""
    ids = torch.tensor([prompt])
    for _ in range(n):
        best = model(ids, use_cache=False).logits[:, -1:].argmax(-1)
        ids = torch.cat([ids, best], dim=1)
        if best.item() == model.generation_config.eos_token_id:
            break
    return ids[0, len(prompt) :].tolist()


@EVERY
@pytest.mark.usefixtures("no_gradients")
def test_chunks_write_what_one_pass_a_token_writes(architecture: str) -> None:
    model = tiny_model(architecture)
    prompt = tokens(1, 7)[0].tolist()
    assert written(model, prompt, 9) == greedy(model, prompt, 9)


MODEL, TOKENIZER = byte_model(), byte_tokenizer()


@settings(max_examples=25)
@given(st.text(min_size=1, max_size=20), st.integers(1, 12))
def test_a_text_grows_to_the_length_that_was_asked_for(prompt: str, n: int) -> None:
    tokenizer = TOKENIZER
    stream = TextStream(MODEL, tokenizer, tokenizer(prompt)["input_ids"], max_new_tokens=n)
    texts = list(texts_of(stream))
    assert all(longer.startswith(shorter) for shorter, longer in pairwise(texts))
    assert len(stream.tokens) == n or stream.tokens[-1] == tokenizer.eos_token_id
    assert texts[-1] == stream.text == tokenizer.decode(stream.tokens, skip_special_tokens=True)


def test_streams_of_one_model_take_turns() -> None:
    model = tiny_model("llama")
    prompts = [tokens(1, 7, seed=seed)[0].tolist() for seed in range(2)]
    streams = [TextStream(model, Numbers(), prompt, max_new_tokens=9) for prompt in prompts]
    while not all(stream.is_finished for stream in streams):
        for stream in streams:
            stream.advance()
    assert [stream.tokens for stream in streams] == [written(model, prompt, 9) for prompt in prompts]
    before = streams[0].tokens
    streams[0].advance()
    assert streams[0].tokens == before


def test_a_stop_text_ends_the_text_and_is_left_out() -> None:
    model, prompt = tiny_model("llama"), tokens(1, 7)[0].tolist()
    everything = " ".join(map(str, written(model, prompt, 9)))
    stop = everything.split()[5]
    stream = TextStream(model, Numbers(), prompt, max_new_tokens=9, until=["nowhere", stop])
    list(texts_of(stream))
    assert stream.text == everything[: everything.index(stop)] and stream.is_finished


def test_the_end_token_ends_the_text() -> None:
    model, prompt = tiny_model("llama"), tokens(1, 7)[0].tolist()
    everything = written(model, prompt, 9)
    model.generation_config.eos_token_id = [everything[4], 60]
    assert written(model, prompt, 9) == everything[: everything.index(everything[4]) + 1]


@given(st.integers(0, 9))
@settings(max_examples=5)
@pytest.mark.usefixtures("no_gradients")
def test_a_text_ends_where_the_model_computes_no_number(place: int) -> None:
    """The embedding of one of the tokens that the model writes becomes NaN; nothing after that token is written."""
    model, prompt = byte_model(), TOKENIZER("item").input_ids
    whole = written(model, prompt, 10)
    token = whole[place % len(whole)]
    model.get_input_embeddings().weight[token] = torch.nan
    stream = TextStream(model, Numbers(), prompt, max_new_tokens=10)
    list(texts_of(stream))
    left = whole[: 0 if token in prompt else whole.index(token) + 1]
    assert (stream.tokens, stream.is_broken) == (left, len(left) < len(whole))
