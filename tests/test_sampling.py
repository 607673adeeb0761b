"""Sampling texts: against one row at a time without a cache, in every architecture."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import ARCHITECTURES, VOCABULARY, tiny_model

from tarot.models.generation.sampling import Sampler, Stops

CONTEXTS = ([5, 6, 7, 8, 9, 10], [11], [12, 13, 14])


def decode(tokens: tuple[int, ...]) -> str:
    return " ".join(map(str, tokens))


STOPS = Stops(max_tokens=7, end_tokens=frozenset(range(3, 12)), strings=(" 30", "41"), decode=decode)


def plain_sample(model: torch.nn.Module, n_draws: int, seed: int) -> list[list[tuple[int, ...]]]:
    """Sample one text at a time, without a cache, from the same table of random numbers."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.rand((len(CONTEXTS), n_draws, STOPS.max_tokens), generator=generator, dtype=torch.float64)
    texts: list[list[tuple[int, ...]]] = [[] for _ in CONTEXTS]
    for i, context in enumerate(CONTEXTS):
        for draw in range(n_draws):
            written: list[int] = []
            while len(written) < STOPS.max_tokens:
                with torch.no_grad():
                    logits = model(torch.tensor([[*context, *written]]), use_cache=False).logits[0, -1]
                cumulative = logits.float().softmax(-1).double().cumsum(-1)
                number = numbers[i, draw, len(written)] * cumulative[-1]
                written.append(int((cumulative <= number).sum()))
                if written[-1] in STOPS.end_tokens or any(stop in decode(tuple(written)) for stop in STOPS.strings):
                    break
            texts[i].append(tuple(written))
    return texts


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_draws_are_those_of_one_row_at_a_time(architecture: str) -> None:
    model = tiny_model(architecture)
    drawn = Sampler(model, CONTEXTS, STOPS).sample(3, seed=1)
    assert [[text.tokens for text in texts] for texts in drawn] == plain_sample(model, 3, seed=1)


@given(st.integers(0, 2**40), st.integers(1, 9))
@settings(max_examples=8, deadline=None)
def test_the_batch_size_does_not_change_the_draws(seed: int, batch_size: int) -> None:
    model = tiny_model("llama")
    whole, parts = (Sampler(model, CONTEXTS, STOPS, size).sample(3, seed) for size in (None, batch_size))
    assert [[text[:2] for text in texts] for texts in whole] == [[text[:2] for text in texts] for texts in parts]


def test_log_probabilities_are_the_models() -> None:
    model = tiny_model("gemma3_text")
    for context, texts in zip(CONTEXTS, Sampler(model, CONTEXTS, STOPS).sample(3, seed=2), strict=True):
        for text in texts:
            ids = torch.tensor([[*context, *text.tokens]])
            with torch.no_grad():
                steps = model(ids).logits[0, len(context) - 1 : -1].log_softmax(-1)
            expected = steps.gather(1, torch.tensor(text.tokens)[:, None])[:, 0]
            assert torch.allclose(torch.tensor(text.log_probabilities), expected, atol=1e-4)


def test_tokens_have_the_models_probabilities() -> None:
    model, n = tiny_model("llama"), 4000
    texts = Sampler(model, [[5, 6]], Stops(1, frozenset(), (), decode)).sample(n, seed=0)[0]
    counts = Counter(text.tokens[0] for text in texts)
    with torch.no_grad():
        expected = model(torch.tensor([[5, 6]])).logits[0, -1].softmax(-1)
    observed = torch.tensor([counts[token] / n for token in range(VOCABULARY)])
    assert float((observed - expected).abs().sum() / 2) < 0.06  # total variation; about .05 is expected of noise


def test_a_text_ends_before_its_stop() -> None:
    (texts,) = Sampler(tiny_model("llama"), [[5]], STOPS).sample(200, seed=0)
    stopped = [text for text in texts if text.tokens[-1] in (30, 41) and len(text.tokens) > 1]
    assert stopped
    for text in stopped:
        assert not any(stop in text.text for stop in STOPS.strings)
        assert decode(text.tokens).startswith(text.text)
    assert all(len(text.tokens) <= STOPS.max_tokens for text in texts)
