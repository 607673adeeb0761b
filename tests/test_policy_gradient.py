"""Policy gradient: a planted reward, the floor's multiplier, and a resumed run that is the uninterrupted one."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from after_trial import AfterTrial
from hypothesis import given
from hypothesis import strategies as st
from letters import plant_rewards

from tarot.errors import TarotError
from tarot.models.loaded_model import LoadedModel
from tarot.objectives import retained
from tarot.objectives.policy import Draw, DrawSet
from tarot.objectives.rewards.fluency import NO_FLOOR, FluencyFloor
from tarot.objectives.rewards.text_scores import TextScoreLog, TextScores
from tarot.search.algorithms.policy_gradient import DrawLog, PolicyGradient, PolicySteps
from tarot.search.algorithms.registry import SEARCHES
from tarot.search.config import TaRotConfig
from tarot.search.folder import read_curve, read_trials
from tarot.search.problem import Problem
from tarot.search.trials import Trial
from tarot.search.tune import tune

BUDGET = 5 * SEARCHES["policy-gradient"].trial_cost
FOLLOW = TaRotConfig("openings", num_samples=4, objective="planted:vowels")


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoadedModel:
    return plant_rewards(tmp_path, monkeypatch)


def test_it_is_the_default_for_rewards_alone() -> None:
    assert TaRotConfig("openings", objective="fluency").search == "policy-gradient"
    assert TaRotConfig("openings").search == "adam"
    for objective, search in (("fluency", "adam"), ("log_probability", "policy-gradient")):
        with pytest.raises(TarotError, match="gradient"):
            TaRotConfig("openings", objective=objective, search=search)


def test_a_planted_reward_is_maximised(tmp_path: Path, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reward and its opposite must diverge on the texts that the gradient follows."""
    monkeypatch.setattr(PolicyGradient, "rate", 1 / 4)  # few steps on few texts
    sampled = {}
    for name in ("vowels", "consonants"):
        config = replace(FOLLOW, objective=f"planted:{name}")
        tune(
            loaded.model,
            loaded.tokenizer,
            config,
            output_dir=tmp_path / name,
            budget=7 * SEARCHES[config.search].trial_cost,
        )
        sets = DrawLog.read(tmp_path / name)
        rewards = [[draw.reward for drawn in sets[i].draws for draw in drawn] for i in sorted(sets)]
        sampled[name] = [sum(each) / len(each) for each in rewards]
    assert sampled["vowels"][-1] > 1 - sampled["consonants"][-1] + 0.05


def test_resumed_equals_uninterrupted(tmp_path: Path, loaded: LoadedModel) -> None:
    def stop(trial: object, result: object) -> None:
        if len(result.trials) == 2:
            raise RuntimeError("the machine went away")

    config = replace(FOLLOW, fluency_floor="20%")
    whole = tune(loaded.model, loaded.tokenizer, config, output_dir=tmp_path / "whole", budget=BUDGET)
    with pytest.raises(RuntimeError, match="the machine went away"):
        tune(
            loaded.model,
            loaded.tokenizer,
            config,
            output_dir=tmp_path / "cut",
            budget=BUDGET,
            callbacks=[AfterTrial(stop)],
        )
    again = tune(loaded.model, loaded.tokenizer, config, output_dir=tmp_path / "cut", budget=BUDGET, resume=True)
    assert again.fingerprint == whole.fingerprint
    assert [trial.x for trial in read_trials(tmp_path / "cut")] == [
        trial.x for trial in read_trials(tmp_path / "whole")
    ]
    assert DrawLog.read(tmp_path / "cut") == DrawLog.read(tmp_path / "whole")
    assert TextScoreLog.read(tmp_path / "cut") == TextScoreLog.read(tmp_path / "whole")
    # Without a folder nothing is kept, and the edit is the same.
    assert tune(loaded.model, loaded.tokenizer, config, budget=BUDGET).fingerprint == whole.fingerprint


def test_the_budget_counts_draws_gradients_and_scores(tmp_path: Path, loaded: LoadedModel) -> None:
    adapter = tune(loaded.model, loaded.tokenizer, FOLLOW, output_dir=tmp_path / "out", budget=BUDGET + 1)
    assert adapter.provenance["trials"] == 5 and adapter.provenance["spent"] == BUDGET
    assert len(read_curve(tmp_path / "out", "policy-gradient")) == BUDGET


def test_scores_are_of_prompts_that_no_gradient_follows(loaded: LoadedModel) -> None:
    problem = Problem.from_config(loaded, FOLLOW)
    assert problem.policy is not None
    followed, scored = set(problem.policy.policy.prompts), set(problem.objective.prompts)
    assert len(followed) == len(scored) == FOLLOW.num_samples and not followed & scored


NO_ANGLES = torch.zeros(1, 1, 2)


class Texts:
    """Stands for the scored texts and for the draws: what they would be does not matter to the multiplier."""

    base = TextScores(reward=0.0, fluency=-1.0, distinct_2=1.0, repetition=0.0)

    def __init__(self, fluency: float) -> None:
        self.fluency = fluency

    def evaluate(self, angles: torch.Tensor) -> TextScores:
        return replace(self.base, fluency=self.fluency)

    def draw(self, angles: torch.Tensor, seed: int, multiplier: float) -> DrawSet:
        return DrawSet(seed, multiplier, ())

    def gradient(self, angles: torch.Tensor, draws: DrawSet) -> torch.Tensor:
        return torch.zeros_like(angles)


