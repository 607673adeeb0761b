"""What each head brings."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tarot.analysis.adapter_objective import adapter_objective
from tarot.analysis.heads import attribute_heads, measure_head_maps
from tarot.analysis.pruning import prune_heads
from tarot.edit.adapter import Adapter
from tarot.models.loaded_model import LoadedModel


@given(st.lists(st.floats(0.01, 1), min_size=6, max_size=6))
@settings(max_examples=50)
def test_maps_agree_and_pruning_is_minimal_if_heads_add_up(gains: list[float]) -> None:
    angles = torch.ones(2, 3, 2)
    weights = torch.tensor(gains, dtype=torch.float64).reshape(2, 3)

    def score(given: torch.Tensor) -> float:
        return float((given[..., 0] * weights).sum()) - 1

    gradient = torch.stack([weights, torch.zeros(2, 3)], dim=-1).float()
    maps = measure_head_maps(score, angles, (0, 1), "nats")
    torch.testing.assert_close(torch.tensor(maps.alone, dtype=torch.float64), weights)
    torch.testing.assert_close(torch.tensor(maps.missed, dtype=torch.float64), weights)
    torch.testing.assert_close(attribute_heads(lambda given: (score(given), gradient), angles), weights.float())
    pruned = prune_heads(score, angles, 0.7, weights)
    smallest = next(n for n in range(7) if sum(sorted(gains)[6 - n :]) >= 0.7 * sum(gains) - 1e-9)
    assert len(pruned.heads) == smallest


def test_only_turned_heads_are_evaluated() -> None:
    angles = torch.zeros(2, 3, 2)
    angles[1, 2, 1] = 1.0
    calls = []
    maps = measure_head_maps(lambda given: calls.append(given) or float(given.sum()), angles, (4, 7), "nats")
    assert len(calls) == 4 and maps.layers == (4, 7)
    assert maps.alone == maps.missed == maps.angle_norms == ((0, 0, 0), (0, 0, 1))


def test_attributions_add_up_to_the_gain(loaded: LoadedModel, tuned_adapter: Adapter, tasks_folder: Path) -> None:
    objective = adapter_objective(loaded, tuned_adapter, include_path=tasks_folder)
    gain = objective(tuned_adapter.angles) - objective(torch.zeros_like(tuned_adapter.angles))
    shares = attribute_heads(objective.value_and_grad, tuned_adapter.angles, points=40)
    assert shares.shape == (2, 3) and float(shares.sum()) == pytest.approx(gain, rel=0.01)
