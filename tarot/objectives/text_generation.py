"""Text generation: continuations of fixed prompts, by lm-eval's own batched generation."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from types import MappingProxyType
from typing import Any

import torch
from lm_eval.api.instance import Instance

from tarot.models.lm_eval_model import TarotLM

BATCH_SIZE = 32  # prompts of one forward pass by default
NO_OVERRIDES: Mapping[str, Any] = MappingProxyType({})


class TextGenerator:
    """Generate continuations of fixed prompts with a model as it stands.

    Args:
        lm: the model.
        prompts: the prompts as the model sees them, chat template and all.
        options: the task's `generation_kwargs`: length, stops, sampling.
        batch_size: largest number of prompts in one forward pass; None for the default.

    Example:
        >>> lm = TarotLM(model, tokenizer=tokenizer)
        >>> generator = TextGenerator(lm, ["It is"], {"until": [], "max_gen_toks": 5, "do_sample": False})
        >>> generator.generate(seed=0) == generator.generate(seed=0)
        True
    """

    def __init__(
        self, lm: TarotLM, prompts: Sequence[str], options: Mapping[str, Any], batch_size: int | None = None
    ) -> None:
        self.lm = TarotLM(lm.model, tokenizer=lm.tokenizer, batch_size=batch_size or min(BATCH_SIZE, len(prompts)))
        self.prompts = prompts
        self.options = options

    def generate(self, seed: int, overrides: Mapping[str, Any] = NO_OVERRIDES, *, shows_bar: bool = False) -> list[str]:
        """Generate one continuation of each prompt.

        Args:
            seed: random seed for sampling.
            overrides: replaces entries of the generator's options.
            shows_bar: draw lm-eval's progress bar, or report it where `bars_as_steps` is in force.
        """
        options = {**self.options, **overrides}
        requests = [Instance("generate_until", {}, (prompt, deepcopy(options)), 0) for prompt in self.prompts]
        with fork_torch_seed(seed):
            return [str(text) for text in self.lm.generate_until(requests, disable_tqdm=not shows_bar)]


@contextmanager
def fork_torch_seed(seed: int) -> Iterator[None]:
    """Seed torch's generators of every device for the body, and restore them after it."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield
