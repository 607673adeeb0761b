"""Policy objective: sampled texts, and the gradient of their expected return in the angles.

    return of a draw = reward / spread of the rewards + multiplier * fluency - KL_WEIGHT * (log p - log p of the base)

The last term is one sample of the KL divergence of the edited from the unedited model, as in RLOO (arXiv 2402.14740).
Fluency is the mean log-probability of the text's tokens under the unedited model, so both need one pass of that model.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from lm_eval.api.task import Task
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs
from torch import Tensor

from tarot._files.strict_json import Count, Number
from tarot.edit.hooks import apply_rotation
from tarot.edit.merge import merge_temporarily
from tarot.edit.rotation import Angles, Rotation
from tarot.edit.sites import Site
from tarot.errors import InvalidValueError
from tarot.models.generation.sampling import Sampler, Stops
from tarot.models.generation.text_stream import end_tokens
from tarot.models.lm_eval_model import TarotLM
from tarot.models.scoring.scorer import AUTO_PASS_LOGITS, Request, Scorer
from tarot.objectives.rewards.advantages import leave_one_out, spread
from tarot.objectives.rewards.registry import Reward
from tarot.objectives.tasks.samples import Sample

N_DRAWS = 4  # texts of each prompt
KL_WEIGHT = 0.02  # spreads of the reward for one nat of a text
# Texts of one backward pass, which keeps every layer's activations, and their logits, of which it keeps several copies.
PASS_TEXTS, PASS_LOGITS = 16, AUTO_PASS_LOGITS


@dataclass(frozen=True)
class Draw:
    """One sampled text.

    Attributes:
        text: the text.
        tokens: as sampled, with the one that ended the text.
        reward: in the reward's units.
        base: log-probability of all tokens under the unedited model, in nats.
        edited: the same under the edit that drew the text.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    text: str
    tokens: tuple[Count, ...]
    reward: Number
    base: Number
    edited: Number

    def __post_init__(self) -> None:
        if not self.tokens:
            raise ValueError("a draw without tokens")

    @property
    def fluency(self) -> float:
        """Mean log-probability of a token under the unedited model, in nats."""
        return self.base / len(self.tokens)

    @property
    def excess(self) -> float:
        """Log-probability of the text under the edit minus that under the unedited model, in nats."""
        return self.edited - self.base


