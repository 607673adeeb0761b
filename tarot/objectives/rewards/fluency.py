"""Fluency: log-probability per token of generated texts under the unedited model, and how far it may fall."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from tarot.errors import InvalidValueError
from tarot.models.lm_eval_model import TarotLM
from tarot.models.scoring.scorer import Request, Scorer, max_length

# (context, continuation) texts -> their tokens
Encode = Callable[[str, str], tuple[Sequence[int], Sequence[int]]]


class Fluency:
    """Score continuations by the mean over their tokens of log p(token | prompt, previous tokens), in nats.

    This is the negative log perplexity under the model as it stands: call it while the model is unedited. An empty
    continuation counts as the end-of-text token alone.

    Args:
        model: a causal language model.
        encode: turns (prompt, continuation) texts into tokens.
        end_token: the token that ends a text.
        batch_size: largest number of sequences in one forward pass; None for the scorer's default.

    Example:
        >>> fluency = make_fluency(TarotLM(model, tokenizer=tokenizer))
        >>> fluency(["The film was"], [" good"])[0] < 0
        True
    """

    def __init__(self, model: PreTrainedModel, encode: Encode, end_token: int, batch_size: int | None = None) -> None:
        self.model = model
        self.encode = encode
        self.end_token = end_token
        self.batch_size = batch_size

    def __call__(self, prompts: Sequence[str], continuations: Sequence[str]) -> list[float]:
        """Return the fluency of each continuation, in nats per token."""
        requests = [self.request(*pair) for pair in zip(prompts, continuations, strict=True)]
        with torch.no_grad():
            totals, _ = Scorer(self.model, requests, self.batch_size).log_probabilities()
        return [float(total) / len(request.continuation) for total, request in zip(totals, requests, strict=True)]

    def request(self, prompt: str, continuation: str) -> Request:
        """Encode a prompt and the continuation to score.

        A text too long for the model loses the beginning of its context, as it did when it was generated.
        """
        context, tokens = self.encode(prompt, continuation)
        scored = tuple(tokens) or (self.end_token,)
        longest = max_length(self.model)
        if longest and (excess := len(context) + len(scored) - 1 - longest) > 0:
            # Encoding a generated text can give more tokens than were generated, so it may be too long by itself.
            context, scored = context[min(excess, len(context) - 1) :], scored[:longest]
        return Request(tuple(context), scored)


def make_fluency(lm: TarotLM, batch_size: int | None = None) -> Fluency:
    """Return the fluency under an lm-eval model, which must be unedited when it is called.

    Prompts and continuations are encoded separately, as they were generated. lm-eval's encoding of answers would move
    white space from the end of the prompt into the continuation, such as the newline that ends most chat templates.
    """

    def encode(prompt: str, continuation: str) -> tuple[list[int], list[int]]:
        return lm.tok_encode(prompt), lm.tok_encode(continuation, add_special_tokens=False)

    return Fluency(lm.model, encode, lm.eot_token_id, batch_size)


@dataclass(frozen=True)
class FluencyFloor:
    """The lowest fluency that an edit may have, relative to the unedited model's.

    minimum = base - nats, or base * (1 + percent / 100), where the base's fluency is negative.

    Attributes:
        nats: how far the fluency may fall, in nats per token.
        percent: the same as a percentage of the base's log perplexity; overrides `nats` if finite.

    Example:
        >>> FluencyFloor.parse("0.5").minimum(-2.0), FluencyFloor.parse("10%").minimum(-2.0)
        (-2.5, -2.2)
    """

    nats: float = math.inf
    percent: float = math.inf

    @classmethod
    def parse(cls, text: str | None) -> "FluencyFloor":
        """Parse `0.3` (nats per token) or `10%` (of the base's log perplexity); None is no floor.

        Raises:
            TarotError: The text is neither.
        """
        if text is None:
            return cls()
        try:
            number = float(text.removesuffix("%"))
        except ValueError:
            number = math.nan
        if not 0 <= number < math.inf:
            raise InvalidValueError("a fluency floor in nats or percent of the base's", repr(text), "try 0.3 or 10%")
        return cls(percent=number) if text.endswith("%") else cls(nats=number)

    def minimum(self, base: float) -> float:
        """Return the lowest allowed fluency, in nats per token, given the unedited model's."""
        if self.percent < math.inf:
            return base * (1 + self.percent / 100)
        return base - self.nats


NO_FLOOR = FluencyFloor()
