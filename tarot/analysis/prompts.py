"""Prompts side by side: of like length, padded on the right, the last position of each kept in sight.

Padding on the right needs no mask: causal attention keeps it from every position that is read.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tarot.errors import TarotError
from tarot.models.scoring.rope import constant_rope_length, pass_group
from tarot.models.scoring.scorer import Request, predictions_at
from tarot.objectives.answers import Encode
from tarot.objectives.samples import Sample

# Numbers of one pass's largest tensor, the logits that are kept: 128 MB in float32.
LARGEST = 2**25
TOKENS = 4096


def answer_of(sample: Sample, encode: Encode, tokenizer: PreTrainedTokenizerBase) -> Request:
    """Tokens of the prompt and of the right answer, which begins with its first token that is not blank.

    The harness counts white space at a prompt's end, such as the line end of a chat template, to the answer. Any model
    predicts that token: what it says of the answer, it says at the next one.
    """
    context, answer = encode(*sample.pairs[sample.gold])
    if not answer:
        raise TarotError("answers that have tokens", f"none in {sample.id}, answer {sample.pairs[sample.gold][1]!r}")
    blank = next((i for i, token in enumerate(answer) if str(tokenizer.decode([token])).strip()), 0)
    return Request((*context, *answer[:blank]), tuple(answer[blank:]))


class Batch(NamedTuple):
    """Prompts of one pass: their places in the list, their tokens, and where in these each one's last token is."""

    places: list[int]
    ids: Int[Tensor, "b s"]
    rows: Int[Tensor, " b"]
    last: Int[Tensor, " b"]


def batches(model: PreTrainedModel, prompts: Sequence[Sequence[int]], logits_each: int = 1) -> Iterator[Batch]:
    """Passes over all prompts; `logits_each` rows of the vocabulary are kept of each prompt."""
    vocabulary = model.get_output_embeddings().weight.shape[0]
    most = max(1, LARGEST // (logits_each * vocabulary))
    constant = constant_rope_length(model)
    groups = [pass_group(len(prompt), constant) for prompt in prompts]
    order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
    while order:
        # The longest comes last, so that it says how wide the pass is.
        alike = sum(groups[place] == groups[order[0]] for place in order)
        n = next((n for n in range(min(most, alike), 1, -1) if n * len(prompts[order[n - 1]]) <= TOKENS), 1)
        places, order = order[:n], order[n:]
        width = len(prompts[places[-1]])
        ids = [[*prompts[place], *[prompts[place][-1]] * (width - len(prompts[place]))] for place in places]
        last = torch.tensor([len(prompts[place]) - 1 for place in places])
        yield Batch(places, torch.tensor(ids, device=model.device), torch.arange(len(places)), last)


@torch.no_grad()
def next_log_probabilities(model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> Float[Tensor, "prompt token"]:
    """log p(token | prompt) of every token of the vocabulary, in nats."""
    found: dict[int, Tensor] = {}
    for batch in batches(model, prompts):
        with predictions_at(model, batch.rows, batch.last):
            logits = model(input_ids=batch.ids, use_cache=False).logits[0]
        found.update(zip(batch.places, logits.float().log_softmax(-1).cpu(), strict=True))
    return torch.stack([found[place] for place in range(len(prompts))])
