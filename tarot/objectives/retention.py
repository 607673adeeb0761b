"""Retention term: how far an edit moves the model on contexts that it should leave alone.

    KL(base || edited) = sum_t p(t) log(p(t) / q(t))
    p: next-token distribution of the unedited model, q: of the edited one
    term = weighted mean over retained contexts of the mean KL over the tokens of a context's continuation, in nats

Of the unedited model only the `top_k` likeliest tokens of each position are kept. All other tokens count as one, with
the sum of their probabilities. By the log-sum inequality, this KL is a lower bound of the KL over the whole vocabulary.
The two differ by the rest's probability p(rest) times the KL within the rest, KL(p(. | rest) || q(. | rest)).
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from tarot.edit.hooks import apply_rotation
from tarot.edit.rotation import ROTARY, Angles, Rotation
from tarot.edit.sites import Site
from tarot.errors import InvalidValueError
from tarot.models.scoring.scorer import Request, Scorer

TOP_K = 256
# Rows of one pass. The backward pass keeps the activations of all its tokens, but only those of one pass at a time.
ROWS = 16
_LEAST_REST = 1e-6  # of the probability of all other tokens; below it the sum of 256 float32 numbers is only rounding


class _Buckets(NamedTuple):
    """Log-probabilities of a position's likeliest tokens, and of all others together."""

    token: Int[Tensor, "n k"]
    top: Float[Tensor, "n k"]
    rest: Float[Tensor, " n"]


