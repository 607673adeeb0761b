"""Text generation: the seed decides what is sampled, and batches change nothing."""

import torch
from test_generated import OPTIONS, PROMPTS, lettered

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
