"""The objective of an adapter is that of its search."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tarot.analysis.adapter_objective import adapter_objective
from tarot.analysis.tuned_documents import tuned_documents
from tarot.edit.adapter import Adapter
from tarot.errors import TarotError
from tarot.models.loaded_model import LoadedModel
from tarot.models.precision import fast_products


def test_the_objective_reproduces_the_scores_of_the_search(
    loaded: LoadedModel, tuned_adapter: Adapter, tasks_folder: Path
) -> None:
    objective = adapter_objective(loaded, tuned_adapter, include_path=tasks_folder)
    scores = tuned_adapter.provenance["scores"]
    with fast_products():  # as in the search
        assert objective(tuned_adapter.angles) == pytest.approx(scores["best"], abs=1e-5)
        assert objective(tuned_adapter.angles * 0) == pytest.approx(scores["identity"], abs=1e-5)


def test_other_data_and_a_missing_recipe_are_rejected(
    loaded: LoadedModel, tuned_adapter: Adapter, tasks_folder: Path
) -> None:
    drawn = [{**sample, "key": "another"} for sample in tuned_adapter.provenance["samples_drawn"]]
    other = replace(tuned_adapter, provenance={**tuned_adapter.provenance, "samples_drawn": drawn})
    with pytest.raises(TarotError, match="samples of own_choice"):
        adapter_objective(loaded, other, include_path=tasks_folder)
    with pytest.raises(TarotError, match="limit"):
        tuned_documents(loaded, tuned_adapter, include_path=tasks_folder, limit=0)
    with pytest.raises(TarotError, match="task"):
        tuned_documents(loaded, replace(tuned_adapter, provenance={}), include_path=tasks_folder)


def test_the_objective_of_a_reward_reproduces_the_search(loaded: LoadedModel, reward_adapter: Adapter) -> None:
    objective = adapter_objective(loaded, reward_adapter)
    scores = reward_adapter.provenance["scores"]
    with fast_products():  # as in the search
        assert objective(torch.zeros_like(reward_adapter.angles)) == scores["identity"]
        assert objective(reward_adapter.angles) == pytest.approx(scores["best"])
    other = adapter_objective(loaded, reward_adapter, reward="sentiment:positive")
    assert other(reward_adapter.angles) != objective(reward_adapter.angles)


def test_rewards_that_do_not_fit_are_rejected(
    loaded: LoadedModel, tuned_adapter: Adapter, reward_adapter: Adapter, tasks_folder: Path
) -> None:
    trap = replace(reward_adapter, provenance={**reward_adapter.provenance, "objective": "trap:spring"})
    with pytest.raises(TarotError, match="trap:spring"):
        adapter_objective(loaded, trap)
    with pytest.raises(TarotError, match="fluency"):
        adapter_objective(loaded, tuned_adapter, reward="fluency", include_path=tasks_folder)