class RetentionTerm:
    """Measure KL(base || edited) on retained contexts, and its gradient.

    The unedited model reads the contexts when the term is made, so make it while the model is unedited.

    Args:
        model: a causal language model; unchanged after every call.
        contexts: what to retain. KL is taken at the positions that predict the tokens of each continuation.
        weights: weight of each context, any positive scale; None for equal weights.
        batch_size: largest number of sequences in one forward pass.
        n_frozen_layers: number of first layers that no edit changes; they run once.
        top_k: tokens that are kept of each position; a vocabulary that is no larger is kept whole.

    Attributes:
        tokens: number of tokens that one evaluation runs.
        rest: mean probability of the tokens that are not kept.

    Raises:
        InvalidValueError: There are no contexts, or the weights do not fit them.
        TarotError: A context has no tokens, or is longer than the model's.

    Example:
        >>> prompt, answer = tokenizer("Is snow white?").input_ids, tokenizer(" Yes").input_ids
        >>> term = RetentionTerm(model, [Request(tuple(prompt), tuple(answer))])
        >>> term.kl()
        0.0
        >>> with adapter.apply(model):
        ...     term.kl() > 0
        True
    """

    def __init__(
        self,
        model: PreTrainedModel,
        contexts: Sequence[Request],
        *,
        weights: Sequence[float] | None = None,
        batch_size: int | None = None,
        n_frozen_layers: int = 0,
        top_k: int = TOP_K,
    ) -> None:
        if not contexts:
            raise InvalidValueError("A retention term needs at least one context.")
        shares = torch.ones(len(contexts)) if weights is None else torch.tensor(weights, dtype=torch.float32)
        if len(shares) != len(contexts) or not (shares > 0).all():
            raise InvalidValueError(f"one positive weight for each of {len(contexts)} contexts", str(weights))
        self.model = model
        self.contexts = contexts
        self._weights = shares / shares.sum()
        self._scorer = Scorer(model, contexts, batch_size or ROWS, n_frozen_layers=n_frozen_layers)
        self._top_k = top_k
        self._base: dict[int, _Buckets] = {}
        with torch.no_grad():
            for requests, logits in self._scorer.logits():
                sizes = [len(contexts[i].continuation) for i in requests]
                parts = [part.split(sizes) for part in self._top_buckets(logits)]
                self._base.update(zip(requests, map(_Buckets, *parts), strict=True))
        masses = torch.stack([self._base[i].rest.exp().mean() for i in range(len(contexts))])
        self.rest = 0.0 if self._is_whole else float(masses.cpu() @ self._weights)
        self.tokens = self._scorer.tokens

    @property
    def _is_whole(self) -> bool:
        return bool(self._top_k >= self.model.get_output_embeddings().weight.shape[0])

    def _top_buckets(self, logits: Float[Tensor, "n v"]) -> _Buckets:
        """Return the likeliest tokens of each position and the rest, under the model as it stands."""
        scores = logits.float()
        top, token = scores.topk(min(self._top_k, scores.shape[-1]))
        top = top - scores.logsumexp(-1, keepdim=True)
        return _Buckets(token.int(), top, _log_rest(top))

    def kl(self) -> float:
        """Return the term, in nats a token, for the model as it stands."""
        return _not_negative(self.kl_of_contexts() @ self._weights)

    @torch.no_grad()
    def kl_of_contexts(self) -> Float[Tensor, " context"]:
        """Return the mean KL of each context, in nats a token, for the model as it stands."""
        values: dict[int, Tensor] = {}
        for requests, kl in self._passes():
            values.update(zip(requests, kl.cpu(), strict=True))
        return torch.stack([values[i] for i in range(len(self.contexts))])

    def value_and_grad(
        self, angles: Angles, sites: Sequence[Site], rotation: Rotation = ROTARY
    ) -> tuple[float, Angles]:
        """Return the term of an edit, in nats a token, and its gradient, per radian.

        The backward pass follows each forward pass, so memory holds the activations of one pass only.

        Args:
            angles: of the edit, in radians.
            sites: where the model is edited.
            rotation: how angles become a rotation.
        """
        angles = angles.detach().to(self.model.device, copy=True).requires_grad_()
        gradient, values = torch.zeros_like(angles), torch.zeros(len(self.contexts))
        with torch.enable_grad(), apply_rotation(self.model, angles, sites, rotation):
            for requests, kl in self._passes():
                # All passes share the graph from the angles to the rotations.
                part = kl @ self._weights[requests].to(kl)
                gradient += torch.autograd.grad(part, angles, retain_graph=True)[0]
                values[requests] = kl.detach().cpu()
        return _not_negative(values @ self._weights), gradient.cpu()

    def backward(self) -> float:
        """Add the term's gradient to the parameters of the model that require one; return the term, in nats a token.

        The backward pass follows each forward pass, so memory holds the activations of one pass only.
        """
        total = torch.zeros(())
        with torch.enable_grad():
            for requests, kl in self._passes():
                part = kl @ self._weights[requests].to(kl)
                part.backward(retain_graph=True)  # passes may share the graph of a prefix
                total += part.detach().cpu()
        return _not_negative(total)

    def _passes(self) -> Iterator[tuple[list[int], Float[Tensor, " request"]]]:
        """Yield for each pass its contexts, and the mean KL of each."""
        for requests, logits in self._scorer.logits():
            base = _Buckets(*map(torch.cat, zip(*(self._base[i] for i in requests), strict=True)))
            scores = logits.float()
            top = scores.gather(-1, base.token.long()) - scores.logsumexp(-1, keepdim=True)
            kl = (base.top.exp() * (base.top - top)).sum(-1)
            if not self._is_whole:
                kl = kl + base.rest.exp() * (base.rest - _log_rest(top))
            sizes = [len(self.contexts[i].continuation) for i in requests]
            yield requests, torch.stack([tokens.mean() for tokens in kl.split(sizes)])


def _not_negative(kl: Float[Tensor, ""]) -> float:
    """Return a divergence without the rounding that makes it negative; NaN stays NaN, which `max` would make 0."""
    return float(kl.clamp(min=0))


def _log_rest(top: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
    """Return the log-probability of all tokens but these."""
    return (1 - top.exp().sum(-1)).clamp(min=_LEAST_REST).log()
