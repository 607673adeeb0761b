"""Adapters: what is saved is what is loaded, and nothing else is loaded at all."""

import json
from functools import cache
from pathlib import Path

import pytest
import torch
from checkpoint import byte_model
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from tarot.adapter import CARD, WEIGHTS, Adapter, Edit
from tarot.errors import TarotError
from tarot.intervention import rotated
from tarot.rotation import ROTARY
from tarot.sites import find_sites

model_of_bytes = cache(byte_model)
TOKENS = torch.arange(3, 30)[None]


def an_adapter(scale: float = 0.5, seed: int = 0) -> Adapter:
    model = model_of_bytes()
    angles = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(seed)) * scale
    return Adapter(
        angles, Edit.of(model, "heads", find_sites(model, "heads", 0.5), ROTARY), {"task": "t", "seed": seed}
    )


@given(st.floats(0.01, 3), st.integers(0, 100))
@settings(max_examples=20)
def test_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, scale: float, seed: int) -> None:
    folder, saved = tmp_path_factory.mktemp("adapter"), an_adapter(scale, seed)
    saved.save(folder)
    loaded = Adapter.load(folder)
    assert torch.equal(loaded.angles, saved.angles)
    assert (loaded.edit, loaded.provenance, loaded.fingerprint) == (saved.edit, saved.provenance, saved.fingerprint)


def test_the_fingerprint_tells_edits_apart() -> None:
    adapter = an_adapter()
    nearly = adapter.angles.clone()
    nearly[0, 0, 0] = torch.nextafter(nearly[0, 0, 0], torch.tensor(9.0))
    others = [
        Adapter(nearly, adapter.edit, adapter.provenance),
        Adapter(adapter.angles, Edit("heads", (1, 2), "rotary", adapter.edit.model), adapter.provenance),
        Adapter(adapter.angles, Edit("heads", (0, 1), "givens", adapter.edit.model), adapter.provenance),
    ]
    assert len({adapter.fingerprint, *(other.fingerprint for other in others)}) == 4
    assert adapter.fingerprint == Adapter(adapter.angles.clone(), adapter.edit, {}).fingerprint


@given(st.floats(0, 1))
def test_a_scaled_adapter_is_the_same_edit_with_smaller_angles(factor: float) -> None:
    adapter = an_adapter()
    scaled = adapter.scaled(factor)
    assert torch.equal(scaled.angles, adapter.angles * factor)
    assert scaled.edit == adapter.edit and scaled.provenance["parents"][0]["strength"] == factor
    assert adapter.scaled(1.0).fingerprint == adapter.fingerprint


def test_a_factor_is_finite() -> None:
    with pytest.raises(TarotError, match="expected a strength that leaves every angle finite, got nan"):
        an_adapter().scaled(float("nan"))


def test_applied_and_merged_are_one_edit() -> None:
    model, adapter = model_of_bytes(), an_adapter()
    base = model(TOKENS).logits
    with adapter.applied(model):
        applied = model(TOKENS).logits
    with rotated(model, adapter.angles):
        assert torch.equal(applied, model(TOKENS).logits)
    assert torch.equal(base, model(TOKENS).logits)
    other = byte_model()
    assert adapter.merge(other) is other
    assert (applied - base).abs().max() > 0.1
    torch.testing.assert_close(other(TOKENS).logits, applied, atol=1e-4, rtol=1e-4)


def error_of(folder: Path) -> str:
    with pytest.raises(TarotError) as error:
        Adapter.load(folder)
    assert "\n" not in str(error.value)
    return str(error.value).replace(str(folder), "DIR")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    an_adapter().save(tmp_path)
    return tmp_path


def test_missing(tmp_path: Path) -> None:
    assert error_of(tmp_path) == (
        "expected an adapter folder with tarot.json and adapter.safetensors, got No such file or directory "
        "at DIR/tarot.json; run tarot tune first"
    )


