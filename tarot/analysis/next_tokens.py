"""Prompts with their right answers as tokens, and the next token's log-probabilities after a prompt."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tarot.errors import TarotError
from tarot.models.scoring.scorer import Request, Scorer
from tarot.objectives.answers import Encode
from tarot.objectives.tasks.samples import Sample


def answer_request(sample: Sample, encode: Encode, tokenizer: PreTrainedTokenizerBase) -> Request:
    """Return prompt and right answer as tokens; the answer starts with its first token that is not blank.

    lm-eval treats trailing white space of a prompt, such as the newline of a chat template, as part of the answer.
    Every model predicts it, so it is moved to the prompt.

    Raises:
        TarotError: the answer has no tokens.
    """
    context, answer = encode(*sample.pairs[sample.gold])
    if not answer:
        raise TarotError(f"The right answer of {sample.id}, {sample.pairs[sample.gold][1]!r}, has no tokens.")
    blank = next((i for i, token in enumerate(answer) if str(tokenizer.decode([token])).strip()), 0)
    return Request((*context, *answer[:blank]), tuple(answer[blank:]))


@torch.no_grad()
def next_log_probabilities(model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> Float[Tensor, "prompt token"]:
    """Return log p(token | prompt) of every token of the vocabulary, in nats."""
    rows: dict[int, Tensor] = {}
    for indices, logits in Scorer(model, [Request(tuple(prompt), (0,)) for prompt in prompts]).logits():
        rows.update(zip(indices, logits.float().log_softmax(-1).cpu(), strict=True))
    return torch.stack([rows[index] for index in range(len(prompts))])
