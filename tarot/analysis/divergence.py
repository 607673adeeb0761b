"""KL(base || edited) = mean over tokens of  sum_t p(t) (log p(t) - log q(t)),  p unedited, q edited; and perplexity.

Of the tokens of given texts, each predicted from those before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import exp

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from tarot.analysis.neutral_text import OnStep, silent
from tarot.edit.adapter import Adapter
from tarot.errors import TarotError, describe_missing_numbers
from tarot.evaluation.statistics import Mean, mean_intervals
from tarot.models.missing_numbers import HINT

# Numbers of one pass's largest tensor, the logits: 128 MB in float32.
LARGEST = 2**25


@dataclass(frozen=True)
class Divergence:
    """Perplexity of `tokens` neutral tokens without and with the edit, and the KL divergence in nats a token."""

    tokens: int
    base_perplexity: float
    perplexity: float
    kl: Mean


@torch.no_grad()
def measure_divergence(
    model: PreTrainedModel,
    adapters: Sequence[Adapter],
    text: Int[Tensor, "text token"],
    batch_size: int | None = None,
    on_step: OnStep = silent,
) -> list[Divergence]:
    """Perplexity and KL divergence of each adapter on the same texts, the first token of each given.

    The base model reads every text once, whatever the number of adapters, at most `batch_size` of them in a pass. The
    interval is over texts.

    Raises:
        TarotError: log-probabilities or divergences that are not finite.
    """
    vocabulary = model.get_output_embeddings().weight.shape[0]
    rows = min(max(1, LARGEST // (text.shape[1] * vocabulary)), batch_size or len(text))
    surprise: list[Tensor] = []
    surprises: list[list[Tensor]] = [[] for _ in adapters]
    divergences: list[list[Tensor]] = [[] for _ in adapters]
    for done, ids in enumerate(text.to(model.device).split(rows)):
        base = _log_probabilities(model, ids)
        surprise.append(_surprise(base, ids))
        for i, adapter in enumerate(adapters):
            with adapter.apply(model):
                edited = _log_probabilities(model, ids)
            surprises[i].append(_surprise(edited, ids))
            # Where the two are all but equal, rounding can leave less than nothing.
            divergence = (base.exp() * (base - edited)).sum(-1).clamp(min=0)
            divergences[i].append(divergence.double().mean(-1))
        on_step("reading neutral text", min((done + 1) * rows, len(text)), len(text))
    sides = [
        ("unedited model", [surprise]),
        *(("edit", [losses, kl]) for losses, kl in zip(surprises, divergences, strict=True)),
    ]
    for side, columns in sides:
        finite = torch.stack([torch.cat(column).isfinite() for column in columns]).all(0)
        if broken := (~finite).nonzero()[:, 0].tolist():
            wanted = f"finite log-probabilities of neutral text under the {side}"
            raise TarotError(wanted, describe_missing_numbers(broken, len(text)), HINT)
    n_tokens = text[:, 1:].numel()
    return [
        Divergence(
            n_tokens,
            exp(float(torch.cat(surprise).mean())),
            exp(float(torch.cat(surprises[i]).mean())),
            _kl(torch.cat(divergences[i]).tolist()),
        )
        for i in range(len(adapters))
    ]


def _kl(of_texts: Sequence[float]) -> Mean:
    (mean,) = mean_intervals([[kl] for kl in of_texts])
    return replace(mean, low=max(mean.low, 0.0))  # it is never less


def _log_probabilities(model: PreTrainedModel, ids: Int[Tensor, "b s"]) -> Float[Tensor, "b t v"]:
    return model(input_ids=ids, use_cache=False).logits[:, :-1].float().log_softmax(-1)


def _surprise(log_probabilities: Float[Tensor, "b t v"], ids: Int[Tensor, "b s"]) -> Float[Tensor, " b"]:
    """Mean of -log p of each text's tokens, in nats."""
    return -log_probabilities.gather(-1, ids[:, 1:, None])[..., 0].double().mean(-1)
