"""Prompt tuning: vectors trained in front of every prompt (Lester et al., arXiv 2104.08691).

PEFT makes the vectors, from the embeddings of tokens drawn at random. They are put in front here, because PEFT's own
forward pass would add them again to a pass that continues a KV cache. Training follows the rule of
`tarot.evaluation.baselines.training`, with the rate of PEFT's methods that train few numbers.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float, Int
from peft import PromptEmbedding, PromptTuningConfig
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from tarot.edit.patch import Patch
from tarot.errors import ShapeMismatch, TarotError
from tarot.evaluation.baselines.trained import VECTOR_RATE
from tarot.evaluation.baselines.training import fit
from tarot.evaluation.baselines.weights import check_differentiable
from tarot.models.scoring.prefix_cache import CACHE
from tarot.models.scoring.scorer import max_length
from tarot.objectives.answers import AnswerObjective

N_VECTORS = 20


@dataclass(frozen=True, eq=False)
class SoftPrompt:
    """Vectors that stand in front of every prompt of a model; unlike an adapter they cannot be merged.

    Attributes:
        vectors: what stands in place of the embeddings of as many tokens.
        provenance: plain JSON values on how the vectors were found.

    Example:
        >>> prompt = SoftPrompt(torch.zeros(4, model.config.hidden_size))
        >>> with prompt.apply(model):
        ...     _ = model.generate(**tokenizer("Yes or no?", return_tensors="pt"), max_new_tokens=1)
    """

    vectors: Float[Tensor, "token width"]
    provenance: Mapping[str, object] = field(default_factory=dict)

    @property
    def stored_bytes(self) -> int:
        """Bytes of the vectors."""
        return self.vectors.numel() * self.vectors.element_size()

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the vectors."""
        return hashlib.sha256(self.vectors.detach().float().cpu().contiguous().numpy().tobytes()).hexdigest()[:16]

    @contextmanager
    def apply(self, model: PreTrainedModel) -> Iterator[PreTrainedModel]:
        """Put the vectors in front of every prompt while the context is open.

        Passes take the tokens, masks and positions of the prompt alone, and return the logits of its tokens.

        Raises:
            ShapeMismatch: the model's embeddings have another width.
            TarotError: in a pass, if it is given embeddings in place of tokens, or is too long for the model.
        """
        width = _embedding(model).weight.shape[1]
        if self.vectors.shape[1:] != (width,):
            raise ShapeMismatch("a soft prompt", (len(self.vectors), width), tuple(self.vectors.shape))
        front = _Front(model, self.vectors)
        with Patch(model) as patch:
            patch.before(model, front.prepend, with_kwargs=True)
            patch.after(_embedding(model), front.embed)
            patch.before(model.get_output_embeddings(), front.drop)
            patch.apply()
            yield model


