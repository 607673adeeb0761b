"""Encode prompts and answers as token ids, each special token exactly once and a fixed boundary between the two."""

import logging
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from torch import Tensor

from tarot.errors import TarotError
from tarot.models.scoring.scorer import Request

logger = logging.getLogger(__name__)


class PromptEncoder:
    """Encode texts for a causal language model.

    Special tokens that the tokenizer puts first are kept, those that it puts last are dropped: they would end the text
    before the answer. A text that spells its first tokens, as many chat templates do, gets them once.

    Args:
        tokenizer: a transformers tokenizer.
        add_bos_token: whether texts begin with the BOS token; None leaves it to the tokenizer.
        prefix_token_id: stands before a text without a context; None means the tokenizer's first tokens, else its BOS
            or EOS token.

    Example:
        >>> from tarot.models.prompt_encoder import PromptEncoder
        >>> encoder = PromptEncoder(tokenizer)
        >>> encoder.encode_pair("Is it? ", "yes") == encoder.encode_pair("Is it?", " yes")
        True
    """

    def __init__(self, tokenizer: Any, add_bos_token: bool | None = None, prefix_token_id: int | None = None) -> None:
        self.tokenizer = tokenizer
        self.add_bos_token = add_bos_token
        self.prefix_token_id = prefix_token_id

    @cached_property
    def _added_tokens(self) -> tuple[list[int], list[int]]:
        """The tokens that the tokenizer puts before and after every text."""
        text = self._encode_bare("a")
        complete = self.tokenizer.encode("a", add_special_tokens=True)
        starts = [i for i in range(len(complete) - len(text) + 1) if complete[i : i + len(text)] == text]
        return (complete[: starts[0]], complete[starts[0] + len(text) :]) if starts else ([], [])

    @cached_property
    def _default_prefix(self) -> int | None:
        """The token before a text without a context, where the tokenizer puts none there."""
        candidates = (self.prefix_token_id, self.tokenizer.bos_token_id, self.tokenizer.eos_token_id)
        return next((token for token in candidates if token is not None), None)

    @cached_property
    def _first_texts(self) -> tuple[str, ...]:
        """The spellings of the tokens that texts begin with."""
        tokens = {self.tokenizer.bos_token_id, self._default_prefix, *self._added_tokens[0]} - {None}
        return tuple(text for text in (self.tokenizer.decode([token]) for token in sorted(tokens)) if text)

    @cached_property
    def first_tokens(self) -> list[int]:
        """The tokens before a text without a context.

        Raises:
            TarotError: the tokenizer has neither a BOS nor an EOS token, and no `prefix_token_id` is given.
        """
        complete, text = self.encode("a"), self._encode_bare("a")
        before = complete[: len(complete) - len(text)]
        if before and complete == before + text and self.prefix_token_id is None:
            return before
        if self._default_prefix is None:
            raise TarotError("a tokenizer with a BOS or EOS token", "one with neither", "give prefix_token_id")
        return [self._default_prefix]

    def _encode_bare(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def encode(self, text: str, add_special_tokens: bool | None = None) -> list[int]:
        """Encode one text.

        Args:
            text: what to encode.
            add_special_tokens: whether the tokenizer's first tokens are put before it; None: those that the text does
                not spell, or none if `add_bos_token` is False.
        """
        if add_special_tokens is None:
            add_special_tokens = self.add_bos_token is not False
            if add_special_tokens and text.startswith(self._first_texts):
                before, tokens = self._added_tokens[0], self._encode_bare(text)
                n_spelled = _n_repeated(before, tokens)
                return before + tokens[n_spelled:] if n_spelled else tokens
        if not add_special_tokens:
            return self._encode_bare(text)
        tokens = list(self.tokenizer.encode(text, add_special_tokens=True))
        before, after = self._added_tokens
        tokens = tokens[: len(tokens) - len(after)]
        if self.add_bos_token and not before and self.tokenizer.bos_token_id is not None:
            tokens = [self.tokenizer.bos_token_id, *tokens]
        return tokens

    def encode_batch(
        self,
        texts: Sequence[str],
        padding_side: str = "left",
        left_truncate_len: int | None = None,
        truncation: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Encode prompts to generate from, padded to one length.

        Args:
            texts: the prompts.
            padding_side: `left` or `right`.
            left_truncate_len: how many tokens of each prompt's end to keep; None keeps all.
            truncation: whether to cut prompts to the tokenizer's own length first.

        Returns:
            Token ids and attention mask, each `prompt x token`.
        """
        rows = [self.encode(text) for text in texts]
        if truncation:
            most = self.tokenizer.model_max_length
            rows = [row[-most:] if self.tokenizer.truncation_side == "left" else row[:most] for row in rows]
        rows = [row[-left_truncate_len:] if left_truncate_len else row for row in rows]
        padded = self.tokenizer.pad({"input_ids": rows}, padding_side=padding_side, return_tensors="pt")
        return padded["input_ids"], padded["attention_mask"]

    def encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Encode a prompt and its answer.

        White space at the end of the context counts as the answer's. The answer's tokens are those that it adds to the
        context's. Where one token spans the boundary, the answer is encoded by itself.

        Returns:
            Tokens of the context, at least one; and of the answer, none where its text has none.
        """
        if not context:
            first, tokens = self.first_tokens, self._encode_bare(continuation)
            return first, tokens[_n_repeated(first, tokens) :]
        stripped = context.rstrip()
        continuation = context[len(stripped) :] + continuation
        tokens, complete = self.encode(stripped), self.encode(stripped + continuation)
        if complete[: len(tokens)] == tokens and len(complete) > len(tokens):
            added = complete[len(tokens) :]
        else:
            added = self._encode_bare(continuation)
        return tokens or self.first_tokens, added

    def rolling_windows(self, text: str, max_length: int) -> list[tuple[list[int], list[int]]]:
        """Encode a text to be scored as a whole, in windows of at most `max_length` tokens.

        Returns:
            Context and scored tokens of each window; every token of the text is scored once.
        """
        first, tokens = self.encode_pair("", text)
        windows = map(
            make_disjoint_window,
            get_rolling_token_windows(tokens, first[-1], max_length - len(first) + 1, context_len=1),
        )
        return [(context if n else first + context[1:], scored) for n, (context, scored) in enumerate(windows)]


def _n_repeated(before: list[int], tokens: list[int]) -> int:
    """Return how many of the first tokens repeat a part of `before`, such as its end.

    Example:
        >>> from tarot.models.prompt_encoder import _n_repeated
        >>> _n_repeated([1, 2], [2, 7]), _n_repeated([1, 2], [1, 2, 7]), _n_repeated([1, 2], [7])
        (1, 2, 0)
    """
    parts = [before[start:end] for start in range(len(before)) for end in range(start + 1, len(before) + 1)]
    return max((len(part) for part in parts if tokens[: len(part)] == part), default=0)


def fit_to_context(
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]], names: Sequence[str], max_length: int
) -> list[Request]:
    """Return requests that fit the model's context: contexts that are too long lose their beginning.

    Args:
        pairs: token ids to condition on and token ids to score.
        names: what errors call each pair.
        max_length: the model's context, in tokens.

    Raises:
        TarotError: the tokens to score alone are too many.
    """
    requests = []
    for name, (context, continuation) in zip(names, pairs, strict=True):
        if len(continuation) > max_length:
            expected = f"an answer of at most {max_length} tokens, the model's context"
            raise TarotError(expected, f"{len(continuation)} in {name}")
        excess = max(0, len(context) + len(continuation) - 1 - max_length)
        requests.append(Request(tuple(context[excess:]), tuple(continuation)))
    cut = sum(len(request.context) < len(context) for request, (context, _) in zip(requests, pairs, strict=True))
    _warn_of_cut(cut, len(requests), max_length)
    return requests


def check_generated_lengths(lengths: Sequence[tuple[int, int]], max_length: int) -> None:
    """Log how many prompts lose their beginning, which lm-eval cuts so that the generated tokens fit.

    Args:
        lengths: tokens of each prompt, and the most that are generated after it.
        max_length: the model's context, in tokens.

    Raises:
        TarotError: the generated tokens alone fill the context.
    """
    most = max((n_generated for _, n_generated in lengths), default=0)
    if most >= max_length:
        expected = f"fewer generated tokens than the model's context of {max_length}"
        raise TarotError(expected, str(most), "lower max_gen_toks in the task's generation_kwargs")
    _warn_of_cut(sum(sum(length) > max_length for length in lengths), len(lengths), max_length)


def _warn_of_cut(cut: int, n: int, max_length: int) -> None:
    if cut:
        logger.warning(
            "%d of %d prompts are longer than the model's context of %d tokens: their first tokens are left out.",
            cut,
            n,
            max_length,
        )
