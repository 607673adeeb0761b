"""The study's LoRA and steering for rewards: they find a planted one, and leave the model as it was."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from letters import plant_rewards
from test_baselines import state, unchanged

from tarot.models.lm_eval_model import TarotLM
from tarot.models.loaded_model import LoadedModel
from tarot.search.algorithms.policy_gradient import TRIAL_COST
from tarot.search.config import TaRotConfig

PROJECT = str(Path(__file__).parent.parent)
FOLLOW = TaRotConfig("openings", num_samples=4, objective="planted:vowels")


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoadedModel:
    monkeypatch.syspath_prepend(PROJECT)
    return plant_rewards(tmp_path, monkeypatch)


def checked_reward(loaded: LoadedModel, edit: object) -> float:
    """Return the mean reward of the texts by which an edit is chosen."""
    from benchmarks.study.reward_baselines import make_steps

    checked = make_steps(loaded, FOLLOW).checked
    with torch.no_grad(), edit.apply(loaded.model):
        texts = checked.generator.generate(checked.seed)
    rewards = list(checked.reward(checked.prompts, texts))
    return sum(rewards) / len(rewards)


@pytest.mark.parametrize("name", ["train_lora", "steer"])
def test_a_planted_reward_rises(loaded: LoadedModel, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.study import reward_baselines
    from tarot.evaluation.baselines import trained

    lora = trained.METHODS["lora"]
    monkeypatch.setattr(trained, "METHODS", {"lora": trained.PeftMethod(lora.make_config, 3e-2)})  # few steps
    monkeypatch.setattr(reward_baselines, "METHODS", trained.METHODS)
    make: Callable[..., object] = getattr(reward_baselines, name)
    before = state(loaded.model)
    edit = make(loaded, FOLLOW, 6 * TRIAL_COST)
    assert unchanged(loaded.model, before)
    base = reward_baselines.make_steps(loaded, FOLLOW).checked.base.reward
    assert checked_reward(loaded, edit) > base
    assert unchanged(loaded.model, before)
    assert 0 < edit.provenance["spent"] <= 6 * TRIAL_COST
    assert make(loaded, FOLLOW, 6 * TRIAL_COST).fingerprint == edit.fingerprint


def test_lora_draws_are_scored_by_the_unedited_model(loaded: LoadedModel) -> None:
    """Before the first step LoRA changes nothing, so its draws are those of the edit without angles."""
    from benchmarks.study.reward_baselines import _draw, make_steps
    from tarot.edit.sites import angle_mask
    from tarot.evaluation.baselines.trained import peft_layers

    policy = make_steps(loaded, FOLLOW).policy
    angles = torch.zeros(angle_mask(policy.sites, policy.rotation.n_angles).shape)
    expected = policy.draw(angles, 7, 0.5)
    with peft_layers("lora", loaded.model, [], 0) as (wrapped, parameters):
        assert _draw(policy, wrapped, 7, 0.5) == expected
        with torch.no_grad():
            for parameter in parameters:
                parameter.add_(0.1)
        changed = _draw(policy, wrapped, 7, 0.5)
    assert changed != expected
    flat = [draw for drawn in changed.draws for draw in drawn]
    assert sum(abs(draw.excess) for draw in flat) > 0.1
    lm = TarotLM(loaded.model, tokenizer=loaded.tokenizer)
    assert lm.model is policy.model
