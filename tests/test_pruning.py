"""Pruning against every set of heads."""

from itertools import combinations
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tarot.analysis.adapter_objective import adapter_objective
from tarot.analysis.heads import edited_heads, keep_heads
from tarot.analysis.pruning import prune_adapter, prune_heads
from tarot.edit.adapter import Adapter
from tarot.errors import TarotError
from tarot.models.loaded_model import LoadedModel

HEADS = torch.arange(1.0, 7.0).reshape(2, 3, 1)


@st.composite
def scores_of_sets(draw: st.DrawFn) -> tuple[torch.Tensor, dict[frozenset[tuple[int, int]], float]]:
    """Angles of up to five heads, and any score at all for each set of them, such that all together gain."""
    heads = draw(st.integers(1, 5))
    angles = torch.zeros(2, 3, 2)
    for i in range(heads):
        angles[i // 3, i % 3] = draw(st.floats(0.1, 1))
    every = sorted(edited_heads(angles))
    table = {frozenset(s): draw(st.floats(-3, 3)) for n in range(heads + 1) for s in combinations(every, n)}
    table[frozenset(every)] = table[frozenset()] + draw(st.floats(0.01, 2))
    return angles, table


@given(scores_of_sets(), st.floats(0.01, 1), st.none() | st.lists(st.floats(-1, 1), min_size=6, max_size=6))
@settings(max_examples=200)
def test_pruning_keeps_the_share_and_no_superfluous_head(
    drawn: tuple[torch.Tensor, dict[frozenset[tuple[int, int]], float]], keep: float, guess: list[float] | None
) -> None:
    angles, table = drawn
    scored: list[frozenset[tuple[int, int]]] = []

    def score(given: torch.Tensor) -> float:
        scored.append(edited_heads(given))
        return table[scored[-1]]

    pruned = prune_heads(score, angles, keep, None if guess is None else torch.tensor(guess).reshape(2, 3))
    floor = pruned.base + keep * (pruned.edited - pruned.base)
    assert pruned.score == table[pruned.heads] >= floor
    assert all(table[pruned.heads - {head}] < floor for head in pruned.heads)
    assert torch.equal(pruned.angles, keep_heads(angles, pruned.heads))
    assert pruned.evaluations == len(scored) == len(set(scored))


def test_good_importance_saves_evaluations() -> None:
    """Of 200 heads that add up, finding the main ones takes a few halvings and one round."""
    weights = torch.randn(10, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64).exp().pow(3)
    pruned = prune_heads(lambda given: float((given[..., 0] * weights).sum()), torch.ones(10, 20, 2), 0.9, weights)
    assert len(pruned.heads) < 60 and pruned.evaluations < 2.5 * len(pruned.heads) + 20


def test_rejected_sets_of_heads_are_never_kept() -> None:
    """A NaN score rejects angles: here every set without the first head."""
    pruned = prune_heads(
        lambda given: float("nan") if given.any() and not given[0, 0].any() else float(given.sum()), HEADS, 0.3
    )
    assert (0, 0) in pruned.heads and pruned.score >= 0.3 * pruned.edited
    with pytest.raises(TarotError, match="gains"):
        prune_heads(lambda given: float("nan") if given.any() else 0.0, HEADS)


def test_pruning_errors() -> None:
    with pytest.raises(TarotError, match="share"):
        prune_heads(float, torch.ones(1, 1, 1), 0.0)
    with pytest.raises(TarotError, match="gains"):
        prune_heads(lambda angles: 0.0, torch.ones(1, 1, 1))


def test_a_pruned_adapter_records_its_pruning(
    loaded: LoadedModel, tuned_adapter: Adapter, tasks_folder: Path, tmp_path: Path
) -> None:
    prune_adapter(loaded, tuned_adapter, 0.8, include_path=tasks_folder).save_pretrained(tmp_path)
    smaller = Adapter.from_pretrained(tmp_path)
    record = smaller.provenance["pruned"]
    assert record["from"] == tuned_adapter.fingerprint != smaller.fingerprint
    assert len(edited_heads(smaller.angles)) == record["heads"] < record["of"]
    assert record["of"] == len(edited_heads(tuned_adapter.angles))
    scores = record["scores"]
    assert scores["pruned"] >= scores["identity"] + 0.8 * (scores["whole"] - scores["identity"])
    objective = adapter_objective(loaded, smaller, include_path=tasks_folder)
    assert objective(smaller.angles) == pytest.approx(scores["pruned"], abs=1e-6)