class _Front:
    """The additions of a soft prompt to the passes of a model, one after another.

    Where prompts of several lengths are padded on the left, the padding stays first, so that no window of attention
    counts it between the vectors and the prompt.
    """

    def __init__(self, model: PreTrainedModel, vectors: Float[Tensor, "token width"]) -> None:
        self.vectors = vectors
        self.max_length = max_length(model)
        self.added = self.length = 0  # tokens in front in the pass under way, and all of its tokens
        self.order: Int[Tensor, "row token"] | None = None  # of all tokens; None if none are padding

    def prepend(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
        """Give a pass placeholder tokens in front, unless it continues a cache that has them."""
        arguments = {**dict(zip(("input_ids",), args, strict=False)), **kwargs}
        ids: Int[Tensor, "row token"] | None = arguments.get("input_ids")
        if ids is None:
            raise TarotError("token ids, which a soft prompt is put in front of", "a pass over embeddings")
        cache: Cache | None = arguments.get(CACHE)
        n_cached, n = cache.get_seq_length() if cache is not None else 0, len(self.vectors)
        self.added = 0 if n_cached else n
        self.length = self.added + ids.shape[1]
        if self.max_length and n_cached + self.length > self.max_length:
            most = self.max_length - n
            raise TarotError(f"at most {most} tokens beside the soft prompt's {n}", f"more than {most}")
        self.order, mask = None, arguments.get("attention_mask")
        if mask is not None:
            mask = torch.cat([mask.new_ones(len(ids), n), mask], dim=1)
            if (order := _padding_first(mask, n)) is not None:
                mask = mask.gather(1, order)
                self.order = order if self.added else None
            arguments["attention_mask"] = mask
        arguments["input_ids"] = self._ordered(torch.cat([ids.new_zeros(len(ids), self.added), ids], dim=1))
        if (positions := arguments.get("position_ids")) is not None:
            first = torch.arange(self.added, dtype=positions.dtype, device=positions.device)
            positions = torch.cat([first.expand(len(positions), -1), positions + n], dim=1)
            arguments["position_ids"] = self._ordered(positions.expand(len(ids), -1))
        return (), arguments

    def embed(self, _: nn.Module, args: tuple[Any, ...], out: Float[Tensor, "row token width"]) -> Tensor:
        """Replace the placeholders' embeddings."""
        if not self.added:
            return out
        n_padding = [0] * len(out) if self.order is None else (self.order == 0).int().argmax(1).tolist()
        rows = [
            torch.cat([row[:n], self.vectors.to(out), row[n + self.added :]])
            for row, n in zip(out, n_padding, strict=True)
        ]
        return torch.stack(rows)

    def drop(self, _: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Drop what is in front before the output head, unless the model projects its last tokens only."""
        hidden = args[0]
        return (hidden[:, self.added :] if hidden.shape[1] == self.length else hidden, *args[1:])

    def _ordered(self, values: Int[Tensor, "row token"]) -> Int[Tensor, "row token"]:
        return values if self.order is None else values.gather(1, self.order)


def _embedding(model: PreTrainedModel) -> nn.Embedding:
    embedding = model.get_input_embeddings()
    assert isinstance(embedding, nn.Embedding)
    return embedding


def _padding_first(mask: Int[Tensor, "row token"], n: int) -> Int[Tensor, "row token"] | None:
    """Return the order that moves padding on the left before the first `n` tokens; None if there is none."""
    is_padding = torch.cat([torch.zeros_like(mask[:, :n]), mask[:, n:].cumsum(1) == 0], dim=1).bool()
    return torch.argsort((~is_padding).int(), dim=1, stable=True) if is_padding.any() else None


def tune_prompt(objective: AnswerObjective, budget: int, seed: int) -> SoftPrompt:
    """Train a soft prompt. Like shots it has no limit of divergence: it stands in front of its own task's prompts only.

    Args:
        objective: what is maximized; its model is unchanged afterwards.
        budget: evaluations of the objective; a gradient counts for three.
        seed: seed of the tokens whose embeddings are the start.

    Raises:
        TarotError: the objective has no gradient, or a sample leaves no room for the soft prompt.

    Example:
        >>> prompt = tune_prompt(objective, budget=30, seed=0)
        >>> with prompt.apply(objective.model):
        ...     score = objective.score_model()
    """
    check_differentiable(objective)
    model, embedding = objective.model, _embedding(objective.model)
    config = PromptTuningConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=N_VECTORS,
        num_transformer_submodules=1,
        token_dim=embedding.weight.shape[1],
        prompt_tuning_init="SAMPLE_VOCAB",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        vectors = PromptEmbedding(config, embedding).embedding.weight
    with Patch(model) as frozen:
        for parameter in model.parameters():
            frozen.replace(model, parameter, "requires_grad", False)
        frozen.apply()
        with SoftPrompt(vectors).apply(model):
            fit([vectors], objective, VECTOR_RATE, budget)
    return SoftPrompt(vectors.detach().clone(), {"method": "prompt-tuning"})


BASELINES: Mapping[str, Callable[..., SoftPrompt]] = MappingProxyType({"prompt-tuning": tune_prompt})
