"""The documents that an edit turns right or wrong, and the next tokens whose probability it moved there."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tarot.analysis.prompts import answer_of, next_log_probabilities
from tarot.edit.adapter import Adapter
from tarot.objectives.answers import Encode
from tarot.objectives.samples import Sample


@dataclass(frozen=True)
class TokenChange:
    """One token of the vocabulary as the first of the answer: log-probabilities in nats, without and with the edit."""

    id: int
    text: str
    base: float
    edited: float


@dataclass(frozen=True)
class Flip:
    """A document that one of base and edited answers right, greedily, and the other wrong.

    `base` and `edited` are their answers as choices (OUTSIDE for none of them); `moved` holds the right answer's first
    token and those whose probability moved furthest, furthest first.
    """

    document: int
    gained: bool
    gold: int
    base: int
    edited: int
    moved: tuple[TokenChange, ...]


def flips(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    adapter: Adapter,
    samples: Sequence[Sample],
    encode: Encode,
    base: Sequence[int],
    edited: Sequence[int],
    n_tokens: int = 6,
) -> list[Flip]:
    """Every document that flipped, in order; `n_tokens` tokens of each beside the right one.

    `base` and `edited` are the answers to the samples without and with the edit, OUTSIDE for none of their choices.
    """
    flipped = [i for i, sample in enumerate(samples) if (base[i] == sample.gold) != (edited[i] == sample.gold)]
    if not flipped:
        return []
    requests = [answer_of(samples[i], encode, tokenizer) for i in flipped]
    contexts = [request.context for request in requests]
    before = next_log_probabilities(model, contexts)
    with adapter.apply(model):
        after = next_log_probabilities(model, contexts)
    found = []
    for i, request, old, new in zip(flipped, requests, before, after, strict=True):
        # By probability: in nats, the furthest would be tokens that neither model would ever write.
        furthest = (new.exp() - old.exp()).abs().topk(min(n_tokens, len(old))).indices.tolist()
        tokens = dict.fromkeys([request.continuation[0], *furthest])
        moved = tuple(TokenChange(t, str(tokenizer.decode([t])), float(old[t]), float(new[t])) for t in tokens)
        gained = edited[i] == samples[i].gold
        found.append(Flip(i, gained, samples[i].gold, base[i], edited[i], moved))
    return found


def most_moved(found: Sequence[Flip], n: int = 12) -> list[tuple[str, float, float, int]]:
    """The n tokens that moved furthest over all flips: text, mean log-probabilities (nats), in how many documents.

    Ranked by the sum over documents of how far their probability moved.
    """
    by_token: dict[int, list[TokenChange]] = {}
    for flip in found:
        for moved in flip.moved:
            by_token.setdefault(moved.id, []).append(moved)

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    def distance(moves: list[TokenChange]) -> float:
        ends = torch.tensor([[move.base, move.edited] for move in moves], dtype=torch.float64).exp()
        return float((ends[:, 1] - ends[:, 0]).abs().sum())

    ranked = sorted(by_token.values(), key=distance, reverse=True)[:n]
    return [(m[0].text, mean([x.base for x in m]), mean([x.edited for x in m]), len(m)) for m in ranked]
