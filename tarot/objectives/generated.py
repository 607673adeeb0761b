"""Angles -> mean reward of what the edited model writes, higher is better.

    score(angles) = mean over prompts of  reward(prompt, continuation under the edit)

Continuations are made by the harness' own batched generation, with the task's own length, stops and sampling, so that
a search and an evaluation see the same texts. Fluency is that of the texts under the unedited model: a text that the
base would never write has little of it, whoever wrote it.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean
from typing import Any

import torch
from jaxtyping import Float
from lm_eval.api.instance import Instance
from lm_eval.api.task import Task
from torch import Tensor
from transformers import PreTrainedModel

from tarot.edit.hooks import apply_rotation
from tarot.edit.merge import merge_temporarily
from tarot.edit.rotation import ROTARY, Rotation
from tarot.edit.sites import Site, angle_mask
from tarot.errors import TarotError
from tarot.models.lm_eval_model import TarotLM
from tarot.models.missing_numbers import HINT, is_number
from tarot.models.scoring.scorer import Request, Scorer
from tarot.objectives.rewards import Fluency, Reward, make_reward
from tarot.objectives.samples import Sample
from tarot.objectives.text_metrics import ScoredTexts, TextScores

BATCH = 32  # prompts of one generation, when the caller leaves it to us
DRAWS = 4  # continuations of each prompt from which a gradient is estimated


@dataclass(frozen=True)
class FluencyFloor:
    """least = base - nats, or base * (1 + percent / 100): how far fluency, which is negative, may fall."""

    nats: float = math.inf
    percent: float = math.inf

    @classmethod
    def parse(cls, text: str | None) -> "FluencyFloor":
        """Of `0.3` (nats a token) or `10%` (of the base's log perplexity); None for no floor."""
        if text is None:
            return cls()
        try:
            number = float(text.removesuffix("%"))
        except ValueError:
            number = math.nan
        if not 0 <= number < math.inf:
            raise TarotError("a fluency floor in nats, or in percent of the base's", repr(text), "try 0.3 or 10%")
        return cls(percent=number) if text.endswith("%") else cls(nats=number)

    def least(self, base: float) -> float:
        """The lowest fluency that is allowed, in nats a token, where the unedited model's is `base`."""
        if self.percent < math.inf:
            return base * (1 + self.percent / 100)
        return base - self.nats


NO_FLOOR = FluencyFloor()


class TextGenerator:
    """Continuations of fixed prompts by a model as it stands.

    Args:
        lm: the harness' model.
        prompts: as the model sees them, template and all.
        options: lm-eval's `generation_kwargs` of the task: length, stops, sampling.
        batch_size: most prompts of one pass; None leaves it to us.
    """

    def __init__(
        self, lm: TarotLM, prompts: Sequence[str], options: Mapping[str, Any], batch_size: int | None = None
    ) -> None:
        self.lm = TarotLM(lm.model, tokenizer=lm.tokenizer, batch_size=batch_size or min(BATCH, len(prompts)))
        self.prompts = prompts
        self.options = options

    def written(self, seed: int, **changed: object) -> list[str]:
        """One continuation of each prompt; `seed` decides what is sampled, `changed` goes over the options."""
        options = {**self.options, **changed}
        requests = [Instance("generate_until", {}, (prompt, deepcopy(options)), 0) for prompt in self.prompts]
        with seeded(seed):
            return [str(text) for text in self.lm.generate_until(requests, disable_tqdm=True)]


class GenerationObjective:
    """Mean reward of what an edited model writes.

    Called like `tarot.objectives.answers.AnswerObjective`. An edit that loses more fluency than `floor` allows scores nan, which a
    search takes for a failed trial: never its best, and not to be tried again.

    Args:
        generations: by the model that is edited; it is left as it was after every call.
        reward: what a continuation is worth.
        fluency: of a continuation, under the unedited model.
        sites: where to rotate.
        rotation: how angles become a rotation.
        floor: how far fluency may fall.
        seed: of sampling; every call begins from it.
    """

    def __init__(
        self,
        generations: TextGenerator,
        reward: Reward,
        fluency: Fluency,
        *,
        sites: Sequence[Site],
        rotation: Rotation = ROTARY,
        floor: FluencyFloor = NO_FLOOR,
        seed: int = 0,
    ) -> None:
        self.model: PreTrainedModel = generations.lm.model
        self.prompts = generations.prompts
        self.generations = generations
        self.reward = reward
        self.fluency = fluency
        self.sites = tuple(sites)
        self.rotation = rotation
        self.floor = floor
        self.seed = seed
        self._gradients = 0

    def __call__(self, angles: Float[Tensor, "layer head angle"]) -> float:
        """Score of these angles (radians), in the reward's units; nan where they are refused."""
        return self.outcome(angles).score

    def outcome(self, angles: Float[Tensor, "layer head angle"]) -> TextScores:
        """Judge what the edit of these angles writes; refused if a text, its reward or its fluency has no number.

        The means of such an outcome are over the numbers that there are.
        """
        if not angles.any():
            return self.base
        score_texts = self._judged(self._written(angles))
        outcome = score_texts.outcome
        if self.generations.lm.broken_prompts or not is_number((outcome.reward, outcome.fluency)):
            finite = [
                [value for value in values if is_number(value)]
                for values in (score_texts.rewards, score_texts.fluencies)
            ]
            reward, fluency = (fmean(values) if values else 0.0 for values in finite)
            return replace(outcome, reward=reward, fluency=fluency, refused=True)
        return replace(outcome, refused=outcome.fluency < self.floor.least(self.base.fluency))

    @cached_property
    def base(self) -> TextScores:
        """What the unedited model writes."""
        outcome = self._judged(self.generations.written(self.seed)).outcome
        if self.generations.lm.broken_prompts or not is_number((outcome.reward, outcome.fluency)):
            raise TarotError("finite numbers for what the unedited model writes", "NaN or infinity", HINT)
        return outcome

    def gradient(self, angles: Float[Tensor, "layer head angle"] | None = None) -> Float[Tensor, "layer head angle"]:
        """d E[reward] / d angles, estimated: mean over draws of (reward - mean of the prompt's others) d log p(text).

        Of sampled texts, since the reward of greedy ones has no slope. The score-function estimator of Williams,
        Machine Learning 8 (1992), with the leave-one-out baseline of Kool, van Hoof and Welling (2019). Every call
        draws anew, so that two gradients at one point are two directions; the order of calls decides what is drawn.

        Args:
            angles: in radians; None for the identity.

        Raises:
            TarotError: at the identity, every prompt's draws are worth the same.
        """
        if angles is None:
            angles = torch.zeros(angle_mask(self.sites, self.rotation.n_angles).shape)
        first = self.seed + 1 + self._gradients * DRAWS
        self._gradients += 1
        draws = [self._written(angles, first + i, do_sample=True, temperature=1.0, top_k=0) for i in range(DRAWS)]
        worth = torch.tensor([list(self.reward(self.prompts, texts)) for texts in draws])
        advantage = (worth - worth.mean(0)) * DRAWS / (DRAWS - 1)
        if not advantage.any() and not angles.any():
            raise TarotError(
                "rewards that differ between texts", f"{float(worth.mean()):g} for all", "try --space head, or others"
            )
        total = torch.zeros(angles.shape)
        for i, prompt in enumerate(self.prompts):
            if advantage[:, i].any():
                requests = tuple(self.fluency.request(prompt, draw[i]) for draw in draws)
                total += self._slope(angles, requests, advantage[:, i])
        return total / (DRAWS * len(self.prompts))

    def _slope(
        self, at: Float[Tensor, "layer head angle"], requests: tuple[Request, ...], weights: Float[Tensor, " draw"]
    ) -> Float[Tensor, "layer head angle"]:
        """d (sum of weight * log p) / d angles."""
        angles = at.detach().to(self.model.device, copy=True).requires_grad_()
        with torch.enable_grad(), apply_rotation(self.model, angles, self.sites, self.rotation):
            total, _ = Scorer(self.model, requests).log_probabilities()
            (value_and_grad,) = torch.autograd.grad(total @ weights.to(total), angles)
        return value_and_grad.cpu()

    def _written(
        self, angles: Float[Tensor, "layer head angle"], seed: int | None = None, **changed: object
    ) -> list[str]:
        with torch.no_grad(), merge_temporarily(self.model, angles, self.sites, self.rotation):
            return self.generations.written(self.seed if seed is None else seed, **changed)

    def _judged(self, texts: Sequence[str]) -> ScoredTexts:
        return score_texts(self.prompts, texts, self.reward, self.fluency)


def make_generation_objective(
    lm: TarotLM,
    task: Task,
    samples: Sequence[Sample],
    reward: str,
    *,
    sites: Sequence[Site],
    rotation: Rotation,
    floor: FluencyFloor,
    seed: int,
    batch_size: int | None,
) -> GenerationObjective:
    """The objective of a reward by name, on samples of a task that generates; their answers, if any, are not used.

    Raises:
        UnknownName: no such reward.
        TarotError: a task that does not generate, or a reward that cannot be had.
    """
    check_generates(task, reward)
    prompts = [sample.pairs[sample.gold][0] for sample in samples]
    fluency = fluency_of(lm, batch_size)
    return GenerationObjective(
        TextGenerator(lm, prompts, task.config.generation_kwargs, batch_size),
        make_reward(reward, fluency),
        fluency,
        sites=sites,
        rotation=rotation,
        floor=floor,
        seed=seed,
    )


def check_generates(task: Task, reward: str) -> None:
    """Raise TarotError unless the task has texts written, for a reward to judge."""
    if task.OUTPUT_TYPE != "generate_until":
        name, kind = task.config.task, task.OUTPUT_TYPE
        raise TarotError(f"a task that generates, to judge by {reward}", f"{kind} in {name}", "try the task openings")


def fluency_of(lm: TarotLM, batch_size: int | None = None) -> Fluency:
    """Fluency under the harness' model, of a continuation's own tokens behind those of its prompt.

    Encoded apart, as they were generated: the harness' answers begin with what space a context ends in, and a newline
    that every template ends in would count as a word of the model's.
    """

    def encode(prompt: str, continuation: str) -> tuple[list[int], list[int]]:
        return lm.tok_encode(prompt), lm.tok_encode(continuation, add_special_tokens=False)

    return Fluency(lm.model, encode, lm.eot_token_id, batch_size)


def score_texts(prompts: Sequence[str], texts: Sequence[str], reward: Reward, fluency: Fluency) -> ScoredTexts:
    """Continuations of prompts, judged; while the model that fluency is under is unedited."""
    return ScoredTexts(tuple(texts), tuple(reward(prompts, texts)), tuple(fluency(prompts, texts)))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's generators, of every device, seeded for the body and put back after it."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield
