"""Sample what a model writes by itself, from its first token on, at temperature 1."""

from collections.abc import Callable

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase

from tarot.errors import TarotError
from tarot.models.missing_numbers import BROKEN_MODEL_HINT
from tarot.models.scoring.prefix_cache import CACHE


def first_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the token that a text starts with: the tokenizer's first, else its end token.

    Raises:
        TarotError: The tokenizer has neither.

    Example:
        >>> first_token(tokenizer) in tokenizer.all_special_ids
        True
    """
    if has_first_token(tokenizer):
        return int(tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id)
    raise TarotError("The tokenizer has neither a first nor an end token, with which a text could start.")


def has_first_token(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether a text can start: with the tokenizer's first token or its end token."""
    return tokenizer.bos_token_id is not None or tokenizer.eos_token_id is not None


def sample_texts(
    model: PreTrainedModel,
    first: int,
    n_texts: int,
    length: int,
    generator: torch.Generator,
    *,
    batch_size: int | None = None,
    on_token: Callable[[int], None] = lambda done: None,
) -> Int[Tensor, "text token"]:
    """Sample texts of `length` tokens after the first.

    Tokens are drawn on the CPU for all texts at once, so that a seed gives the same text on every device.

    Args:
        model: a causal language model.
        first: the token that every text starts with.
        n_texts: number of texts.
        length: tokens of each text after the first.
        generator: the source of randomness, on the CPU.
        batch_size: most texts of a forward pass; None for all. It changes the text only by rounding.
        on_token: called after each token with the number of tokens that every text has.

    Returns:
        The tokens, `n_texts x (length + 1)`.

    Raises:
        TarotError: A probability is not a number.

    Example:
        >>> sample_texts(model, first_token(tokenizer), 2, 5, torch.Generator().manual_seed(0)).shape
        torch.Size([2, 6])
    """
    tokens = torch.full((n_texts, 1), first)
    caches: list[Cache | None] = [None] * -(-n_texts // (batch_size or n_texts))
    for done in range(1, length + 1):
        tokens = _append_token(model, tokens, caches, generator)
        on_token(done)
    return tokens


@torch.no_grad()
def _append_token(
    model: PreTrainedModel, tokens: Int[Tensor, "text token"], caches: list[Cache | None], generator: torch.Generator
) -> Int[Tensor, "text longer"]:
    """Append one sampled token to each text, in one forward pass a cache; update the caches."""
    probabilities = []
    for i, last in enumerate(tokens[:, -1:].tensor_split(len(caches))):
        out = model(input_ids=last.to(model.device), use_cache=True, **{CACHE: caches[i]})
        caches[i] = out[CACHE]
        probabilities.append(out.logits[:, -1].float().softmax(-1).cpu())
    weights = torch.cat(probabilities)
    if not weights.isfinite().all():
        raise TarotError("a model that can write texts", "probabilities that are not numbers", BROKEN_MODEL_HINT)
    return torch.cat([tokens, torch.multinomial(weights, 1, generator=generator)], dim=1)
