"""Fit a gate: it opens for held-out prompts of the task and stays closed for others, and records how well it does."""

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from letters import plant_rewards
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from tarot.edit.adapter import Adapter
from tarot.edit.gate import prompt_features
from tarot.errors import TarotError
from tarot.models.lm_eval_model import TarotLM
from tarot.objectives.tasks.prompts import get_chat_template
from tarot.objectives.tasks.samples import draw_samples, render_evaluation_documents
from tarot.objectives.tasks.task_loading import load_task
from tarot.search import gate
from tarot.search.algorithms.registry import SEARCHES
from tarot.search.config import TaRotConfig
from tarot.search.gate import SHRINKAGE, _direction, _fit, closed_prompts, fit_gate
from tarot.search.tune import tune


@pytest.fixture(scope="module")
def gated(loaded: Any, tuned_adapter: Adapter, tasks_folder: Path) -> Adapter:
    return fit_gate(loaded.model, loaded.tokenizer, tuned_adapter, include_path=tasks_folder)


def opened(loaded: Any, adapter: Adapter, texts: list[str]) -> list[bool]:
    lm = TarotLM(loaded.model, tokenizer=loaded.tokenizer)
    assert adapter.gate is not None
    prompts = [lm.tok_encode(text) for text in texts]
    return adapter.gate.opens(prompt_features(loaded.model, adapter.gate.layer, prompts)).tolist()


def test_held_out_prompts_open_the_gate_and_others_do_not(loaded: Any, gated: Adapter, tasks_folder: Path) -> None:
    template = get_chat_template(TarotLM(loaded.model, tokenizer=loaded.tokenizer), True)
    assert template is not None
    held_out = render_evaluation_documents(load_task("own_choice", tasks_folder), limit=8, chat_template=template)
    assert all(opened(loaded, gated, [sample.pairs[0][0] for sample in held_out]))
    other = ["Wie spät ist es?", "Sing a song about the sea, please, and make it long!", "SELECT 1;"]
    assert not any(opened(loaded, gated, [template([{"role": "user", "content": text}]) for text in other]))


def test_only_the_gate_and_its_figures_are_new(tuned_adapter: Adapter, gated: Adapter) -> None:
    figures: Any = gated.provenance["gate"]
    assert replace(gated, gate=None, provenance=tuned_adapter.provenance) == tuned_adapter
    assert figures["task_prompts"] == 6 and figures["retained_prompts"] >= 200
    assert figures["opened_left_out"] == 1 and figures["closed_left_out"] > 0.9


def test_left_out_prompts_count_as_they_are_decided() -> None:
    noise = np.random.default_rng(0).normal(size=(60, 5))
    is_task = np.arange(60) < 20
    apart, mixed = _fit(0, noise + 20.0 * is_task[:, None], is_task), _fit(0, noise, is_task)
    assert (apart.opened, apart.closed) == (1, 1) and mixed.closed < 0.5
    assert apart.gate.bias < 0


@settings(max_examples=10)
@given(seed=st.integers(0, 2**31), rank=st.integers(1, 6), width=st.integers(10, 40))
def test_directions_of_rounding_are_not_fitted(seed: int, rank: int, width: int) -> None:
    """Prompts of few different tokens have features of a low rank. LAPACK has failed on what rounding adds to it."""
    rng = np.random.default_rng(seed)
    is_task = np.arange(60) < 8
    features = (rng.normal(size=(60, rank)) @ rng.normal(size=(rank, width))).astype(np.float32).astype(np.float64)
    fitted = []

    def fit(points: np.ndarray, is_task: np.ndarray) -> np.ndarray:
        fitted.append(points.shape[1])
        return _direction(points, is_task)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gate, "_direction", fit)
        _fit(0, features, is_task)
    assert set(fitted) == {rank}


@settings(max_examples=20)
@given(seed=st.integers(0, 2**31), n_task=st.integers(2, 30), width=st.integers(1, 30))
def test_directions_are_those_of_scikit_learn(seed: int, n_task: int, width: int) -> None:
    points, is_task = np.random.default_rng(seed).normal(size=(60, width)), np.arange(60) < n_task
    points[:, 0] += 3 * is_task
    oracle = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=SHRINKAGE, priors=[0.5, 0.5]).fit(points, is_task)
    assert _direction(points, is_task) == pytest.approx(oracle.coef_[0], rel=1e-8, abs=1e-10)


def test_adapters_without_their_samples_are_refused(loaded: Any, tuned_adapter: Adapter, tasks_folder: Path) -> None:
    recipe = dict(tuned_adapter.provenance)
    for provenance, keyword in (
        ({}, "task"),
        (recipe | {"seed": 5}, "samples"),
        (recipe | {"samples_drawn": []}, "samples"),
    ):
        with pytest.raises(TarotError, match=keyword):
            fit_gate(
                loaded.model,
                loaded.tokenizer,
                replace(tuned_adapter, provenance=provenance),
                include_path=tasks_folder,
            )
    few = replace(tuned_adapter, provenance=recipe | {"num_samples": 2})
    with pytest.raises(TarotError, match="samples"):
        fit_gate(loaded.model, loaded.tokenizer, few, include_path=tasks_folder)


def test_prompts_that_only_score_a_policy_gradient_fit_the_gate_too(
    loaded: Any, tuned_adapter: Adapter, tasks_folder: Path
) -> None:
    template = get_chat_template(TarotLM(loaded.model, tokenizer=loaded.tokenizer), True)
    samples = draw_samples(load_task("own_choice", tasks_folder), 8, chat_template=template)
    rewarded = {
        "objective": "length:short",
        "search": "policy-gradient",
        "num_samples": 4,
        "samples_drawn": [{"id": sample.id, "key": sample.key, "num_fewshot": 0} for sample in samples],
    }
    adapter = replace(tuned_adapter, provenance={**tuned_adapter.provenance, **rewarded})
    gated = fit_gate(loaded.model, loaded.tokenizer, adapter, include_path=tasks_folder)
    figures: Any = gated.provenance["gate"]
    assert figures["task_prompts"] == 8


def test_closed_prompts_come_with_and_without_a_system_message() -> None:
    rendered = closed_prompts(lambda messages: "|".join(m["role"] + m["content"][:5] for m in messages))
    with_system = [text for text in rendered if text.startswith("system")]
    assert 90 < len(with_system) < len(rendered) and len({text[:11] for text in with_system}) > 4
    assert len(closed_prompts(None)) > 200


def test_an_adapter_of_a_policy_gradient_has_twice_as_many_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = plant_rewards(tmp_path, monkeypatch)
    config = TaRotConfig("openings", num_samples=3, objective="planted:vowels")
    adapter = tune(model.model, model.tokenizer, config, budget=SEARCHES["policy-gradient"].trial_cost)
    figures: Any = fit_gate(model.model, model.tokenizer, adapter).provenance["gate"]
    assert figures["task_prompts"] == 6


def test_hidden_states_that_are_no_numbers_are_an_error(
    loaded: Any, tuned_adapter: Adapter, tasks_folder: Path
) -> None:
    model = copy.deepcopy(loaded.model)
    model.get_input_embeddings().weight[5:80] = math.nan
    with pytest.raises(TarotError, match="layer 0"):
        fit_gate(model, loaded.tokenizer, tuned_adapter, include_path=tasks_folder)
