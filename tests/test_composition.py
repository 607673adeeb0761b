"""Composition: the sum of adapters is all edits at once, and keeps the provenance of all."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from checkpoint import byte_model, byte_tokenizer, write_tasks
from gates import constant_gate
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import tensors
from tiny import tiny_model, tokens
from transformers import PreTrainedModel

from tarot.edit.adapter import Adapter, Edit
from tarot.edit.composition import compose
from tarot.edit.rotation import GIVENS, ROTARY, SCALE, Rotation
from tarot.edit.sites import angle_mask, find_sites
from tarot.errors import TarotError
from tarot.evaluation.evaluate import evaluate
from tarot.models.loaded_model import LoadedModel
from tarot.objectives.tasks.samples import document_key, draw_samples
from tarot.objectives.tasks.task_loading import load_task

model_of_bytes = cache(byte_model)
TOKENS = torch.arange(3, 30)[None]
layer_sets = st.sets(st.integers(0, 3), min_size=1).map(sorted)


def an_adapter(
    model: PreTrainedModel, layers: list[int], rotation: Rotation = ROTARY, *, kind: str = "heads", seed: int = 0
) -> Adapter:
    sites = find_sites(model, kind, layers)
    mask = angle_mask(sites, rotation.n_angles)
    angles = torch.randn(mask.shape, generator=torch.Generator().manual_seed(seed)) * 0.3 * mask
    return Adapter(angles, Edit.from_sites(model, kind, sites, rotation), {"model": "m", "seed": seed})


@torch.no_grad()
def logits(model: PreTrainedModel) -> torch.Tensor:
    return model(TOKENS, use_cache=False).logits


@given(layer_sets, layer_sets, st.sampled_from([ROTARY, SCALE]))
@settings(max_examples=30)
def test_the_sum_agrees_with_nested_edits(first: list[int], second: list[int], rotation: Rotation) -> None:
    model = model_of_bytes()
    a, b = an_adapter(model, first, rotation), an_adapter(model, second, rotation, seed=1)
    both = compose(model, a, b)
    assert both.edit.layers == tuple(sorted({*first, *second}))
    with a.apply(model), b.apply(model):
        nested = logits(model)
    with both.apply(model):
        torch.testing.assert_close(logits(model), nested, atol=3e-4, rtol=3e-4)
    assert compose(model, b, a).fingerprint == both.fingerprint


@pytest.mark.parametrize("rotation", [ROTARY, SCALE, GIVENS])
def test_the_composition_of_one_adapter_is_itself(rotation: Rotation) -> None:
    adapter = an_adapter(model_of_bytes(), [1, 3], rotation)
    assert compose(model_of_bytes(), adapter.scaled(0.5)).fingerprint == adapter.scaled(0.5).fingerprint


def test_the_composition_of_one_gated_adapter_keeps_the_gate_and_its_record() -> None:
    model, record = model_of_bytes(), {"layer": 0, "task_prompts": 6}
    adapter = an_adapter(model, [1, 3])
    adapter = replace(adapter, gate=constant_gate(model, True), provenance={**adapter.provenance, "gate": record})
    alone = compose(model, adapter)
    assert alone.gate == adapter.gate and alone.provenance["gate"] == record
    assert "gate" not in compose(model, replace(adapter, gate=None)).provenance


@given(layer_sets, st.floats(-2, 2, width=32))
@settings(max_examples=30)
def test_strengths_add_up(layers: list[int], strength: float) -> None:
    model = model_of_bytes()
    adapter = an_adapter(model, layers)
    assert compose(model, adapter).fingerprint == adapter.scaled(1.0).fingerprint == adapter.fingerprint
    assert not adapter.scaled(0.0).angles.any()
    assert not compose(model, adapter.scaled(strength), adapter.scaled(-strength)).angles.any()
    added = compose(model, adapter, adapter.scaled(strength))
    torch.testing.assert_close(added.angles, adapter.scaled(1 + strength).angles, atol=1e-6, rtol=0)


@given(tensors((3, 2), 1.0), st.floats(-2, 2))
def test_scaled_angles_are_powers(angles: torch.Tensor, strength: float) -> None:
    """Check R(t)^s R(t)^(1 - s) = R(t) for the two families for which `scaled` is a power."""
    for rotation, d in ((ROTARY, 4), (SCALE, 5)):
        own = angles[:, : rotation.n_angles(d)]
        product = rotation.matrix(own * strength, d) @ rotation.matrix(own * (1 - strength), d)
        torch.testing.assert_close(product, rotation.matrix(own, d))


def test_sites_of_different_widths() -> None:
    """Compose an adapter of a narrow layer with one of a wide layer."""
    model, ids = tiny_model("gemma4_text"), tokens(2, 9)
    narrow, wide = an_adapter(model, [0]), an_adapter(model, [2], seed=1)
    assert narrow.angles.shape != wide.angles.shape
    with torch.no_grad():
        with narrow.apply(model), wide.apply(model):
            nested = model(ids).logits
        with compose(model, narrow, wide).apply(model):
            torch.testing.assert_close(model(ids).logits, nested, atol=1e-4, rtol=1e-4)


def test_provenance_names_both_parents(tmp_path: Path) -> None:
    model = model_of_bytes()
    a, b = an_adapter(model, [0, 1]), an_adapter(model, [1, 2], seed=1)
    compose(model, a.scaled(0.5), b).save_pretrained(tmp_path)
    provenance = Adapter.from_pretrained(tmp_path).provenance
    assert provenance["model"] == "m" and "task" not in provenance and "samples_drawn" not in provenance
    first, second = provenance["parents"]
    assert (first["strength"], first["provenance"]["parents"][0]["strength"]) == (1.0, 0.5)
    assert first["provenance"]["parents"][0]["fingerprint"] == a.fingerprint
    assert (second["fingerprint"], second["provenance"]["seed"]) == (b.fingerprint, 1)


def test_its_tasks_are_those_of_all_parents() -> None:
    """Tasks are needed to measure side effects, which are those on other tasks."""
    model = model_of_bytes()
    a, b = (replace(an_adapter(model, [layer]), provenance={"task": name}) for layer, name in enumerate("ab"))
    assert (a.tasks, compose(model, a.scaled(0.5), b).scaled(2.0).tasks) == ({"a"}, {"a", "b"})
    assert an_adapter(model, [0]).tasks == frozenset()


def test_samples_of_either_parent_are_not_evaluated(tmp_path: Path) -> None:
    folder, loaded = write_tasks(tmp_path / "tasks"), LoadedModel("bytes", byte_model(), byte_tokenizer())
    task = load_task("own_choice", folder)
    own_samples = [sample.key for sample in draw_samples(task, 3)]
    evaluated = [document_key(task, task.eval_docs[4])]
    adapters = [
        Adapter(own.angles, own.edit, {"samples_drawn": [{"key": key} for key in keys]})
        for own, keys in ((an_adapter(loaded.model, [0]), own_samples), (an_adapter(loaded.model, [1]), evaluated))
    ]
    clean, contaminated = adapters
    evaluate(
        loaded.model,
        loaded.tokenizer,
        ["own_choice"],
        adapter=compose(loaded.model, clean, clean.scaled(2.0)),
        include_path=folder,
    )
    for edit in (
        compose(loaded.model, clean, contaminated.scaled(0.1)),
        compose(loaded.model, contaminated),
        contaminated.scaled(0.5),
    ):
        with pytest.raises(TarotError, match="own_choice evaluates"):
            evaluate(loaded.model, loaded.tokenizer, ["own_choice"], adapter=edit, include_path=folder)


def refusal(*adapters: Adapter, model: PreTrainedModel | None = None) -> str:
    with pytest.raises(TarotError) as error:
        compose(model or model_of_bytes(), *adapters)
    return str(error.value)


def test_adapters_that_do_not_add_up_are_refused() -> None:
    model = model_of_bytes()
    heads = an_adapter(model, [0])
    assert "at least one adapter" in refusal()
    for others, got in (([GIVENS], "'givens', 'rotary'"), ([SCALE], "'rotary', 'scale'"), ([GIVENS] * 2, "'givens'")):
        beside = [] if len(others) > 1 else [heads]
        assert refusal(*beside, *(an_adapter(model, [0], other) for other in others)).endswith(f"got {got}")
    assert "one kind of site, got heads and mlp" in refusal(heads, an_adapter(model, [0], kind="mlp"))
    assert "another model" in refusal(heads, an_adapter(byte_model(heads=6), [0]))