@dataclass(frozen=True)
class DrawSet:
    """The draws that a step follows.

    Attributes:
        seed: random seed of the draws.
        multiplier: weight of the fluency in the return.
        draws: by prompt.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    seed: int
    multiplier: Number
    draws: tuple[tuple[Draw, ...], ...]

    @property
    def is_finite(self) -> bool:
        """Whether all rewards and log-probabilities are numbers."""
        flat = [draw for drawn in self.draws for draw in drawn]
        return all(map(math.isfinite, (each for d in flat for each in (d.reward, d.base, d.edited))))

    def advantages(self) -> Float[Tensor, "prompt draw"]:
        """Return the advantage of each draw, in spreads of the reward."""
        rewards = torch.tensor([[draw.reward for draw in drawn] for drawn in self.draws], dtype=torch.float64)
        scale = spread(rewards) or 1.0
        penalties = torch.tensor(
            [[self.multiplier * draw.fluency - KL_WEIGHT * draw.excess for draw in drawn] for drawn in self.draws],
            dtype=torch.float64,
        )
        return leave_one_out(rewards / scale + penalties)


class PolicyObjective:
    """Sample texts under an edit, and estimate the gradient of their expected return.

    Args:
        sampler: draws the texts; its model is the one that is edited, and is unchanged after every call.
        prompts: the prompts as the model sees them.
        reward: scores (prompts, continuations).
        sites: where to rotate.
        rotation: how angles become a rotation.
    """

    def __init__(
        self, sampler: Sampler, prompts: Sequence[str], reward: Reward, *, sites: Sequence[Site], rotation: Rotation
    ) -> None:
        self.model = sampler.model
        self.sampler = sampler
        self.prompts = prompts
        self.reward = reward
        self.sites = tuple(sites)
        self.rotation = rotation

    def draw(self, angles: Angles, seed: int, multiplier: float = 0.0) -> DrawSet:
        """Sample and score texts under the edit of these angles, in radians."""
        with torch.no_grad(), merge_temporarily(self.model, angles, self.sites, self.rotation):
            texts = self.sampler.sample(N_DRAWS, seed)
        flat = [text for drawn in texts for text in drawn]
        prompts = [prompt for prompt in self.prompts for _ in range(N_DRAWS)]
        rewards = self.reward(prompts, [text.text for text in flat])
        requests = self.requests([[text.tokens for text in drawn] for drawn in texts])
        with torch.no_grad():
            base = Scorer(self.model, requests, self.sampler.batch_size).log_probabilities()[0].tolist()
        draws = [
            Draw(text.text, text.tokens, float(reward), total, sum(text.log_probabilities))
            for text, reward, total in zip(flat, rewards, base, strict=True)
        ]
        by_prompt = (tuple(draws[begin : begin + N_DRAWS]) for begin in range(0, len(draws), N_DRAWS))
        return DrawSet(seed, multiplier, tuple(by_prompt))

    def gradient(self, angles: Angles, draws: DrawSet) -> Angles:
        """Estimate the gradient of the expected return at the angles that drew the texts (radians), per radian.

        Raises:
            TarotError: the draws are not of the objective's prompts, or have tokens that the model does not.
        """
        if len(draws.draws) != len(self.prompts) or not all(len(drawn) > 1 for drawn in draws.draws):
            raise InvalidValueError(
                f"Each of the {len(self.prompts)} prompts needs at least two draws.", hint="tune again"
            )
        vocabulary = self.model.get_output_embeddings().weight.shape[0]
        if (largest := max(token for drawn in draws.draws for draw in drawn for token in draw.tokens)) >= vocabulary:
            raise InvalidValueError(f"tokens below {vocabulary} in the draws", str(largest), "tune again")
        requests = self.requests([[draw.tokens for draw in drawn] for drawn in draws.draws])
        advantages = draws.advantages().flatten().float()
        total = torch.zeros(angles.shape)
        longest = max(len(request.continuation) for request in requests)
        n_texts = max(1, min(PASS_TEXTS, PASS_LOGITS // (longest * vocabulary)))
        for begin in range(0, len(requests), n_texts):
            part = slice(begin, begin + n_texts)
            total += self._weighted_gradient(angles, requests[part], advantages[part])
        return total / len(requests)

    def _weighted_gradient(
        self, angles: Angles, requests: Sequence[Request], advantages: Float[Tensor, " draw"]
    ) -> Angles:
        """Return the gradient of the texts' log-probabilities, weighted by their advantages."""
        angles = angles.detach().to(self.model.device, copy=True).requires_grad_()
        with torch.enable_grad(), apply_rotation(self.model, angles, self.sites, self.rotation):
            scores = Scorer(self.model, requests).log_probabilities()[0]
            (gradient,) = torch.autograd.grad(scores @ advantages.to(scores), angles)
        return gradient.cpu()

    def requests(self, tokens: Sequence[Sequence[tuple[int, ...]]]) -> list[Request]:
        """Return what scores texts, given as the tokens of each prompt's draws, after their prompts."""
        contexts = self.sampler.contexts
        return [
            Request(tuple(context), text) for context, drawn in zip(contexts, tokens, strict=True) for text in drawn
        ]


def make_policy_objective(
    lm: TarotLM,
    task: Task,
    samples: Sequence[Sample],
    reward: Reward,
    *,
    sites: Sequence[Site],
    rotation: Rotation,
    batch_size: int | None,
) -> PolicyObjective:
    """Make the policy objective of a reward on a generating task's samples; their answers are not used.

    Texts have the task's length and stops. They are sampled at temperature 1, whatever the task's own sampling.
    """
    options = normalize_gen_kwargs(dict(task.config.generation_kwargs), lm.max_gen_toks)
    n_tokens = int(options["max_gen_toks"])
    end = lm.tok_decode(lm.eot_token_id, skip_special_tokens=False)
    strings = [stop for stop in handle_stop_sequences(options.get("until"), eos=end) if stop != end]
    stops = Stops(n_tokens, end_tokens(lm.model, lm.tokenizer), tuple(strings), lm.tok_decode)
    prompts = [sample.pairs[sample.gold][0] for sample in samples]
    longest = max(1, lm.max_length - n_tokens)
    contexts = [lm.tok_encode(prompt, left_truncate_len=longest) for prompt in prompts]
    sampler = Sampler(lm.model, contexts, stops, batch_size)
    return PolicyObjective(sampler, prompts, reward, sites=sites, rotation=rotation)
