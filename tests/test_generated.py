"""Generation objective: against plain transformers, and a planted reward that holds its direction."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from after_trial import AfterTrial
from checkpoint import write_tasks
from hypothesis import given, settings
from hypothesis import strategies as st
from letters import PROMPTS, lettered, plant_rewards, vowels

from tarot.edit.hooks import apply_rotation
from tarot.edit.sites import find_sites
from tarot.errors import TarotError, UnknownName
from tarot.models.loaded_model import LoadedModel
from tarot.objectives.generated import GenerationObjective
from tarot.objectives.rewards.fluency import FluencyFloor, make_fluency
from tarot.objectives.rewards.text_scores import TextScoreLog
from tarot.objectives.tasks.prompts import get_chat_template
from tarot.objectives.tasks.samples import draw_samples
from tarot.objectives.tasks.task_loading import load_task
from tarot.objectives.text_generation import TextGenerator
from tarot.search.config import TaRotConfig
from tarot.search.folder import read_trials
from tarot.search.tune import tune

OPTIONS = {"max_gen_toks": 6, "until": [], "do_sample": False}


CONFIG = TaRotConfig("openings", num_samples=4, space="head", search="random", objective="planted:vowels")


def objective(reward=vowels, options=OPTIONS, **settings: object) -> GenerationObjective:
    lm = lettered()
    sites = find_sites(lm.model, "heads", 0.5)
    return GenerationObjective(TextGenerator(lm, PROMPTS, options), reward, make_fluency(lm), sites=sites, **settings)


def some_angles(seed: int, size: float = 1.0) -> torch.Tensor:
    return size * torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(seed))


def oracle(angles: torch.Tensor) -> tuple[float, float]:
    """Compute reward and fluency of greedy texts, one prompt and one token at a time, under hooks, without a cache."""
    lm = lettered()
    rewards, fluencies = [], []
    for prompt in PROMPTS:
        context = lm.tok_encode(prompt)
        written: list[int] = []
        with torch.no_grad(), apply_rotation(lm.model, angles, find_sites(lm.model, "heads", 0.5)):
            for _ in range(OPTIONS["max_gen_toks"]):
                written.append(int(lm.model(torch.tensor([context + written])).logits[0, -1].argmax()))
        with torch.no_grad():
            steps = lm.model(torch.tensor([context + written])).logits[0].log_softmax(-1)
        rewards += vowels([prompt], [lm.tok_decode(written)])
        chosen = [float(steps[len(context) - 1 + i, token]) for i, token in enumerate(written)]
        fluencies.append(sum(chosen) / len(chosen))
    return sum(rewards) / len(rewards), sum(fluencies) / len(fluencies)


@given(st.integers(0, 1000))
@settings(max_examples=10)
def test_agrees_with_the_oracle(seed: int) -> None:
    angles = some_angles(seed)
    outcome = objective().evaluate(angles)
    assert (outcome.reward, outcome.fluency) == pytest.approx(oracle(angles), abs=1e-4)
    assert objective()(angles) == outcome.reward


def test_zero_angles_are_the_base() -> None:
    outcome = objective().evaluate(torch.zeros(2, 3, 4))
    assert (outcome.reward, outcome.fluency) == pytest.approx(oracle(torch.zeros(2, 3, 4)), abs=1e-4)
    assert outcome == objective().base


def test_the_model_and_the_random_state_are_unchanged() -> None:
    model = lettered().model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    scored = objective(options=OPTIONS | {"do_sample": True, "temperature": 1.0})
    scored(some_angles(0))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_an_edit_below_the_floor_is_refused() -> None:
    angles = some_angles(1)
    free = objective()
    lost = free.base.fluency - free.evaluate(angles).fluency
    assert lost > 0
    for nats, refused in ((lost + 0.01, False), (lost - 0.01, True)):
        floored = objective(floor=FluencyFloor(nats=nats))
        assert math.isnan(floored(angles)) == refused
        assert floored.evaluate(angles) == replace(free.evaluate(angles), refused=refused)
    assert objective(floor=FluencyFloor(nats=0.0))(torch.zeros(2, 3, 4)) == free.base.reward


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoadedModel:
    return plant_rewards(tmp_path, monkeypatch)


@pytest.mark.parametrize("space", ["head", "full"])
def test_a_planted_reward_is_maximised(tmp_path: Path, loaded: LoadedModel, space: str) -> None:
    """The published code minimises what it should maximise: here a reward and its opposite must diverge."""
    best = {}
    for name in ("vowels", "consonants"):
        config = replace(CONFIG, objective=f"planted:{name}", space=space)
        adapter = tune(loaded.model, loaded.tokenizer, config, output_dir=tmp_path / name, budget=10)
        scores = [trial.score for trial in read_trials(tmp_path / name)]
        assert adapter.provenance["scores"] == {"identity": scores[0], "best": max(scores)} and max(scores) > scores[0]
        assert [outcome.reward for outcome in TextScoreLog.read(tmp_path / name).values()] == scores
        # Score the saved adapter again, by the one reward.
        task = load_task("openings")
        template = get_chat_template(lettered(), CONFIG.apply_chat_template)
        prompts = [sample.pairs[0][0] for sample in draw_samples(task, 4, chat_template=template)]
        with adapter.apply(loaded.model):
            texts = TextGenerator(lettered(), prompts, task.config.generation_kwargs).generate(0)
        best[name] = sum(vowels(prompts, texts)) / 4
        base = scores[0] if name == "vowels" else 1 - scores[0]
        assert best[name] == pytest.approx(max(scores) if name == "vowels" else 1 - max(scores))
    assert best["vowels"] > base > best["consonants"]


def test_resumed_equals_uninterrupted(tmp_path: Path, loaded: LoadedModel) -> None:
    def stop(trial: object, result: object) -> None:
        if len(result.trials) == 3:
            raise RuntimeError("the machine went away")

    config = replace(CONFIG, space="head", fluency_floor="20%")
    uninterrupted = tune(loaded.model, loaded.tokenizer, config, output_dir=tmp_path / "uninterrupted", budget=12)
    with pytest.raises(RuntimeError, match="the machine went away"):
        tune(
            loaded.model, loaded.tokenizer, config, output_dir=tmp_path / "cut", budget=12, callbacks=[AfterTrial(stop)]
        )
    again = tune(loaded.model, loaded.tokenizer, config, output_dir=tmp_path / "cut", budget=12, resume=True)
    assert again.fingerprint == uninterrupted.fingerprint
    assert TextScoreLog.read(tmp_path / "cut") == TextScoreLog.read(tmp_path / "uninterrupted")
    refused = [trial for trial, outcome in TextScoreLog.read(tmp_path / "cut").items() if outcome.refused]
    assert refused == [trial.index for trial in read_trials(tmp_path / "cut") if math.isnan(trial.score)]


@pytest.mark.parametrize(("reward", "trials"), [("regex:.", 1), ("keywords:never written", 4)])
def test_a_search_ends_when_every_text_has_the_highest_reward(loaded: LoadedModel, reward: str, trials: int) -> None:
    adapter = tune(loaded.model, loaded.tokenizer, replace(CONFIG, objective=reward), budget=4)
    assert (adapter.provenance["trials"], adapter.provenance["fitted"]) == (trials, trials == 1)


def test_any_generating_task_can_be_scored(tmp_path: Path, loaded: LoadedModel) -> None:
    folder = write_tasks(tmp_path / "tasks")
    config = replace(CONFIG, task="own_generate")
    assert (
        tune(
            loaded.model, loaded.tokenizer, config, output_dir=tmp_path / "out", budget=3, include_path=folder
        ).provenance["trials"]
        == 3
    )


@pytest.mark.parametrize(
    ("change", "keyword"),
    [
        ({"task": "synth_color"}, "multiple_choice"),
        ({"objective": "log_probability"}, "samples with answers"),
        ({"objective": "log_probability", "task": "synth_color", "fluency_floor": "10%"}, "fluency floor"),
        ({"fluency_floor": "low"}, "'low'"),
        ({"objective": "sentiment:good"}, "'sentiment:good'"),
    ],
    ids=str,
)
def test_wrong_settings_are_errors(tmp_path: Path, loaded: LoadedModel, change: dict[str, str], keyword: str) -> None:
    with pytest.raises(TarotError, match=keyword):
        tune(loaded.model, loaded.tokenizer, replace(CONFIG, **change), output_dir=tmp_path / "out", budget=3)
    assert not (tmp_path / "out").exists()


def test_an_unknown_reward_is_an_unknown_name(tmp_path: Path, loaded: LoadedModel) -> None:
    with pytest.raises(UnknownName):
        tune(
            loaded.model,
            loaded.tokenizer,
            replace(CONFIG, objective="toxicity:hgih"),
            output_dir=tmp_path / "out",
            budget=3,
        )


def test_a_search_that_follows_gradients_fails_before_writing(tmp_path: Path, loaded: LoadedModel) -> None:
    with pytest.raises(TarotError, match="gradient"):
        tune(loaded.model, loaded.tokenizer, replace(CONFIG, search="adam"), output_dir=tmp_path / "out", budget=6)
    assert not (tmp_path / "out").exists()
