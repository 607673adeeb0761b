"""Text generation: the seed decides what is sampled, and batches change nothing."""

import pytest
import torch
from checkpoint import byte_model, byte_tokenizer
from test_generated import OPTIONS, PROMPTS, lettered

from tarot.errors import TarotError
from tarot.models.lm_eval_model import TarotLM
from tarot.objectives.text_generation import TextGenerator, fork_torch_seed


def test_a_seed_decides_what_is_sampled() -> None:
    options = OPTIONS | {"do_sample": True, "temperature": 1.0, "max_gen_toks": 12}
    generator = TextGenerator(lettered(), PROMPTS, options)
    assert generator.generate(3) == generator.generate(3) != generator.generate(4)
    assert all(len(text) <= 12 for text in generator.generate(3))
    with fork_torch_seed(3):
        first = torch.rand(1)
    with fork_torch_seed(3):
        assert torch.equal(torch.rand(1), first)


def test_batches_change_nothing() -> None:
    lm = lettered()
    one, all_at_once = (TextGenerator(lm, PROMPTS, OPTIONS, size).generate(0) for size in (1, None))
    assert one == all_at_once


def test_prompts_that_lose_their_beginning_are_counted_once(caplog: pytest.LogCaptureFixture) -> None:
    """The prompt and the longest text together may fill the context, and no more."""
    lm = TarotLM(byte_model(max_length=32), tokenizer=byte_tokenizer())
    generator = TextGenerator(lm, ["a" * 29, "a" * 28, "a"], {"until": [], "max_gen_toks": 4, "do_sample": False})
    assert generator.generate(0) == generator.generate(0)
    (message,) = (record.getMessage() for record in caplog.records if "first tokens" in record.getMessage())
    assert message.startswith("1 of 3 prompts")
    with pytest.raises(TarotError, match="max_gen_toks"):
        generator.generate(0, {"max_gen_toks": 32})
