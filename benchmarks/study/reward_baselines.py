"""Other ways to follow a reward, which the study compares with edits: LoRA and steering.

`train_lora` follows the policy gradient of `tarot.search.algorithms.policy_gradient` in PEFT's LoRA: the same draws,
advantages, KL term, multiplier, patience, and way back from texts below the fluency floor. The rate is that of the
baseline `lora`, and falls in the same way.

`steer` adds a mean difference of activations after one layer, between the best and the worst of four sampled texts of
each prompt (arXiv 2312.06681). Layer and strength are the ones whose texts for the prompts that no draw uses have the
highest reward, among those above the floor.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tarot.edit.patch import Patch
from tarot.edit.sites import decoder_layers
from tarot.evaluation.baselines.steering import STRENGTHS, SteeringEdit
from tarot.evaluation.baselines.trained import METHODS, merge_layers, peft_layers
from tarot.evaluation.baselines.weights import WeightEdit
from tarot.models.loaded_model import LoadedModel
from tarot.models.scoring.scorer import Scorer
from tarot.objectives.generated import GenerationObjective, score_texts
from tarot.objectives.policy import N_DRAWS, PASS_TEXTS, Draw, DrawSet, PolicyObjective
from tarot.objectives.rewards.advantages import next_multiplier
from tarot.objectives.rewards.text_scores import TextScores
from tarot.search.algorithms.points import stable_seed
from tarot.search.algorithms.policy_gradient import MULTIPLIER_RATE, TRIAL_COST, PolicyGradient, PolicySteps
from tarot.search.config import TaRotConfig
from tarot.search.problem import Problem


def make_steps(loaded: LoadedModel, config: TaRotConfig) -> PolicySteps:
    """Return what the search of this configuration would follow."""
    steps = Problem.from_config(loaded, config).policy
    assert steps is not None  # the configuration's search is a policy gradient
    return steps


def train_lora(loaded: LoadedModel, config: TaRotConfig, budget: int) -> WeightEdit:
    """Train LoRA by the policy gradient, and return the step with the best texts above the floor."""
    steps = make_steps(loaded, config)
    policy, checked = steps.policy, steps.checked
    floor = steps.floor.minimum(checked.base.fluency)  # of the unedited model, before it gets any layers
    best, best_trial, best_reward = None, 0, checked.base.reward
    trial, multiplier = 0, 0.0
    with peft_layers("lora", loaded.model, [], config.seed) as (wrapped, parameters):
        optimizer = torch.optim.Adam(parameters, lr=METHODS["lora"].rate)
        halving = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step / PolicyGradient.halving))
        followed = _copied(parameters)
        for trial in range(budget // TRIAL_COST):
            with torch.no_grad():
                texts = checked.generator.generate(checked.seed)
                with wrapped.disable_adapter():
                    scores = score_texts(checked.prompts, texts, checked.reward, checked.fluency).summary
            if scores.fluency < floor:
                _assign(parameters, [(now + last) / 2 for now, last in zip(parameters, followed, strict=True)])
                continue
            if scores.reward > best_reward:
                best, best_trial, best_reward = _copied(parameters), trial, scores.reward
            if trial - best_trial >= PolicyGradient.patience:
                break
            followed = _copied(parameters)
            multiplier = next_multiplier(multiplier, steps.shortfall(scores.fluency), MULTIPLIER_RATE)
            draws = _draw(policy, wrapped, stable_seed(config.seed, trial), multiplier)
            optimizer.zero_grad()
            _descend(policy, draws)
            optimizer.step()
            halving.step()
        provenance = {"method": "lora", "trials": trial + 1, "best": best_trial, "spent": (trial + 1) * TRIAL_COST}
        if best is None:
            return WeightEdit({}, 0, provenance)
        _assign(parameters, best)
        return merge_layers(wrapped, loaded.model, parameters, provenance)


def _draw(policy: PolicyObjective, wrapped: Any, seed: int, multiplier: float) -> DrawSet:
    """Sample and score texts under the LoRA weights, as `PolicyObjective.draw` does under angles."""
    with torch.no_grad():
        texts = policy.sampler.sample(N_DRAWS, seed)
        requests = policy.requests([[text.tokens for text in drawn] for drawn in texts])
        with wrapped.disable_adapter():
            base = iter(Scorer(policy.model, requests).log_probabilities()[0].tolist())
    draws = []
    for prompt, drawn in zip(policy.prompts, texts, strict=True):
        rewards = policy.reward([prompt] * len(drawn), [text.text for text in drawn])
        draws.append(
            tuple(
                Draw(text.text, text.tokens, float(reward), next(base), sum(text.log_probabilities))
                for text, reward in zip(drawn, rewards, strict=True)
            )
        )
    return DrawSet(seed, multiplier, tuple(draws))


def _descend(policy: PolicyObjective, draws: DrawSet) -> None:
    """Add to the parameters' gradients that of minus the expected return."""
    requests = policy.requests([[draw.tokens for draw in drawn] for drawn in draws.draws])
    advantages = draws.advantages().flatten().float()
    for begin in range(0, len(requests), PASS_TEXTS):
        part = slice(begin, begin + PASS_TEXTS)
        with torch.enable_grad():
            scores = Scorer(policy.model, requests[part]).log_probabilities()[0]
            (-(scores @ advantages[part].to(scores)) / len(requests)).backward()


