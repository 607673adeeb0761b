"""Batches of prompts of similar length, padded on the right.

With causal attention such padding does not reach the positions that are read, so most passes need no mask.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedModel

from tarot.edit.rope import constant_rope_length, pass_group

MAX_LOGITS = 2**25
"""Logits that a pass keeps, its largest tensor: 128 MB in float32."""
MAX_TOKENS = 4096
"""Tokens of a pass, padding included."""


class PromptBatch(NamedTuple):
    """Prompts of one pass.

    Attributes:
        indices: which of the prompts are in the pass.
        ids: their tokens, padded on the right.
        rows: 0 to b - 1.
        last: position of each prompt's last token.
        prompts: their tokens without padding.
    """

    indices: list[int]
    ids: Int[Tensor, "b s"]
    rows: Int[Tensor, " b"]
    last: Int[Tensor, " b"]
    prompts: list[Sequence[int]]


def prompt_batches(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], logits_per_prompt: int = 1
) -> Iterator[PromptBatch]:
    """Yield the prompts in batches of similar length.

    Args:
        model: a causal language model.
        prompts: tokens.
        logits_per_prompt: how many rows of logits the caller keeps of each prompt; more of them make batches smaller.
    """
    max_rows = len(prompts)
    if logits_per_prompt:
        vocabulary = model.get_output_embeddings().weight.shape[0]
        max_rows = max(1, MAX_LOGITS // (logits_per_prompt * vocabulary))
    constant = constant_rope_length(model)
    groups = [pass_group(len(prompt), constant) for prompt in prompts]
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    while order:
        # The longest prompt of a batch is its last, which sets the width.
        n_same_group = sum(groups[index] == groups[order[0]] for index in order)
        sizes = range(min(max_rows, n_same_group), 1, -1)
        n = next((n for n in sizes if n * len(prompts[order[n - 1]]) <= MAX_TOKENS), 1)
        indices, order = order[:n], order[n:]
        width = len(prompts[indices[-1]])
        own = [prompts[index] for index in indices]
        ids = [[*prompt, *[prompt[-1]] * (width - len(prompt))] for prompt in own]
        last = torch.tensor([len(prompt) - 1 for prompt in own])
        yield PromptBatch(indices, torch.tensor(ids, device=model.device), torch.arange(len(indices)), last, own)
