"""Perplexity, and KL(base || edited) = mean over tokens of sum_t p(t) (log p(t) - log q(t)); p is unedited, q edited.

Each token of a text is predicted from those before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import exp
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from tarot.analysis.neutral_text import neutral_text
from tarot.edit.adapter import Adapter
from tarot.edit.prompt_batches import MAX_LOGITS
from tarot.edit.rope import initial_rope
from tarot.errors import TarotError, describe_missing_numbers
from tarot.evaluation.baselines.edit import BaselineEdit
from tarot.evaluation.statistics.means import Mean, mean_intervals
from tarot.models.loaded_model import LoadedModel
from tarot.models.missing_numbers import BROKEN_MODEL_HINT
from tarot.models.progress import OnStep, ignore_step


@dataclass(frozen=True)
class Divergence:
    """Distance of the edited model from the base on a text.

    Attributes:
        tokens: number of predicted tokens.
        base_perplexity: perplexity of the unedited model.
        perplexity: perplexity of the edited model.
        kl: KL divergence in nats a token, with its 95% CI over texts.
    """

    tokens: int
    base_perplexity: float
    perplexity: float
    kl: Mean


@torch.no_grad()
def measure_divergence(
    model: PreTrainedModel,
    adapters: Sequence[Adapter | BaselineEdit],
    text: Int[Tensor, "text token"],
    batch_size: int | None = None,
    on_step: OnStep = ignore_step,
) -> list[Divergence]:
    """Measure perplexity and KL divergence of each adapter on the same texts; the first token of each text is given.

    The base model reads each text once for all adapters.

    Args:
        model: a causal language model; unchanged afterwards.
        adapters: the edits, or baselines that change the model.
        text: tokens, one row a text.
        batch_size: most texts of a forward pass; None to choose it automatically.
        on_step: shows the progress.

    Raises:
        TarotError: a log-probability or divergence is not finite.

    Example:
        >>> from tarot.analysis.neutral_text import neutral_text
        >>> loaded = tarot.load_model("wheel:smollm2-135m")
        >>> (divergence,) = measure_divergence(loaded.model, [adapter], neutral_text(loaded, 500))
        >>> divergence.kl.value >= 0
        True
    """
    vocabulary = model.get_output_embeddings().weight.shape[0]
    rows = min(max(1, MAX_LOGITS // (text.shape[1] * vocabulary)), batch_size or len(text))
    base_losses: list[Tensor] = []
    edited_losses: list[list[Tensor]] = [[] for _ in adapters]
    divergences: list[list[Tensor]] = [[] for _ in adapters]
    for done, ids in enumerate(text.to(model.device).split(rows)):
        base = _log_probabilities(model, ids)
        base_losses.append(_mean_loss(base, ids))
        for i, adapter in enumerate(adapters):
            with adapter.apply(model):
                edited = _log_probabilities(model, ids)
            edited_losses[i].append(_mean_loss(edited, ids))
            # Rounding can make the divergence of nearly equal distributions negative.
            divergence = (base.exp() * (base - edited)).sum(-1).clamp(min=0)
            divergences[i].append(divergence.double().mean(-1))
        on_step("reading neutral text", min((done + 1) * rows, len(text)), len(text))
    sides = [
        ("unedited model", [base_losses]),
        *(("edit", [losses, kl]) for losses, kl in zip(edited_losses, divergences, strict=True)),
    ]
    for side, columns in sides:
        finite = torch.stack([torch.cat(column).isfinite() for column in columns]).all(0)
        if broken := (~finite).nonzero()[:, 0].tolist():
            expected = f"finite log-probabilities of neutral text under the {side}"
            raise TarotError(expected, describe_missing_numbers(broken, len(text)), BROKEN_MODEL_HINT)
    n_tokens = text[:, 1:].numel()
    return [
        Divergence(
            n_tokens,
            exp(float(torch.cat(base_losses).mean())),
            exp(float(torch.cat(edited_losses[i]).mean())),
            _kl_interval(torch.cat(divergences[i]).tolist()),
        )
        for i in range(len(adapters))
    ]


def _kl_interval(texts: Sequence[float]) -> Mean:
    (mean,) = mean_intervals([[kl] for kl in texts])
    return replace(mean, low=max(mean.low, 0.0))  # a KL divergence is never negative


def _log_probabilities(model: PreTrainedModel, ids: Int[Tensor, "b s"]) -> Float[Tensor, "b t v"]:
    with initial_rope(model):
        return model(input_ids=ids, use_cache=False).logits[:, :-1].float().log_softmax(-1)


def _mean_loss(log_probabilities: Float[Tensor, "b t v"], ids: Int[Tensor, "b s"]) -> Float[Tensor, " b"]:
    """Return the mean of -log p over each text's tokens, in nats."""
    return -log_probabilities.gather(-1, ids[:, 1:, None])[..., 0].double().mean(-1)


HELD_OUT_TOKENS = 5000


def measure_held_out(
    loaded: LoadedModel,
    adapter: Adapter,
    batch_size: int | None = None,
    n_tokens: int = HELD_OUT_TOKENS,
    on_step: OnStep = ignore_step,
) -> Adapter:
    """Return an adapter whose provenance has its divergence on neutral text, with the 95% CI over the texts.

    Args:
        loaded: model and tokenizer; unchanged afterwards.
        adapter: the edit.
        batch_size: most texts of a forward pass; None to choose it automatically.
        n_tokens: least number of tokens of neutral text.
        on_step: shows the progress.

    Raises:
        TarotError: the adapter does not fit the model, or a log-probability is not finite.

    Example:
        >>> loaded = tarot.load_model("wheel:smollm2-135m")
        >>> measured = measure_held_out(loaded, adapter, n_tokens=500)
        >>> measured.provenance["retention"]["held_out"]["tokens"]
        512
    """
    text = neutral_text(loaded, n_tokens, batch_size=batch_size, on_step=on_step)
    (divergence,) = measure_divergence(loaded.model, [adapter], text, batch_size, on_step)
    held_out = {
        "tokens": divergence.tokens,
        "kl": divergence.kl.value,
        "low": divergence.kl.low,
        "high": divergence.kl.high,
        "perplexity_ratio": divergence.perplexity / divergence.base_perplexity,
    }
    retention: Any = adapter.provenance.get("retention", {})
    return replace(adapter, provenance={**adapter.provenance, "retention": {**retention, "held_out": held_out}})
