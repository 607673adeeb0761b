"""Generation objective: the score of an edit by the texts that the edited model generates.

    score(angles) = mean over prompts of  reward(prompt, continuation under the edit)

lm-eval's own batched generation writes the continuations, with the task's length, stops and sampling, so that a search
and an evaluation see the same texts. Fluency is measured under the unedited model, so a text that it would never write
has a low fluency.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from statistics import fmean

import torch
from lm_eval.api.task import Task
from transformers import PreTrainedModel

from tarot.edit.merge import merge_temporarily
from tarot.edit.rotation import ROTARY, Angles, Rotation
from tarot.edit.sites import Site
from tarot.errors import InvalidValueError, TarotError
from tarot.models.lm_eval_model import TarotLM
from tarot.models.missing_numbers import BROKEN_MODEL_HINT, is_number
from tarot.objectives.objective import Evaluation, Objective
from tarot.objectives.rewards.fluency import NO_FLOOR, Fluency, FluencyFloor, make_fluency
from tarot.objectives.rewards.registry import Reward, highest_reward, make_reward
from tarot.objectives.rewards.text_scores import ScoredTexts, TextScores
from tarot.objectives.tasks.samples import Sample
from tarot.objectives.text_generation import TextGenerator

ROUNDING = 1e-9  # of a mean of scores


class GenerationObjective(Objective):
    """Score an edit by the mean reward of what the edited model generates.

    An edit that loses more fluency than `floor` allows scores NaN, which a search treats as a failed trial.

    Args:
        generator: generates with the model that is edited; the model is unchanged after every call.
        reward: scores (prompts, continuations).
        fluency: fluency under the unedited model.
        sites: where to rotate.
        rotation: how angles become a rotation.
        floor: how far fluency may fall.
        seed: random seed for sampling; every call starts from it.
        highest: highest score that a text can have. A search ends when all texts have it.

    Example:
        >>> lm = TarotLM(model, tokenizer=tokenizer)
        >>> generator = TextGenerator(lm, ["The film was"], {"until": [], "max_gen_toks": 5, "do_sample": False})
        >>> fluency = make_fluency(lm)
        >>> reward = make_reward("sentiment:positive", fluency)
        >>> objective = GenerationObjective(generator, reward, fluency, sites=adapter.find_sites(model))
        >>> -1 <= objective(adapter.angles) <= 1
        True
    """

    def __init__(
        self,
        generator: TextGenerator,
        reward: Reward,
        fluency: Fluency,
        *,
        sites: Sequence[Site],
        rotation: Rotation = ROTARY,
        floor: FluencyFloor = NO_FLOOR,
        seed: int = 0,
        highest: float = math.inf,
    ) -> None:
        self.target_score = highest - ROUNDING
        self.model: PreTrainedModel = generator.lm.model
        self.prompts = generator.prompts
        self.generator = generator
        self.reward = reward
        self.fluency = fluency
        self.sites = tuple(sites)
        self.rotation = rotation
        self.floor = floor
        self.seed = seed

    def measure(self, angles: Angles) -> Evaluation:
        """Return the score of these angles (radians), in the reward's units; NaN if the edit is refused."""
        texts = self.evaluate(angles)
        return Evaluation(texts.score, texts)

    def evaluate(self, angles: Angles) -> TextScores:
        """Score the texts that the edit of these angles (radians) generates.

        The edit is refused if its fluency is below the floor, or if a text, its reward or its fluency is not a finite
        number; the means are then taken over the finite ones.
        """
        if not angles.any():
            return self.base
        with torch.no_grad(), merge_temporarily(self.model, angles, self.sites, self.rotation):
            texts = self.generator.generate(self.seed)
        scored_texts = self._score(texts)
        scores = scored_texts.summary
        if self._is_broken(scores):
            reward, fluency = map(_finite_mean, (scored_texts.rewards, scored_texts.fluencies))
            return replace(scores, reward=reward, fluency=fluency, refused=True)
        return replace(scores, refused=scores.fluency < self.floor.minimum(self.base.fluency))

    @cached_property
    def base(self) -> TextScores:
        """Score what the unedited model generates."""
        scores = self._score(self.generator.generate(self.seed)).summary
        if self._is_broken(scores):
            raise TarotError("The unedited model's texts have no finite reward and fluency.", hint=BROKEN_MODEL_HINT)
        return scores

    def _score(self, texts: Sequence[str]) -> ScoredTexts:
        return score_texts(self.prompts, texts, self.reward, self.fluency)

    def _is_broken(self, scores: TextScores) -> bool:
        return bool(self.generator.lm.broken_prompts) or not is_number((scores.reward, scores.fluency))


def _finite_mean(values: Sequence[float]) -> float:
    finite = [value for value in values if is_number(value)]
    return fmean(finite) if finite else 0.0


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
    """Make the objective of a reward by name, on a generating task's samples; their answers are not used.

    Raises:
        UnknownName: There is no such reward.
        TarotError: The task does not generate, or the reward's package, classifier or function is missing.
    """
    check_generates(task, reward)
    prompts = [sample.pairs[sample.gold][0] for sample in samples]
    fluency = make_fluency(lm, batch_size)
    return GenerationObjective(
        TextGenerator(lm, prompts, task.config.generation_kwargs, batch_size),
        make_reward(reward, fluency),
        fluency,
        sites=sites,
        rotation=rotation,
        floor=floor,
        seed=seed,
        highest=highest_reward(reward),
    )


def check_generates(task: Task, reward: str) -> None:
    """Raise TarotError unless the model generates texts in this task, for a reward to score."""
    if task.OUTPUT_TYPE != "generate_until":
        name, output_type = task.config.task, task.OUTPUT_TYPE
        raise InvalidValueError(
            f"The reward {reward} scores generated texts, but {name} is a {output_type} task.",
            hint="try the task openings",
        )


def score_texts(prompts: Sequence[str], texts: Sequence[str], reward: Reward, fluency: Fluency) -> ScoredTexts:
    """Score continuations of prompts by a reward and their fluency; call it while the model is unedited.

    Example:
        >>> fluency = make_fluency(TarotLM(model, tokenizer=tokenizer))
        >>> reward = make_reward("sentiment:positive", fluency)
        >>> score_texts(["The film was"], [" good"], reward, fluency).rewards
        (0.4404,)
    """
    return ScoredTexts(tuple(texts), tuple(reward(prompts, texts)), tuple(fluency(prompts, texts)))