@given(st.floats(-5, 0), st.floats(0, 2))
def test_the_multiplier_grows_while_texts_are_below_the_middle_of_the_floor(fluency: float, width: float) -> None:
    texts, log = Texts(fluency), DrawLog(None)
    steps = PolicySteps(texts, texts, FluencyFloor(nats=width), seed=0)
    for trial in range(3):
        steps(trial, torch.zeros(1, 1, 2), log)
    assert list(log.entries) == [0, 1, 2]
    multipliers = [draws.multiplier for draws in log.entries.values()]
    if fluency < -1 - width / 2 - 0.01:
        assert 0 < multipliers[0] < multipliers[1] < multipliers[2]
    elif fluency >= -1:
        assert multipliers == [0, 0, 0]


def test_without_a_floor_fluency_has_no_weight() -> None:
    texts, log = Texts(-50.0), DrawLog(None)
    PolicySteps(texts, texts, NO_FLOOR, seed=0)(0, torch.zeros(1, 1, 2), log)
    assert log.entries[0].multiplier == 0


@pytest.mark.parametrize("damage", ["[", '{"0": {}}', '{"1": {"seed": 0, "multiplier": 0, "draws": []}}'])
def test_damaged_draws_are_an_error(tmp_path: Path, loaded: LoadedModel, damage: str) -> None:
    out = tmp_path / "out"
    tune(loaded.model, loaded.tokenizer, FOLLOW, output_dir=out, budget=SEARCHES["policy-gradient"].trial_cost)
    assert json.loads((out / "draws.json").read_text())
    (out / "draws.json").write_text(damage)
    with pytest.raises(TarotError, match="draws"):
        tune(loaded.model, loaded.tokenizer, FOLLOW, output_dir=out, budget=BUDGET, resume=True)


def test_draws_of_other_tokens_are_refused(tmp_path: Path, loaded: LoadedModel) -> None:
    out, path = tmp_path / "out", tmp_path / "out" / "draws.json"
    tune(loaded.model, loaded.tokenizer, FOLLOW, output_dir=out, budget=SEARCHES["policy-gradient"].trial_cost)
    sets = json.loads(path.read_text())
    sets["1"] = sets["0"]  # as if the search had been killed between the draws and the end of the trial
    sets["1"]["draws"][0][0]["tokens"][0] = 258
    path.write_text(json.dumps(sets))
    with pytest.raises(TarotError, match="258"):
        tune(loaded.model, loaded.tokenizer, FOLLOW, output_dir=out, budget=BUDGET, resume=True)


def test_a_refused_edit_draws_nothing_and_has_no_gradient() -> None:
    class Refused(Texts):
        def evaluate(self, angles: torch.Tensor) -> TextScores:
            return replace(super().evaluate(angles), refused=bool(angles.any()))

        def gradient(self, angles: torch.Tensor, draws: DrawSet) -> torch.Tensor:
            return torch.ones_like(angles)

    texts, log = Refused(-9.0), DrawLog(None)
    steps = PolicySteps(texts, texts, FluencyFloor(nats=1.0), seed=0)
    gradients = [steps(trial, angles, log)[1] for trial, angles in enumerate((NO_ANGLES, NO_ANGLES + 1, NO_ANGLES))]
    assert [bool(gradient.isfinite().all()) for gradient in gradients] == [True, False, True]
    assert list(log.entries) == [0, 2] and log.entries[0].multiplier < log.entries[2].multiplier


def test_draws_without_numbers_fail_the_trial_and_are_not_kept(tmp_path: Path) -> None:
    class Broken(Texts):
        def draw(self, angles: torch.Tensor, seed: int, multiplier: float) -> DrawSet:
            return DrawSet(seed, multiplier, ((Draw("a", (5,), 0.5, -1.0, math.nan),),))

    texts, log = Broken(-1.0), DrawLog(tmp_path)
    _, gradient = PolicySteps(texts, texts, NO_FLOOR, seed=0)(0, torch.zeros(1, 1, 2), log)
    assert gradient.isnan().all() and not log.entries and not list(tmp_path.iterdir())


def test_only_trials_have_text_scores(tmp_path: Path, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a limit the best trial is shrunk and scored again, which is no trial."""
    monkeypatch.setattr(PolicyGradient, "rate", 1.0)
    monkeypatch.setattr(retained, "bundled_prompts", lambda template: ["is it red? ", "was it? "])
    monkeypatch.setattr(retained, "N_TEXTS", 2)
    scored: list[Trial] = []
    monkeypatch.setattr(
        "tarot.search.kl_limit.replace", lambda trial, **new: scored.append(trial) or replace(trial, **new)
    )
    adapter = tune(
        loaded.model,
        loaded.tokenizer,
        replace(FOLLOW, max_kl=1e-4),
        output_dir=tmp_path / "out",
        budget=BUDGET,
    )
    assert scored
    assert list(TextScoreLog.read(tmp_path / "out")) == list(range(adapter.provenance["trials"]))
