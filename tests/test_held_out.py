"""What `tarot tune` measured on held-out text goes from the adapter into results, and is checked on the way."""

from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_compare import folder, loaded, tuned

from tarot.errors import TarotError
from tarot.evaluation.compare import compare
from tarot.evaluation.compare_rewards import compare_rewards
from tarot.evaluation.held_out import HeldOut, held_out_of
from tarot.models.loaded_model import LoadedModel

__all__ = ["folder", "loaded"]  # fixtures

MEASURED = HeldOut(tokens=512, kl=0.02, low=0.016, high=0.024, perplexity_ratio=1.012)


def recording(held_out: object, gate: object = None) -> Any:
    return SimpleNamespace(provenance={"retention": {"kl": 0.01, "held_out": held_out}}, gate=gate)


@given(st.builds(HeldOut, st.integers(0, 9), *[st.floats(0, 9)] * 4))
def test_the_record_is_read_unless_the_edit_was_gated_since(held_out: HeldOut) -> None:
    assert held_out_of(recording(asdict(held_out))) == held_out
    assert held_out_of(recording(asdict(held_out), gate="a gate")) is None
    for provenance in ({}, {"retention": None}, {"retention": {"kl": 0.01}}):
        edit: Any = SimpleNamespace(provenance=provenance, gate=None)
        assert held_out_of(edit) is None


@pytest.mark.parametrize("change", [{"kl": "0.02"}, {"tokens": None}, {"high": float("inf")}])
def test_damaged_records(change: dict[str, object]) -> None:
    with pytest.raises(TarotError, match=f"{next(iter(change))}.*tune the adapter again"):
        held_out_of(recording({**asdict(MEASURED), **change}))


def test_comparisons_carry_it(loaded: LoadedModel, folder: Path) -> None:
    retention = {"retention": {"held_out": asdict(MEASURED)}}
    adapter = tuned(loaded, folder)
    measured = replace(adapter, provenance={**adapter.provenance, **retention})
    for edit, expected in ((measured, MEASURED), (measured.scaled(0.5), None)):
        comparison = compare(loaded.model, loaded.tokenizer, edit, num_fewshot=0, include_path=folder, limit=2)
        assert comparison.held_out == expected


def test_comparisons_of_texts_carry_it(loaded: LoadedModel, folder: Path) -> None:
    retention = {"retention": {"held_out": asdict(MEASURED)}}
    adapter = tuned(loaded, folder)
    rewarded = {"task": "openings", "objective": "fluency", "search": "bo", "space": "head", "max_kl": None}
    edit = replace(adapter, provenance={**adapter.provenance, **rewarded, **retention, "samples_drawn": []})
    assert compare_rewards(loaded, edit, limit=2).held_out == MEASURED
