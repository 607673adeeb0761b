"""Reward, fluency and variety in lm-eval's results, and of base and edited texts for the same documents."""

import math
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean

import pytest
import torch
from checkpoint import byte_model, byte_tokenizer, write_tasks

from tarot.edit.adapter import Adapter, Edit
from tarot.edit.rotation import ROTARY
from tarot.edit.sites import find_sites
from tarot.errors import ShapeMismatch, TarotError, UnknownName
from tarot.evaluation.arms import LoggedAnswers
from tarot.evaluation.compare import compare
from tarot.evaluation.compare_rewards import compare_rewards
from tarot.evaluation.evaluate import evaluate
from tarot.evaluation.results.reward_comparison import load_results, rewards_to_json
from tarot.evaluation.reward_metrics import add_rewards
from tarot.models.lm_eval_model import TarotLM
from tarot.models.loaded_model import LoadedModel
from tarot.objectives.rewards.fluency import make_fluency
from tarot.objectives.rewards.registry import make_reward
from tarot.objectives.rewards.text_metrics import distinct
from tarot.objectives.rewards.text_scores import ScoredTexts, TextScores
from tarot.report.rewards import front_rows, reward_rows
from tarot.search.config import TaRotConfig

NAME = "sentiment:positive"
OUTCOMES = {0: TextScores(0.1, -1.0, 0.5, 0.1), 1: TextScores(0.2, -2.0, 0.5, 0.1, refused=True)}


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return LoadedModel("bytes", byte_model(), byte_tokenizer())


def tuned(loaded: LoadedModel, **change: object) -> Adapter:
    """Return an adapter with random angles that records that it was tuned for a reward."""
    config = replace(TaRotConfig("openings", objective="fluency", search="bo"), **change)
    angles = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    edit = Edit.from_sites(loaded.model, "heads", find_sites(loaded.model, "heads", 0.5), ROTARY)
    return Adapter(angles, edit, {**asdict(config), "budget": 3, "samples_drawn": []})


def test_results_contain_reward_fluency_and_variety(loaded: LoadedModel) -> None:
    results = evaluate(loaded.model, loaded.tokenizer, ["openings", "synth_color"], adapter=tuned(loaded), limit=3)
    add_rewards(loaded, results)
    values, documents = results["results"]["openings"], results["samples"]["openings"]
    assert len(documents) == 3
    assert {"words,none", "reward,none", "fluency,none", "distinct_2,none", "repetition,none"} <= values.keys()
    assert results["configs"]["openings"]["metadata"]["reward"] == NAME
    assert values["reward,none"] == fmean(document["reward"] for document in documents)
    assert values["fluency,none"] == fmean(document["fluency"] for document in documents)
    texts = [document["filtered_resps"][0] for document in documents]
    assert values["distinct_2,none"] == distinct(texts)
    fluency = make_fluency(TarotLM(loaded.model, tokenizer=loaded.tokenizer))
    prompts = [document["arguments"][0][0] for document in documents]
    assert [document["fluency"] for document in documents] == fluency(prompts, texts)
    assert [document["reward"] for document in documents] == make_reward(NAME, fluency)(prompts, texts)
    assert "reward,none" not in results["results"]["synth_color"]


