"""Documents that an edit turns right or wrong, and the next tokens whose probability it changed there."""

from collections.abc import Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tarot.analysis.prompt_batches import answer_request, next_log_probabilities
from tarot.analysis.results import Flip, TokenChange
from tarot.edit.adapter import Adapter
from tarot.evaluation.changes import changed_rows
from tarot.objectives.answers import Encode
from tarot.objectives.samples import Sample


def find_flips(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    adapter: Adapter,
    samples: Sequence[Sample],
    encode: Encode,
    base: Sequence[int],
    edited: Sequence[int],
    n_tokens: int = 6,
) -> list[Flip]:
    """Return the documents that flipped, in their order.

    Args:
        model: a causal language model, unedited.
        tokenizer: its tokenizer.
        adapter: the edit.
        samples: the documents.
        encode: turns prompt and answer into tokens.
        base: greedy answers of the unedited model, OUTSIDE for text that is no choice.
        edited: greedy answers of the edited model, likewise.
        n_tokens: tokens of each flip besides the right answer's first.
    """
    changes = changed_rows([sample.gold for sample in samples], base, edited)
    rows = sorted([*changes.fixed, *changes.broken])
    if not rows:
        return []
    requests = [answer_request(samples[row], encode, tokenizer) for row in rows]
    contexts = [request.context for request in requests]
    before = next_log_probabilities(model, contexts)
    with adapter.apply(model):
        after = next_log_probabilities(model, contexts)
    flips = []
    for row, request, old, new in zip(rows, requests, before, after, strict=True):
        # Rank by probability. In nats, the largest changes are of tokens that neither model would ever write.
        changed_most = (new.exp() - old.exp()).abs().topk(min(n_tokens, len(old))).indices.tolist()
        tokens = dict.fromkeys([request.continuation[0], *changed_most])
        moved = tuple(TokenChange(t, str(tokenizer.decode([t])), float(old[t]), float(new[t])) for t in tokens)
        sample = samples[row]
        prompt = sample.pairs[sample.gold][0]
        fixed = edited[row] == sample.gold
        flips.append(Flip(row, sample.id, prompt, fixed, sample.gold, base[row], edited[row], moved))
    return flips
