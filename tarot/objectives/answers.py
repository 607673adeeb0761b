"""Angles -> score on labelled samples, higher is better.

    score(angles) = mean over classes of the mean over their samples of
                    measure(log p(answer | prompt) of each answer, under the edit)

A class is all samples of one right answer. Twenty samples hold classes unequally by chance, and an edit found on
fifteen times yes and five times no learns to say yes (RESULTS.md). Where every answer is another, this is the mean.

Called hundreds of times on the same prompts, so everything that does not depend on the angles happens once.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import PreTrainedModel

from tarot.edit.hooks import apply_rotation
from tarot.edit.merge import merge_temporarily
from tarot.edit.rotation import ROTARY, Rotation
from tarot.edit.sites import Site, angle_mask
from tarot.errors import TarotError, UnknownName
from tarot.models.scoring.scorer import Request, Scorer, out_of_memory
from tarot.objectives.samples import Sample

ALL = slice(None)
# (context, continuation) texts -> their tokens, as the harness encodes them.
Encode = Callable[[str, str], tuple[Sequence[int], Sequence[int]]]


class AnswerScore(NamedTuple):
    """How one sample is judged.

    `of` takes the answers' log-probabilities in nats, whether each is the greedy continuation, and the index of the
    right one. A mean of `target_score` needs no bettering: what a search gains beyond it, it learns by heart (RESULTS.md).
    """

    needs_choices: bool
    is_differentiable: bool
    target_score: float
    of: Callable[[Float[Tensor, " answer"], Bool[Tensor, " answer"], int], Tensor]


def _margin(log_probability: Tensor, greedy: Tensor, gold: int) -> Tensor:
    others = torch.cat([log_probability[:gold], log_probability[gold + 1 :]])
    return log_probability[gold] - others.max()


def _accuracy(log_probability: Tensor, greedy: Tensor, gold: int) -> Tensor:
    right = greedy[gold] if len(log_probability) == 1 else log_probability.argmax() == gold
    # Of numbers that are none the first would be the greatest.
    return torch.where(log_probability.isnan().any(), math.nan, right.to(log_probability.dtype))


ANSWER_SCORES: Mapping[str, AnswerScore] = MappingProxyType(
    {
        # Mean probability of the right answer (the paper's, there of its first token).
        "probability": AnswerScore(False, True, 0.9, lambda log_probability, _, gold: log_probability[gold].exp()),
        # Mean log-probability of the right answer, in nats.
        "log_probability": AnswerScore(False, True, -0.1, lambda log_probability, _, gold: log_probability[gold]),
        # Right answer's log-probability minus the best wrong one's, in nats.
        "margin": AnswerScore(True, True, math.inf, _margin),
        # Fraction of samples whose right answer is the likeliest choice; of a single answer, whose greedy continuation
        # it is. Weights of classes add up to one but for rounding.
        "accuracy": AnswerScore(True, False, 1 - 1e-6, _accuracy),
    }
)


def check_answer_score(name: str) -> None:
    """Raise UnknownName unless `name` is a measure."""
    if name not in ANSWER_SCORES:
        raise UnknownName("objective", name, ANSWER_SCORES)


class AnswerObjective:
    """Score of angles on fixed samples.

    Args:
        model: a causal language model; left as it was after every call.
        samples: what to score.
        encode: texts to tokens, as the harness does it.
        measure: a name in `ANSWER_SCORES`.
        sites: where to rotate.
        rotation: how angles become a rotation.
        batch_size: most sequences of one pass; None leaves it to the scorer.

    Raises:
        UnknownName: no such measure.
        TarotError: a prompt longer than the model's context, a margin of samples with a single answer,
            or samples without answers.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        samples: Sequence[Sample],
        encode: Encode,
        *,
        measure: str = "log_probability",
        sites: Sequence[Site],
        rotation: Rotation = ROTARY,
        batch_size: int | None = None,
    ) -> None:
        check_answer_score(measure)
        if measure == "margin" and any(len(sample.pairs) < 2 for sample in samples):
            raise TarotError(
                "samples with several answers for the objective 'margin'", "one answer", "use log_probability"
            )
        if not all(sample.pairs[sample.gold][1].strip() for sample in samples):
            hint = "judge texts by a reward, such as --objective sentiment:positive"
            raise TarotError(f"samples with answers for the objective {measure!r}", "samples without", hint)
        self.model = model
        self.measure = ANSWER_SCORES[measure]
        self.sites = tuple(sites)
        self.rotation = rotation
        self._golds: list[int] = []
        self._sizes: list[int] = []
        self._weights = class_weights([sample.pairs[sample.gold][1] for sample in samples])
        requests, names = [], []
        for sample in samples:
            pairs = sample.pairs if self.measure.needs_choices else (sample.pairs[sample.gold],)
            requests += [Request(tuple(c), tuple(t)) for c, t in (encode(*pair) for pair in pairs)]
            names += [f"{sample.id}, answer {answer!r}" for _, answer in pairs]
            self._golds.append(sample.gold if self.measure.needs_choices else 0)
            self._sizes.append(len(pairs))
        self.scorer = Scorer(
            model,
            requests,
            batch_size,
            names=names,
            n_frozen_layers=min(site.layer for site in self.sites),
        )

    def __call__(self, angles: Float[Tensor, "layer head angle"]) -> float:
        """Score of these angles (radians): nats, or a fraction, as the measure has it."""
        # Merged, an edit costs one small product a site; hooked, one pass over every site's activations.
        with torch.no_grad(), merge_temporarily(self.model, angles, self.sites, self.rotation):
            return float(self._sum(self.measure, self.scorer.log_probabilities()))

    def value_and_grad(
        self, angles: Float[Tensor, "layer head angle"]
    ) -> tuple[float, Float[Tensor, "layer head angle"]]:
        """Score of these angles (radians) and its gradient, per radian, from one pass forward and back.

        A measure without a slope borrows that of the mean log-probability. All samples go through at once; where that
        does not fit the memory, one after another.
        """
        try:
            return self._slope(angles, self.scorer)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
        begin, score, gradient = 0, 0.0, torch.zeros(angles.shape)
        for i, size in enumerate(self._sizes):
            scorer = Scorer(self.model, self.scorer.requests[begin : begin + size])
            one_score, one_gradient = self._slope(angles, scorer, slice(i, i + 1))
            score, gradient, begin = score + one_score, gradient + one_gradient, begin + size
        return score, gradient

    def gradient(self) -> Float[Tensor, "layer head angle"]:
        """That of `value_and_grad` at the identity."""
        return self.value_and_grad(torch.zeros(angle_mask(self.sites, self.rotation.n_angles).shape))[1]

    def _slope(
        self, at: Float[Tensor, "layer head angle"], scorer: Scorer, part: slice = ALL
    ) -> tuple[float, Float[Tensor, "layer head angle"]]:
        """What this part of the samples adds to the score and to its gradient; the scorer has its requests."""
        angles = at.detach().to(self.model.device, copy=True).requires_grad_()
        with torch.enable_grad(), apply_rotation(self.model, angles, self.sites, self.rotation):
            answers = scorer.log_probabilities()
            score = self._sum(self.measure, answers, part)
            followed = (
                score if self.measure.is_differentiable else self._sum(ANSWER_SCORES["log_probability"], answers, part)
            )
            (gradient,) = torch.autograd.grad(followed, angles)
        return float(score.detach()), gradient.cpu()

    def score(self) -> Float[Tensor, ""]:
        """Score of the model as it stands, differentiable in whatever weight it depends on."""
        return self._sum(self.measure, self._anywhere.log_probabilities())

    def _sum(
        self,
        measure: AnswerScore,
        answers: tuple[Float[Tensor, " request"], Bool[Tensor, " request"]],
        part: slice = ALL,
    ) -> Float[Tensor, ""]:
        """Of this part of the samples, the measures by their weights: sample i has the next `sizes[i]` requests."""
        total, greedy = answers
        sizes = self._sizes[part]
        samples = zip(total.split(sizes), greedy.split(sizes), self._golds[part], strict=True)
        measures = torch.stack([measure.of(values, flags, gold) for values, flags, gold in samples])
        return measures @ self._weights[part].to(measures)

    @cached_property
    def _anywhere(self) -> Scorer:
        """A scorer that takes no layer for unchanged."""
        return Scorer(self.model, self.scorer.requests, self.scorer.batch_size)


def class_weights(answers: Sequence[str]) -> Float[Tensor, " sample"]:
    """What each sample counts for: classes, which are the different right answers, alike, and alike within each."""
    sizes = Counter(answers)
    return torch.tensor([1 / (len(sizes) * sizes[answer]) for answer in answers])