def _copied(parameters: Sequence[Tensor]) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in parameters]


def _assign(parameters: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)


def steer(loaded: LoadedModel, config: TaRotConfig, budget: int) -> SteeringEdit:
    """Choose layer and strength of a vector; sampling counts for as many evaluations as it draws texts a prompt."""
    steps = make_steps(loaded, config)
    vectors = _mean_differences(loaded, steps.policy, config.seed)
    base = steps.checked.base
    floor = steps.floor.minimum(base.fluency)
    best, best_reward, spent = SteeringEdit({}, "output", {"method": "steering"}), base.reward, N_DRAWS
    for candidate in _candidates(vectors, budget - N_DRAWS):
        scores = _score(loaded, candidate, steps.checked)
        spent += 1
        if scores.fluency >= floor and scores.reward > best_reward:
            best, best_reward = candidate, scores.reward
    return replace(best, provenance={**best.provenance, "spent": spent})


def _candidates(vectors: dict[str, Float[Tensor, " width"]], n: int) -> Iterator[SteeringEdit]:
    """Yield a vector of each strength after each of at most n / 4 layers, spread evenly."""
    names = list(vectors)
    chosen = np.linspace(0, len(names) - 1, min(len(names), n // len(STRENGTHS))).round().astype(int)
    for row, strength in product(chosen, STRENGTHS):
        name = names[row]
        provenance = {"method": "steering", "module": name, "strength": strength}
        yield SteeringEdit({name: strength * vectors[name]}, "output", provenance)


def _score(loaded: LoadedModel, edit: SteeringEdit, checked: GenerationObjective) -> TextScores:
    with torch.no_grad(), edit.apply(loaded.model):
        texts = checked.generator.generate(checked.seed)
    return score_texts(checked.prompts, texts, checked.reward, checked.fluency).summary


def _mean_differences(loaded: LoadedModel, policy: PolicyObjective, seed: int) -> dict[str, Float[Tensor, " width"]]:
    """Return for each layer the mean difference between the best and the worst text of each prompt.

    A text's activation is the mean over its own tokens. Prompts whose texts all have the same reward do not count.
    """
    names = {id(module): name for name, module in loaded.model.named_modules()}
    layers = {names[id(layer)]: layer for layer in decoder_layers(loaded.model)}
    recorded: dict[str, Tensor] = {}
    with torch.no_grad(), Patch(loaded.model) as patch:
        texts = policy.sampler.sample(N_DRAWS, seed)
        for name, layer in layers.items():
            patch.after(layer, lambda _, args, out, name=name: recorded.update({name: _hidden(out)}))
        patch.apply()
        differences: dict[str, list[Tensor]] = {name: [] for name in layers}
        for prompt, context, drawn in zip(policy.prompts, policy.sampler.contexts, texts, strict=True):
            rewards = list(policy.reward([prompt] * len(drawn), [text.text for text in drawn]))
            if max(rewards) == min(rewards):
                continue
            means = []
            for row in (rewards.index(max(rewards)), rewards.index(min(rewards))):
                loaded.model(input_ids=torch.tensor([[*context, *drawn[row].tokens]], device=loaded.model.device))
                means.append({name: hidden[0, len(context) :].mean(0) for name, hidden in recorded.items()})
            for name in layers:
                differences[name].append(means[0][name] - means[1][name])
    return {name: torch.stack(rows).mean(0) for name, rows in differences.items() if rows}


def _hidden(out: object) -> Tensor:
    hidden = out[0] if isinstance(out, tuple) else out
    assert isinstance(hidden, Tensor)
    return hidden.detach().float()
