"""Soft prompts: embeddings of real tokens in front equal these tokens, in every kind of pass."""

from functools import cache

import pytest
import torch
from checkpoint import byte_model
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import ARCHITECTURES, tiny_model, tokens
from transformers import PreTrainedModel

from tarot.errors import ShapeMismatch, TarotError
from tarot.evaluation.baselines.prompt_tuning import SoftPrompt
from tarot.models.scoring.scorer import Request, Scorer

pytestmark = pytest.mark.usefixtures("no_gradients")
model_of_bytes = cache(byte_model)
# Its layers embed the tokens again, each by a table of its own.
OTHER_INPUTS = ("gemma4_text",)
sequences = st.lists(st.integers(3, 250), min_size=1, max_size=9).map(tuple)


def soft_prompt(model: PreTrainedModel, ids: tuple[int, ...]) -> SoftPrompt:
    with torch.no_grad():
        return SoftPrompt(model.get_input_embeddings()(torch.tensor(ids)).clone())


@given(front=sequences, pairs=st.lists(st.tuples(sequences, sequences), min_size=1, max_size=5))
@settings(max_examples=30)
def test_scores_are_those_of_the_tokens_in_front(
    front: tuple[int, ...], pairs: list[tuple[tuple[int, ...], tuple[int, ...]]]
) -> None:
    model = model_of_bytes()
    requests = [Request(*pair) for pair in pairs]
    with soft_prompt(model, front).apply(model):
        found, greedy = Scorer(model, requests).log_probabilities()
    longer = [Request(front + request.context, request.continuation) for request in requests]
    expected, expected_greedy = Scorer(model, longer).log_probabilities()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(greedy, expected_greedy)


@pytest.mark.parametrize("architecture", sorted(set(ARCHITECTURES) - set(OTHER_INPUTS)))
def test_logits_are_those_of_the_tokens_in_front(architecture: str) -> None:
    model, ids = tiny_model(architecture), tokens(2, 9)
    front = (5, 9, 4)
    before = model(ids).logits
    with soft_prompt(model, front).apply(model):
        found = model(ids).logits
        masked = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    expected = model(torch.cat([torch.tensor(front).expand(2, -1), ids], dim=1)).logits[:, 3:]
    near = dict(atol=2e-5 * float(expected.abs().max().clamp(min=1)), rtol=0)
    torch.testing.assert_close(found, expected, **near)
    torch.testing.assert_close(masked, expected, **near)
    assert torch.equal(model(ids).logits, before) and not torch.equal(found, before)


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "gpt2"])
def test_generated_texts_are_those_of_the_tokens_in_front(architecture: str) -> None:
    """Padding on the left stands between the soft prompt and a short prompt, and counts for no position."""
    model, front = tiny_model(architecture), (5, 9, 4)
    ids, mask = tokens(2, 9), torch.ones(2, 9, dtype=torch.long)
    mask[1, :4], ids[1, :4] = 0, 0
    options = dict(max_new_tokens=6, do_sample=False, eos_token_id=None)
    with soft_prompt(model, front).apply(model):
        found = model.generate(input_ids=ids, attention_mask=mask, **options)[:, 9:]
    for row in range(2):
        own = torch.cat([torch.tensor(front), ids[row][mask[row] == 1]])[None]
        expected = model.generate(input_ids=own, attention_mask=torch.ones_like(own), **options)[:, own.shape[1] :]
        assert found[row].tolist() == expected[0].tolist()


def test_a_soft_prompt_must_fit_the_model() -> None:
    model = tiny_model("llama")
    vectors = torch.zeros(4, model.config.hidden_size)
    with pytest.raises(ShapeMismatch), SoftPrompt(vectors[:, 1:]).apply(model):
        pass
    most = model.config.max_position_embeddings - 4
    with SoftPrompt(vectors).apply(model):
        model(tokens(1, most))
        with pytest.raises(TarotError, match=f"at most {most} tokens"):
            model(tokens(1, most + 1))
        with pytest.raises(TarotError, match="embeddings"):
            model(inputs_embeds=torch.zeros(1, 3, model.config.hidden_size))