def test_documents_without_a_number_have_no_reward(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    results = evaluate(loaded.model, loaded.tokenizer, ["openings"], limit=3)
    results["samples"]["openings"][1]["without_number"] = True
    results["without_number"] = {"openings": [1]}
    monkeypatch.setattr("tarot.evaluation.compare_rewards.evaluate_as_tuned", lambda *_, **__: results)
    with pytest.raises(TarotError, match=r"1 of 3 documents without a number \(NaN or infinite\): 1"):
        compare_rewards(loaded, tuned(loaded))
    add_rewards(loaded, results)
    first, broken, last = results["samples"]["openings"]
    assert math.isnan(broken["reward"]) and math.isnan(broken["fluency"])
    values = results["results"]["openings"]
    for name in ("reward", "fluency"):
        assert values[f"{name},none"] == fmean((first[name], last[name]))
    assert results["without_number"] == {"openings": [1]}


def test_a_user_requests_a_reward_by_name(loaded: LoadedModel, tmp_path: Path) -> None:
    folder = write_tasks(tmp_path, test=3)
    results = evaluate(loaded.model, loaded.tokenizer, ["own_generate"], include_path=folder)
    add_rewards(loaded, results)
    assert "reward,none" not in results["results"]["own_generate"]
    add_rewards(loaded, results, "toxicity:low")
    assert results["configs"]["own_generate"]["metadata"]["reward"] == "toxicity:low"
    with pytest.raises(TarotError, match="fluency scores generated texts"):
        add_rewards(loaded, evaluate(loaded.model, loaded.tokenizer, ["own_choice"], include_path=folder), "fluency")


def test_compare_of_answers_names_the_comparison_of_rewards(loaded: LoadedModel) -> None:
    with pytest.raises(TarotError, match="compare_rewards"):
        compare(loaded.model, loaded.tokenizer, tuned(loaded), limit=2)


def test_no_file_can_call_a_function(loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function is refused if a task or an adapter names it, and called if the user does."""
    (tmp_path / "trap.py").write_text(
        "def spring(p, c):\n    open('sprung', 'w').close()\n    return [0.0 for _ in c]\n"
    )
    monkeypatch.chdir(tmp_path)
    folder = write_tasks(tmp_path / "tasks", test=3)
    (folder / "generate.yaml").write_text(
        (folder / "generate.yaml").read_text() + "metadata: {version: 1, reward: 'trap:spring'}\n"
    )
    results = evaluate(loaded.model, loaded.tokenizer, ["own_generate"], include_path=folder)
    with pytest.raises(TarotError, match="the task own_generate names the reward 'trap:spring', which runs code"):
        add_rewards(loaded, results)
    with pytest.raises(TarotError, match="an adapter names the reward 'trap:spring', which runs code"):
        compare_rewards(loaded, tuned(loaded, objective="trap:spring"), limit=2)
    assert not (tmp_path / "sprung").exists()
    compare_rewards(loaded, tuned(loaded, objective="trap:spring"), reward="trap:spring", limit=2)
    assert (tmp_path / "sprung").exists()


def test_base_and_edited_texts_for_the_same_documents(loaded: LoadedModel) -> None:
    logged: LoggedAnswers = {}
    compared = compare_rewards(loaded, tuned(loaded), limit=6, outcomes=OUTCOMES, logged=logged)
    assert (compared.reward, compared.gain.n, compared.task) == ("fluency", 6, "openings")
    assert compared.gain == compared.fluency_gain  # the reward is fluency here
    assert compared.gain.value == pytest.approx(fmean(compared.edited.rewards) - fmean(compared.base.rewards))
    assert compared.gain.low <= compared.gain.value <= compared.gain.high
    assert compared.base.texts != compared.edited.texts
    for edit, scored_texts in ((None, compared.base), (tuned(loaded), compared.edited)):
        results = evaluate(loaded.model, loaded.tokenizer, ["openings"], adapter=edit, limit=6)
        assert tuple(document["filtered_resps"][0] for document in results["samples"]["openings"]) == scored_texts.texts
        documents = logged["edited" if edit else "base"]
        assert [each["arguments"] for each in documents] == [
            each["arguments"] for each in results["samples"]["openings"]
        ]
    assert compared.date and compared.machine and {"torch", "transformers"} <= compared.versions.keys()
    assert compared.front == (1, 0)  # by rising fluency
    assert len(compared.prompts) == 6
    assert compared.prompts[-1].startswith("A film review: There is a new film about a clerk who finds an old map. ")


def test_reward_comparisons_survive_a_file(loaded: LoadedModel, tmp_path: Path) -> None:
    compared = [compare_rewards(loaded, tuned(loaded), limit=n, outcomes=OUTCOMES) for n in (2, 1)]
    (tmp_path / "rewards.json").write_text(rewards_to_json(compared))
    assert load_results(tmp_path / "rewards.json") == ([], compared)  # the interval of one document is infinite
    (tmp_path / "cut.json").write_text(rewards_to_json(compared).replace('"front"', '"back"'))
    with pytest.raises(
        TarotError,
        match=r"cut.json is not a file of tarot's results: .*front: Field required",
    ):
        load_results(tmp_path / "cut.json")


def test_impossible_comparisons_are_refused_before_texts_are_generated(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation = "tarot.evaluation.compare_rewards.evaluate_as_tuned"
    monkeypatch.setattr(evaluation, lambda *_, **__: pytest.fail("generated"))
    with pytest.raises(TarotError, match="expected an adapter tuned for a reward, got one tuned for log_probability"):
        compare_rewards(loaded, tuned(loaded, objective="log_probability"))
    with pytest.raises(UnknownName):
        compare_rewards(loaded, tuned(loaded), reward="sentiment:happy")
    with pytest.raises(TarotError, match="synth_color is a multiple_choice task"):
        compare_rewards(loaded, tuned(loaded, task="synth_color"))
    adapter = tuned(loaded)
    with pytest.raises(ShapeMismatch, match="this adapter is for another model"):
        compare_rewards(loaded, replace(adapter, angles=adapter.angles[:, :-1]))


def test_rows(loaded: LoadedModel) -> None:
    compared = compare_rewards(loaded, tuned(loaded), limit=2)
    better = ScoredTexts(("so good", "so fine"), (0.5, 0.25), (-1.0, -2.0))
    gain = replace(compared.gain, value=0.25, low=-0.125, high=0.5, p=0.2)
    fluency_gain = replace(compared.gain, value=-0.15)
    compared = replace(compared, base=better, edited=better, gain=gain, fluency_gain=fluency_gain)
    assert reward_rows(compared) == [
        ("base", "0.375", "-", "-", "-1.500", "-", "1.000", "0.000"),
        ("edited", "0.375", "+0.250 [-0.125, +0.500]", "0.200", "-1.500", "-10.0%", "1.000", "0.000"),
    ]
    outcomes = {0: TextScores(0.1, -1.0, 0.5, 0.1), 7: TextScores(0.2, -2.0, 0.5, 0.1, refused=True)}
    assert front_rows(outcomes, [7, 0]) == [
        ("7 (refused)", "0.200", "-2.000", "0.500", "0.100"),
        ("0 (identity)", "0.100", "-1.000", "0.500", "0.100"),
    ]