@pytest.mark.parametrize("name", [CARD, WEIGHTS])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_truncated(folder: Path, name: str, keep: float) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(len(content) * keep)])
    assert ("JSON in DIR/tarot.json" if name == CARD else "adapter.safetensors that tarot.json describes") in error_of(
        folder
    )


def test_newer_format(folder: Path) -> None:
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps({**card, "format": 99}))
    assert error_of(folder) == "expected adapter format 1 at most, got 99 in DIR/tarot.json; update tarot"


@pytest.mark.parametrize("card", ["[]", "{}", '{"format": "x"}', "null"])
def test_a_card_of_something_else(folder: Path, card: str) -> None:
    (folder / CARD).write_text(card)
    assert "expected a format number in DIR/tarot.json" in error_of(folder)


def test_brackets_too_deep_to_read(folder: Path) -> None:
    (folder / CARD).write_text("[" * 100_000)
    assert error_of(folder).startswith("expected JSON in DIR/tarot.json, got ")


@pytest.mark.parametrize(
    "provenance",
    [
        [],
        {"samples_drawn": 3},
        {"samples_drawn": ["train/1"]},
        {"samples_drawn": [{"id": "train/1", "key": 1}]},
        {"samples_drawn": [{"id": "train/first", "key": "a"}]},
        {"budget": "120"},
        {"parents": "two"},
        {"parents": [{"fingerprint": "a", "strength": "1"}]},
        {"parents": [{"fingerprint": "a", "strength": 1.0}]},
        {"parents": [{"fingerprint": "a", "strength": 1.0, "provenance": {"budget": "120"}}]},
    ],
    ids=str,
)
def test_an_origin_that_tune_does_not_write(folder: Path, provenance: object) -> None:
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps({**card, "provenance": provenance}))
    assert error_of(folder) == (
        "expected samples, a budget and parents as tarot writes them in DIR/tarot.json, got others; "
        "is this a tarot adapter?"
    )


def test_not_a_number(tmp_path: Path) -> None:
    adapter = an_adapter()
    angles = adapter.angles.clone()
    angles[1] = torch.nan
    Adapter(angles, adapter.edit, {}).save(tmp_path)
    assert error_of(tmp_path) == "expected finite angles, got 12 that are not in DIR; tune again"


def test_other_tensors(folder: Path) -> None:
    save_file({"other": torch.zeros(2)}, folder / WEIGHTS)
    card = json.loads((folder / CARD).read_text())
    import hashlib

    digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    (folder / CARD).write_text(json.dumps({**card, "weights_sha256": digest}))
    assert "expected angles and their edit in DIR, got KeyError: 'angles'" in error_of(folder)


@pytest.mark.parametrize(
    "change", [{"layers": []}, {"layers": ["a"]}, {"layers": [0.0, 1.0]}, {"sites": 5}, {"rotation": []}], ids=str
)
def test_an_edit_that_is_none(folder: Path, change: dict[str, object]) -> None:
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps({**card, "edit": {**card["edit"], **change}}))
    assert error_of(folder) == (
        "expected the sites, layers, rotation and model of an edit in DIR, got others; tune again"
    )


def test_another_model() -> None:
    adapter = an_adapter()
    with pytest.raises(TarotError) as error:
        adapter.sites(byte_model(heads=6))
    assert str(error.value) == (
        "expected angles of shape (2, 6, 4), got shape (2, 3, 4); this adapter is for another model"
    )
    with pytest.raises(TarotError) as error:
        adapter.sites(byte_model(layers=1))
    assert str(error.value) == (
        "expected a model with a layer 1, got LlamaForCausalLM, whose last is 0; this adapter is for another model"
    )
    renamed = Adapter(adapter.angles, Edit("heads", (0, 1), "rotary", "0" * 16), {})
    with pytest.raises(TarotError, match=r"expected the projections that the adapter was made for \(0{16}\)"):
        renamed.sites(model_of_bytes())
