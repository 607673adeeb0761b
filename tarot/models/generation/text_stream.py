"""Text stream: the greedy continuation of a prompt, written a few tokens at a time.

Streams of one model can take turns, so that a base and an edited text grow side by side.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tarot.edit.rope import initial_rope
from tarot.models.missing_numbers import BrokenRows

CHUNK = 4
"""Tokens written at a time: edits are applied and removed once a chunk."""
UNFINISHED = "\ufffd"  # what the tokenizer shows for the first bytes of a character


class TextStream:
    """Write the greedy continuation of a prompt, chunk by chunk, with transformers' own generation.

    Keys and values of earlier tokens are kept between chunks, so the model must stand as it did for the first: the same
    edit, or none.

    Args:
        model: a causal language model in evaluation mode.
        tokenizer: its tokenizer.
        prompt: token ids of the prompt, at least one.
        max_new_tokens: most tokens to write.
        until: texts that end the continuation; they are left out.

    Attributes:
        text: the continuation so far, without special tokens. It ends where the model computes NaN or infinity.
        is_broken: whether it ended so.
        is_finished: whether nothing more will be written.

    Example:
        >>> from tarot.models.generation.text_stream import TextStream
        >>> stream = TextStream(model, tokenizer, tokenizer("Did Ed leave?")["input_ids"], max_new_tokens=8)
        >>> while not stream.is_finished:
        ...     stream.advance()
        >>> len(stream.tokens) <= 8
        True
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        prompt: Sequence[int],
        *,
        max_new_tokens: int,
        until: Sequence[str] = (),
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._all_tokens = list(prompt)
        self._n_prompt = len(self._all_tokens)
        self._n_most = self._n_prompt + max_new_tokens
        self._until = until
        self._end_tokens = end_tokens(model, tokenizer)
        self._cache: Any = None
        self.text = ""
        self.is_broken = False
        self.is_finished = max_new_tokens < 1

    @property
    def tokens(self) -> list[int]:
        """Token ids of the continuation so far."""
        return self._all_tokens[self._n_prompt :]

    def advance(self) -> None:
        """Write the next chunk; nothing if the continuation is finished."""
        if self.is_finished:
            return
        n_before = len(self._all_tokens)
        ids = torch.tensor([self._all_tokens], device=self._model.device)
        broken = BrokenRows(min(self._end_tokens, default=0))
        generate: Any = self._model.generate  # its own annotations do not know the arguments of the configuration
        with initial_rope(self._model):  # another stream may have run the model meanwhile
            output = generate(
                ids,
                attention_mask=torch.ones_like(ids),
                past_key_values=self._cache,
                max_new_tokens=min(CHUNK, self._n_most - n_before),
                do_sample=False,
                # Sampling options of the model's own configuration, which greedy decoding would warn of.
                temperature=None,
                top_p=None,
                top_k=None,
                eos_token_id=sorted(self._end_tokens) or None,
                pad_token_id=min(self._end_tokens, default=0),
                logits_processor=[broken],
                return_dict_in_generate=True,
            )
        self._cache = output.past_key_values
        self.is_broken = broken.length is not None
        self._all_tokens = output.sequences[0, : broken.length].tolist()
        text = str(self._tokenizer.decode(self.tokens, skip_special_tokens=True))
        ends = [text.find(stop) for stop in self._until if stop and stop in text]
        has_ended = self._all_tokens[-1] in self._end_tokens or len(self._all_tokens) >= self._n_most
        self.is_finished = bool(ends) or has_ended or self.is_broken
        self.text = text[: min(ends)] if ends else text if self.is_finished else text.rstrip(UNFINISHED)


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the token ids that end a text, by the model's generation options and by the tokenizer."""
    configuration: Any = getattr(model, "generation_config", None)
    own = getattr(configuration, "eos_token_id", None)
    listed = own if isinstance(own, list) else [own]
    return frozenset(int(token) for token in (*listed, tokenizer.eos_token_id) if token is not None)
