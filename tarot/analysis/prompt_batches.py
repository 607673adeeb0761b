"""Batches of prompts, padded on the right, and the next token's log-probabilities after each.

Padding on the right needs no mask: with causal attention it does not reach the positions that are read.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tarot.edit.gate import decide_for
from tarot.edit.rope import constant_rope_length, initial_rope, pass_group
from tarot.errors import TarotError
from tarot.models.scoring.scorer import Request, predictions_at
from tarot.objectives.answers import Encode
from tarot.objectives.tasks.samples import Sample

# Elements of the largest tensor of a pass, the logits that are kept: 128 MB in float32.
MAX_LOGITS = 2**25
MAX_TOKENS = 4096
"""Tokens of a pass, padding included."""


def answer_request(sample: Sample, encode: Encode, tokenizer: PreTrainedTokenizerBase) -> Request:
    """Return prompt and right answer as tokens; the answer starts with its first token that is not blank.

    lm-eval counts white space at the end of a prompt, such as the newline of a chat template, to the answer. Every
    model predicts it, so it is moved to the prompt.

    Raises:
        TarotError: the answer has no tokens.
    """
    context, answer = encode(*sample.pairs[sample.gold])
    if not answer:
        raise TarotError(f"The right answer of {sample.id}, {sample.pairs[sample.gold][1]!r}, has no tokens.")
    blank = next((i for i, token in enumerate(answer) if str(tokenizer.decode([token])).strip()), 0)
    return Request((*context, *answer[:blank]), tuple(answer[blank:]))


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


@torch.no_grad()
def next_log_probabilities(model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> Float[Tensor, "prompt token"]:
    """Return log p(token | prompt) of every token of the vocabulary, in nats."""
    rows: dict[int, Tensor] = {}
    for batch in prompt_batches(model, prompts):
        with (
            initial_rope(model),
            decide_for(model, batch.prompts),
            predictions_at(model, batch.rows, batch.last),
        ):
            logits = model(input_ids=batch.ids, use_cache=False).logits[0]
        rows.update(zip(batch.indices, logits.float().log_softmax(-1).cpu(), strict=True))
    return torch.stack([rows[index] for index in range(len(prompts))])
