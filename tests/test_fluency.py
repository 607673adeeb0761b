"""Fluency: a slow oracle, texts that are too long, and the floor's two spellings."""

import math
from functools import cache

import pytest
import torch
from checkpoint import byte_model
from hypothesis import given, settings
from hypothesis import strategies as st

from tarot.errors import TarotError
from tarot.objectives.rewards.fluency import Fluency, FluencyFloor
from tarot.objectives.rewards.registry import make_reward

END = 1


def encode(context: str, continuation: str) -> tuple[list[int], list[int]]:
    return [b + 2 for b in context.encode()], [b + 2 for b in continuation.encode()]


@cache
def fluency() -> Fluency:
    return Fluency(byte_model(), encode, END)


@given(st.lists(st.tuples(st.text("ab ", min_size=1, max_size=5), st.text("abc", max_size=6)), min_size=1, max_size=4))
@settings(max_examples=20)
def test_fluency_agrees_with_the_oracle(pairs: list[tuple[str, str]]) -> None:
    """One text at a time, unbatched and without a cache."""
    prompts, texts = zip(*pairs, strict=True)
    for value, prompt, text in zip(fluency()(prompts, texts), prompts, texts, strict=True):
        context, tokens = encode(prompt, text)
        tokens = tokens or [END]
        logits = fluency().model(torch.tensor([context + tokens])).logits[0].log_softmax(-1)
        steps = [float(logits[len(context) - 1 + i, token]) for i, token in enumerate(tokens)]
        assert value == pytest.approx(sum(steps) / len(steps), abs=1e-4)


def test_a_text_too_long_loses_the_beginning_of_its_prompt() -> None:
    """lm-eval cuts prompts from the left when it generates; fluency does the same."""
    longest = fluency().model.config.max_position_embeddings
    prompt = "ab" * longest
    (whole,) = fluency()([prompt], ["cab"])
    request = fluency().request(prompt, "cab")
    assert len(request.context) + len(request.continuation) - 1 == longest
    (cut,) = fluency()([prompt[-len(request.context) :]], ["cab"])
    assert whole == pytest.approx(cut)
    assert len(fluency().request("a", "b" * 2 * longest).continuation) == longest


def test_the_models_own_greedy_text_is_the_most_fluent() -> None:
    context, _ = encode("so", "")
    best = int(fluency().model(torch.tensor([context])).logits[0, -1].argmax())
    everything = fluency()(["so"] * 128, [chr(i) for i in range(128)])
    assert max(everything) == everything[best - 2] if best - 2 < 128 else max(everything) < 0
    assert make_reward("fluency", fluency()) == fluency()


@given(st.floats(-9, -0.1), st.floats(0, 5))
def test_a_floor_is_below_the_base(base: float, amount: float) -> None:
    assert FluencyFloor.parse(str(amount)).minimum(base) == base - amount
    assert FluencyFloor.parse(f"{amount}%").minimum(base) == pytest.approx(base - abs(base) * amount / 100)
    assert FluencyFloor.parse(None).minimum(base) == -math.inf


@pytest.mark.parametrize("text", ["", "%", "-1", "nan", "inf", "1e999%", "ten"])
def test_a_malformed_floor_is_an_error(text: str) -> None:
    with pytest.raises(TarotError, match="fluency floor"):
        FluencyFloor.parse(text)
