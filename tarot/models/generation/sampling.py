"""Sample texts from a model: several draws of each prompt, in few and full passes.

The prompts of a batch run once; their keys and values are then repeated for the draws. A row leaves the batch when its
text has ended. Each token takes one number from a table that the seed fills before the first pass, so neither the batch
size nor the other rows decide what a row draws.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from inspect import signature
from math import isinf
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from tarot.edit.rope import constant_rope_length, initial_rope
from tarot.models.scoring.prefix_cache import CACHE, can_share_prefix
from tarot.models.scoring.scorer import AUTO_PASS_LOGITS, AUTO_PASS_TOKENS, out_of_memory


class SampledText(NamedTuple):
    """A sampled continuation.

    Attributes:
        text: the text, without the stop that ended it.
        tokens: all tokens that were sampled, the one that ended the text included.
        log_probabilities: of each token given those before it, in nats.
    """

    text: str
    tokens: tuple[int, ...]
    log_probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Stops:
    """When a text ends.

    Attributes:
        max_tokens: most tokens of a text.
        end_tokens: tokens that end a text.
        strings: texts that end a text and do not belong to it.
        decode: turns tokens into text.
    """

    max_tokens: int
    end_tokens: frozenset[int]
    strings: tuple[str, ...]
    decode: Callable[[Sequence[int]], str]

    def has_ended(self, tokens: Sequence[int]) -> bool:
        """Return whether a text of these tokens has ended."""
        if len(tokens) >= self.max_tokens or tokens[-1] in self.end_tokens:
            return True
        return bool(self.strings) and any(stop in self.decode(tokens) for stop in self.strings)

    def text(self, tokens: Sequence[int]) -> str:
        """Return the text of these tokens, up to the first stop."""
        text = self.decode(tokens)
        for stop in self.strings:
            text = text.partition(stop)[0]
        return text


class Sampler:
    """Sample continuations of fixed prompts at temperature 1 from the whole vocabulary.

    Args:
        model: a causal language model; it is read as it stands at each call.
        contexts: tokens of each prompt, at least one.
        stops: when a text ends.
        batch_size: most rows of one pass, at least the draws of one prompt; None chooses it by memory.

    Example:
        >>> stops = Stops(5, frozenset(), (), tokenizer.decode)
        >>> sampler = Sampler(model, [tokenizer("It is").input_ids], stops)
        >>> texts = sampler.sample(n_draws=3, seed=0)
        >>> len(texts), len(texts[0]), len(texts[0][0].tokens)
        (1, 3, 5)
    """

    def __init__(
        self, model: PreTrainedModel, contexts: Sequence[Sequence[int]], stops: Stops, batch_size: int | None = None
    ) -> None:
        self.model = model
        self.contexts = [list(context) for context in contexts]
        self.stops = stops
        self.batch_size = batch_size
        self._can_share = can_share_prefix(model)
        self._constant_rope = constant_rope_length(model)
        self._takes_positions = "position_ids" in signature(model.forward).parameters

    def sample(self, n_draws: int, seed: int) -> list[list[SampledText]]:
        """Return the texts, by prompt and draw; the same for every batch size, up to rounding.

        Args:
            n_draws: texts of each prompt.
            seed: random seed.
        """
        generator = torch.Generator().manual_seed(seed)
        shape = (len(self.contexts), n_draws, self.stops.max_tokens)
        numbers = torch.rand(shape, generator=generator, dtype=torch.float64)
        texts: list[list[SampledText]] = [[] for _ in self.contexts]
        for prompts in self._batches(n_draws):
            for prompt, drawn in zip(prompts, self._sample_batch(prompts, numbers), strict=True):
                texts[prompt] = drawn
        return texts

    def _batches(self, n_draws: int) -> list[list[int]]:
        """Return the prompts of each batch, prompts of similar length together."""
        order = sorted(range(len(self.contexts)), key=lambda i: len(self.contexts[i]))
        longest = max(map(len, self.contexts)) + self.stops.max_tokens
        vocabulary = self.model.get_output_embeddings().weight.shape[0]
        rows = self.batch_size or min(AUTO_PASS_TOKENS // longest, AUTO_PASS_LOGITS // (4 * vocabulary))
        # Padding would change a text whose rotary embeddings depend on the length, or that has a recurrent state.
        size = max(1, rows // n_draws) if self._can_share and longest <= self._constant_rope else 1
        return [order[begin : begin + size] for begin in range(0, len(order), size)]

    def _sample_batch(self, prompts: list[int], numbers: Float[Tensor, "p d t"]) -> list[list[SampledText]]:
        """Sample the draws of some prompts, in halves where memory runs out."""
        try:
            return self._sample_rows(prompts, numbers)
        except RuntimeError as error:
            if not out_of_memory(error) or len(prompts) == 1:
                raise
        middle = len(prompts) // 2  # outside of the except block, since the error keeps the pass's tensors alive
        return self._sample_batch(prompts[:middle], numbers) + self._sample_batch(prompts[middle:], numbers)

    @torch.no_grad()
    def _sample_rows(self, prompts: list[int], numbers: Float[Tensor, "p d t"]) -> list[list[SampledText]]:
        n_draws = numbers.shape[1]
        device = self.model.device
        width = max(len(self.contexts[i]) for i in prompts)
        padded = [[0] * (width - len(self.contexts[i])) + self.contexts[i] for i in prompts]
        lengths = torch.tensor([len(self.contexts[i]) for i in prompts], device=device)
        ids = torch.tensor(padded, device=device)
        mask = (torch.arange(width, device=device) >= width - lengths[:, None]).long()

        cache = DynamicCache(config=self.model.config) if self._can_share else None
        logits = self._forward(ids, mask, cache).repeat_interleave(n_draws, 0)
        if cache is not None:
            cache.batch_repeat_interleave(n_draws)
        ids, mask = ids.repeat_interleave(n_draws, 0), mask.repeat_interleave(n_draws, 0)
        row_numbers = numbers[prompts].flatten(0, 1)
        texts: list[list[int]] = [[] for _ in row_numbers]
        scores: list[list[float]] = [[] for _ in row_numbers]
        rows = list(range(len(texts)))  # rows of the table that have not ended
        while True:
            log_probabilities = logits.log_softmax(-1)
            chosen = _choose(log_probabilities, row_numbers[rows, len(texts[rows[0]])].to(device))
            chosen_scores = log_probabilities.gather(1, chosen[:, None])[:, 0]
            for row, token, score in zip(rows, chosen.tolist(), chosen_scores.tolist(), strict=True):
                texts[row].append(token)
                scores[row].append(score)
            going_on = [k for k, row in enumerate(rows) if not self.stops.has_ended(texts[row])]
            if not going_on:
                break
            if len(going_on) < len(rows):
                kept = torch.tensor(going_on, device=device)
                rows, ids, mask, chosen = [rows[k] for k in going_on], ids[kept], mask[kept], chosen[kept]
                if cache is not None:
                    cache.batch_select_indices(kept)
            ids = torch.cat([ids, chosen[:, None]], 1)
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
            logits = self._forward(ids if cache is None else ids[:, -1:], mask, cache)
        drawn = [
            SampledText(self.stops.text(tokens), tuple(tokens), tuple(each))
            for tokens, each in zip(texts, scores, strict=True)
        ]
        return [drawn[begin : begin + n_draws] for begin in range(0, len(drawn), n_draws)]

    def _forward(
        self, ids: Int[Tensor, "row token"], mask: Int[Tensor, "row width"], cache: DynamicCache | None
    ) -> Float[Tensor, "row vocabulary"]:
        """Run tokens that follow what the cache holds, and return the logits after the last of them."""
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        inputs: dict[str, Any] = {"position_ids": positions} if self._takes_positions else {}
        if cache is not None:
            inputs[CACHE] = cache
        if "logits_to_keep" in signature(self.model.forward).parameters:
            inputs["logits_to_keep"] = 1
        with nullcontext() if isinf(self._constant_rope) else initial_rope(self.model):
            out = self.model(input_ids=ids, attention_mask=mask, use_cache=cache is not None, **inputs)
        return out.logits[:, -1].float()


def _choose(log_probabilities: Float[Tensor, "row vocabulary"], numbers: Float[Tensor, " row"]) -> Int[Tensor, " row"]:
    """Return the token of each row at which the cumulative probability first exceeds the row's number in [0, 1)."""
    cumulative = log_probabilities.double().exp().cumsum(-1)
    tokens = torch.searchsorted(cumulative, numbers[:, None] * cumulative[:, -1:], right=True)[:, 0]
    return tokens.clamp(max=log_probabilities.shape[-1] - 1)
