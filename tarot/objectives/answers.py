"""Answer objective: the score of an edit on labelled samples, from the log-probabilities of their answers.

    score(angles) = mean over classes of the mean over their samples of
                    answer_score(log p(answer | prompt) of each answer, under the edit)

A class is all samples with the same right answer. Among twenty samples the classes are unequal by chance, and an edit
tuned on fifteen times "yes" and five times "no" learns to say "yes" (RESULTS.md). If all right answers differ, the
score is the plain mean.

An objective is called hundreds of times on the same prompts, so whatever does not depend on the angles is computed
once.
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

from tarot.arguments import Registry
from tarot.edit.hooks import apply_rotation
from tarot.edit.merge import merge_temporarily
from tarot.edit.rotation import ROTARY, Angles, Rotation
from tarot.edit.sites import Site
from tarot.errors import InvalidValueError
from tarot.models.scoring.scorer import Request, Scorer, out_of_memory
from tarot.objectives.objective import Evaluation, Objective
from tarot.objectives.rewards.fluency import Encode
from tarot.objectives.tasks.samples import Sample

ALL = slice(None)
# log-probabilities of a request's answer in nats, and whether each is the greedy continuation
Answers = tuple[Float[Tensor, " request"], Bool[Tensor, " request"]]


class AnswerScore(NamedTuple):
    """Score one sample from the log-probabilities of its answers.

    Attributes:
        needs_choices: whether all answers are scored, not only the right one.
        is_differentiable: whether the score has a gradient.
        target_score: mean score at which the samples are fitted; more steps would overfit (RESULTS.md).
        compute: takes the answers' log-probabilities in nats, whether each is the greedy continuation, and the index
            of the right one.

    Example:
        >>> score = ANSWER_SCORES["margin"]
        >>> float(score.compute(torch.tensor([-1.0, -3.0]), torch.tensor([True, False]), 0))
        2.0
    """

    needs_choices: bool
    is_differentiable: bool
    target_score: float
    compute: Callable[[Float[Tensor, " answer"], Bool[Tensor, " answer"], int], Tensor]


def _margin(log_probability: Tensor, greedy: Tensor, gold: int) -> Tensor:
    others = torch.cat([log_probability[:gold], log_probability[gold + 1 :]])
    return log_probability[gold] - others.max()


def _accuracy(log_probability: Tensor, greedy: Tensor, gold: int) -> Tensor:
    right = greedy[gold] if len(log_probability) == 1 else log_probability.argmax() == gold
    # argmax over NaNs would return the index of one, so propagate NaN.
    return torch.where(log_probability.isnan().any(), math.nan, right.to(log_probability.dtype))


ANSWER_SCORES: Mapping[str, AnswerScore] = MappingProxyType(
    Registry(
        "objective",
        {
            # Probability of the right answer (the paper uses that of its first token).
            "probability": AnswerScore(False, True, 0.9, lambda log_probability, _, gold: log_probability[gold].exp()),
            # Log-probability of the right answer, in nats.
            "log_probability": AnswerScore(False, True, -0.1, lambda log_probability, _, gold: log_probability[gold]),
            # Log-probability of the right answer minus that of the best wrong one, in nats.
            "margin": AnswerScore(True, True, math.inf, _margin),
            # Whether the right answer is the likeliest choice; of a single answer, whether it is the greedy one.
            # The target is below 1 because the samples' weights add up to 1 only within rounding.
            "accuracy": AnswerScore(True, False, 1 - 1e-6, _accuracy),
        },
    )
)


class AnswerObjective(Objective):
    """Score an edit by the answers to labelled samples.

    Args:
        model: a causal language model; unchanged after every call.
        samples: the samples.
        encode: turns (context, continuation) texts into tokens, as lm-eval does.
        answer_score: a name in `ANSWER_SCORES`.
        sites: where to rotate.
        rotation: how angles become a rotation.
        batch_size: largest number of sequences in one forward pass; None for the scorer's default.

    Raises:
        UnknownName: There is no such answer score.
        TarotError: A prompt exceeds the model's context, samples have no answers, or "margin" is given samples with
            one answer.

    Example:
        >>> from tarot.models.lm_eval_model import TarotLM
        >>> from tarot.objectives.tasks.samples import draw_samples
        >>> from tarot.objectives.tasks.task_loading import load_task
        >>> samples = draw_samples(load_task("synth_color"), 8)
        >>> encode = TarotLM(model, tokenizer=tokenizer).encode
        >>> objective = AnswerObjective(model, samples, encode, sites=adapter.find_sites(model))
        >>> objective(adapter.angles) < 0
        True
    """

    def __init__(
        self,
        model: PreTrainedModel,
        samples: Sequence[Sample],
        encode: Encode,
        *,
        answer_score: str = "log_probability",
        sites: Sequence[Site],
        rotation: Rotation = ROTARY,
        batch_size: int | None = None,
    ) -> None:
        if answer_score == "margin" and any(len(sample.pairs) < 2 for sample in samples):
            raise InvalidValueError(
                "The objective 'margin' needs samples with several answers.", hint="use log_probability"
            )
        if not all(sample.pairs[sample.gold][1].strip() for sample in samples):
            hint = "score texts by a reward, such as --reward sentiment:positive"
            raise InvalidValueError(f"The objective {answer_score!r} needs samples with answers.", hint=hint)
        self.model = model
        self.samples = tuple(samples)
        self.encode = encode
        self.answer_score = ANSWER_SCORES[answer_score]
        self.target_score = self.answer_score.target_score
        self.sites = tuple(sites)
        self.rotation = rotation
        self._golds: list[int] = []
        self._sizes: list[int] = []  # number of requests of each sample
        self._weights = class_weights([sample.pairs[sample.gold][1] for sample in samples])
        requests, names = [], []
        for sample in samples:
            pairs = sample.pairs if self.answer_score.needs_choices else (sample.pairs[sample.gold],)
            requests += [Request(tuple(c), tuple(t)) for c, t in (encode(*pair) for pair in pairs)]
            names += [f"{sample.id}, answer {answer!r}" for _, answer in pairs]
            self._golds.append(sample.gold if self.answer_score.needs_choices else 0)
            self._sizes.append(len(pairs))
        self.scorer = Scorer(
            model,
            requests,
            batch_size,
            names=names,
            n_frozen_layers=min(site.layer for site in self.sites),
        )

    def measure(self, angles: Angles) -> Evaluation:
        """Return the score of these angles (radians), in nats or a fraction, as the answer score has it."""
        # Merging costs one small product per site; hooks would cost a pass over every site's activations.
        with torch.no_grad(), merge_temporarily(self.model, angles, self.sites, self.rotation):
            return Evaluation(float(self._weighted_sum(self.answer_score, self.scorer.log_probabilities())))

    def value_and_grad(self, angles: Angles) -> tuple[float, Angles]:
        """Return the score of these angles (radians) and its gradient, per radian, from one forward and backward pass.

        A score that is not differentiable uses the gradient of the mean log-probability. If all samples together do
        not fit into memory, they are computed one after another.
        """
        try:
            return self._value_and_grad(angles, self.scorer)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
        begin, score, gradient = 0, 0.0, torch.zeros(angles.shape)
        for i, size in enumerate(self._sizes):
            scorer = Scorer(self.model, self.scorer.requests[begin : begin + size])
            one_score, one_gradient = self._value_and_grad(angles, scorer, slice(i, i + 1))
            score, gradient, begin = score + one_score, gradient + one_gradient, begin + size
        return score, gradient

    def score_model(self) -> Float[Tensor, ""]:
        """Return the score of the model as it stands, differentiable in the weights that require gradients."""
        return self._weighted_sum(self.answer_score, self._unfrozen_scorer.log_probabilities())

    def _value_and_grad(self, angles: Angles, scorer: Scorer, part: slice = ALL) -> tuple[float, Angles]:
        """Return what part of the samples adds to the score and its gradient; `scorer` has their requests."""
        angles = angles.detach().to(self.model.device, copy=True).requires_grad_()
        with torch.enable_grad(), apply_rotation(self.model, angles, self.sites, self.rotation):
            answers = scorer.log_probabilities()
            score = self._weighted_sum(self.answer_score, answers, part)
            differentiable = (
                score
                if self.answer_score.is_differentiable
                else self._weighted_sum(ANSWER_SCORES["log_probability"], answers, part)
            )
            (gradient,) = torch.autograd.grad(differentiable, angles)
        return float(score.detach()), gradient.cpu()

    def _weighted_sum(self, answer_score: AnswerScore, answers: Answers, part: slice = ALL) -> Float[Tensor, ""]:
        """Add up the weighted scores of part of the samples, whose requests follow each other in `answers`."""
        log_probabilities, greedy = answers
        sizes = self._sizes[part]
        samples = zip(log_probabilities.split(sizes), greedy.split(sizes), self._golds[part], strict=True)
        scores = torch.stack([answer_score.compute(values, flags, gold) for values, flags, gold in samples])
        return scores @ self._weights[part].to(scores)

    @cached_property
    def _unfrozen_scorer(self) -> Scorer:
        """A scorer that caches no frozen layers, since any weight may change."""
        return Scorer(self.model, self.scorer.requests, self.scorer.batch_size)


def class_weights(answers: Sequence[str]) -> Float[Tensor, " sample"]:
    """Weight samples so that each class (right answer) counts the same, and each sample within its class.

    Args:
        answers: each sample's right answer.

    Returns:
        Weights that add up to 1.

    Example:
        >>> class_weights(["yes", "yes", "no"]).tolist()
        [0.25, 0.25, 0.5]
    """
    sizes = Counter(answers)
    return torch.tensor([1 / (len(sizes) * sizes[answer]) for answer in answers])
