"""Policy objective: draws and their gradient, against plain autograd on a random model that writes letters."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from letters import PROMPTS, lettered, vowels

from tarot.edit.hooks import apply_rotation
from tarot.edit.rotation import ROTARY
from tarot.edit.sites import find_sites
from tarot.models.generation.sampling import Sampler, Stops
from tarot.models.scoring.scorer import Request
from tarot.objectives.policy import KL_WEIGHT, DrawSet, PolicyObjective


def some_angles(seed: int, size: float = 1.0) -> torch.Tensor:
    return size * torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(seed))


def policy(reward=vowels, n_tokens: int = 5) -> PolicyObjective:
    lm = lettered()
    contexts = [lm.tok_encode(prompt) for prompt in PROMPTS]
    sampler = Sampler(lm.model, contexts, Stops(n_tokens, frozenset(), ("z",), lm.tok_decode))
    return PolicyObjective(sampler, PROMPTS, reward, sites=find_sites(lm.model, "heads", 0.5), rotation=ROTARY)


def plain_log_probabilities(angles: torch.Tensor, draws: DrawSet) -> list[torch.Tensor]:
    """Return the log-probability of each token, one text at a time, without a cache."""
    lm, logs = lettered(), []
    with apply_rotation(lm.model, angles, find_sites(lm.model, "heads", 0.5)):
        for prompt, drawn in zip(PROMPTS, draws.draws, strict=True):
            context = lm.tok_encode(prompt)
            for draw in drawn:
                steps = lm.model(torch.tensor([[*context, *draw.tokens]])).logits[0].log_softmax(-1)
                logs.append(steps[len(context) - 1 : -1].gather(1, torch.tensor(draw.tokens)[:, None])[:, 0])
    return logs


@given(st.integers(0, 1000))
@settings(max_examples=4, deadline=None)
def test_the_gradient_is_the_score_functions(seed: int) -> None:
    angles = some_angles(seed, 0.3).requires_grad_()
    draws = policy().draw(angles.detach(), seed, multiplier=0.5)
    logs = plain_log_probabilities(angles, draws)
    advantages = draws.advantages().flatten().float()
    total = sum((advantage * log.sum() for advantage, log in zip(advantages, logs, strict=True)), torch.zeros(()))
    (expected,) = torch.autograd.grad(total / len(logs), angles)
    assert torch.allclose(policy().gradient(angles.detach(), draws), expected, atol=1e-4)


@pytest.mark.parametrize("texts", [1, 3])
def test_a_backward_pass_holds_few_logits(texts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a model with a large vocabulary, the logits of all texts would take gigabytes."""
    angles, objective = some_angles(1, 0.3), policy()
    draws = objective.draw(angles, seed=1)
    whole = objective.gradient(angles, draws)
    longest = max(len(draw.tokens) for drawn in draws.draws for draw in drawn)
    vocabulary = objective.model.get_output_embeddings().weight.shape[0]
    monkeypatch.setattr("tarot.objectives.policy.PASS_LOGITS", texts * longest * vocabulary)
    sizes: list[int] = []

    def counted(angles: torch.Tensor, requests: list[Request], advantages: torch.Tensor) -> torch.Tensor:
        sizes.append(len(requests))
        return PolicyObjective._weighted_gradient(objective, angles, requests, advantages)

    monkeypatch.setattr(objective, "_weighted_gradient", counted)
    assert torch.allclose(objective.gradient(angles, draws), whole, atol=1e-6)
    assert max(sizes) == texts and sum(sizes) == sum(map(len, draws.draws))


def test_draws_are_scored_by_reward_fluency_and_divergence() -> None:
    angles = some_angles(2, 0.5)
    draws = policy().draw(angles, seed=3, multiplier=0.25)
    flat = [draw for drawn in draws.draws for draw in drawn]
    assert [draw.reward for draw in flat] == vowels([], [draw.text for draw in flat])
    assert not any("z" in draw.text for draw in flat)
    base = plain_log_probabilities(torch.zeros_like(angles), draws)
    edited = plain_log_probabilities(angles, draws)
    for draw, plain, turned in zip(flat, base, edited, strict=True):
        assert draw.fluency == pytest.approx(float(plain.mean()), abs=1e-4)
        assert draw.excess == pytest.approx(float(turned.sum() - plain.sum()), abs=1e-3)
    # One prompt: the advantage is the return minus the mean return of the other draws.
    rewards = torch.tensor([draw.reward for draw in flat], dtype=torch.float64)
    scale = rewards.view(len(PROMPTS), -1).var(1).mean().sqrt()
    returns = [draw.reward / float(scale) + 0.25 * draw.fluency - KL_WEIGHT * draw.excess for draw in draws.draws[0]]
    expected = [value - (sum(returns) - value) / (len(returns) - 1) for value in returns]
    assert draws.advantages()[0].tolist() == pytest.approx(expected)


def test_draws_depend_on_the_seed_and_leave_the_model_alone() -> None:
    model = lettered().model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    first, again, other = (policy().draw(some_angles(0), seed=seed) for seed in (0, 0, 1))
    policy().gradient(some_angles(1), first)
    assert first == again and first.draws != other.draws
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_constant_reward_at_the_identity_has_no_gradient() -> None:
    identity = torch.zeros(2, 3, 4)
    constant = policy(lambda prompts, texts: [0.5] * len(texts))
    assert float(constant.gradient(identity, constant.draw(identity, seed=0)).abs().max()) < 1e-4
