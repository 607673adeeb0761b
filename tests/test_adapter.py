"""Adapters: saved and loaded, compared, scaled and applied; damaged folders are refused."""

import hashlib
import inspect
import json
import os
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from checkpoint import byte_model
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from tarot.edit.adapter import Adapter, Edit
from tarot.edit.adapter_folder import METADATA, WEIGHTS
from tarot.edit.composition import compose
from tarot.edit.fingerprint import weights_fingerprint
from tarot.edit.hooks import apply_rotation
from tarot.edit.rotation import ROTARY
from tarot.edit.sites import find_sites
from tarot.errors import InvalidValueError, TarotError, UnknownName

model_of_bytes = cache(byte_model)
TOKENS = torch.arange(3, 30)[None]


def an_adapter(scale: float = 0.5, seed: int = 0) -> Adapter:
    model = model_of_bytes()
    angles = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(seed)) * scale
    return Adapter(
        angles, Edit.from_sites(model, "heads", find_sites(model, "heads", 0.5), ROTARY), {"task": "t", "seed": seed}
    )


@given(st.floats(0.01, 3), st.integers(0, 100))
@settings(max_examples=20)
def test_a_saved_adapter_is_loaded_unchanged(tmp_path_factory: pytest.TempPathFactory, scale: float, seed: int) -> None:
    folder, saved = tmp_path_factory.mktemp("adapter"), an_adapter(scale, seed)
    saved.save_pretrained(folder)
    loaded = Adapter.from_pretrained(folder)
    assert torch.equal(loaded.angles, saved.angles)
    assert (loaded.edit, loaded.provenance, loaded.fingerprint) == (saved.edit, saved.provenance, saved.fingerprint)
    assert loaded == saved and hash(loaded) == hash(saved)


def test_different_edits_have_different_fingerprints() -> None:
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


def test_a_scaled_adapter_keeps_nothing_that_was_measured_of_the_whole() -> None:
    measured: dict[str, object] = {"scores": {"best": 1.0}, "best_trial": 3, "fitted": True, "retention": {"kl": 0.004}}
    measured["cross_validation"] = {"base": -2.0, "edited": -1.0}
    adapter = replace(an_adapter(), provenance={"task": "a", "max_kl": 0.01, **measured})
    scaled = adapter.scaled(3.0).provenance
    assert not measured.keys() & scaled.keys() and scaled["parents"][0]["provenance"] == adapter.provenance


def test_a_strength_must_be_finite() -> None:
    for strength in (float("nan"), float("inf")):
        with pytest.raises(InvalidValueError, match="finite"):
            an_adapter().scaled(strength)


def test_adapters_are_equal_if_their_edit_and_provenance_are() -> None:
    adapter = an_adapter()
    others = [
        an_adapter(seed=1),
        Adapter(adapter.angles, adapter.edit, {"task": "other"}),
        Adapter(adapter.angles, Edit("heads", (0, 1), "givens", adapter.edit.model), adapter.provenance),
        adapter.scaled(0.5),
        adapter.fingerprint,
    ]
    assert adapter == an_adapter() and not any(adapter == other for other in others)
    assert {adapter: "here"}[an_adapter()] == "here" and len({adapter, an_adapter(), *others}) == 6


def test_gradients_and_precision_do_not_change_equality() -> None:
    adapter = an_adapter()
    for angles in (adapter.angles.clone().requires_grad_(), adapter.angles.double()):
        same = Adapter(angles, adapter.edit, {"seed": 0, "task": "t"})
        assert same == adapter and hash(same) == hash(adapter)


def test_tuples_and_nan_in_the_provenance_equal_what_json_makes_of_them() -> None:
    angles, edit = an_adapter().angles, an_adapter().edit
    made = Adapter(angles, edit, {"layers": (0, 1), "scores": {"best": float("nan")}})
    assert made == Adapter(angles, edit, {"layers": [0, 1], "scores": {"best": None}})


def test_the_repr_is_short() -> None:
    assert repr(an_adapter()) == (
        f"Adapter(task='t', model=None, layers='0-1', fingerprint='{an_adapter().fingerprint}')"
    )
    edit = Edit("heads", tuple(range(0, 200, 2)), "rotary", "0" * 16)
    text = repr(Adapter(torch.zeros(100, 3, 4), edit, {"model": "m" * 500, "task": "\x1b[2J"}))
    assert len(text) < 200 and text.isprintable()


@pytest.mark.parametrize("thing", [None, 5, ["folder"], {"angles": 1}, b"folder", torch.zeros(2, 3, 4)], ids=repr)
def test_other_objects_are_refused_with_one_line(thing: object) -> None:
    unchecked = inspect.unwrap(Adapter.from_pretrained.__func__)  # without the tests' check of annotations
    for read in (Adapter.resolve, partial(unchecked, Adapter)):
        with pytest.raises(InvalidValueError, match="folder") as error:
            read(thing)
        assert "\n" not in str(error.value)


def test_an_adapter_or_its_folder_is_resolved(folder: Path) -> None:
    adapter = an_adapter()
    assert Adapter.resolve(adapter) is adapter
    assert Adapter.resolve(folder) == Adapter.resolve(str(folder)) == adapter


@pytest.mark.parametrize("names", [{"sites": "head"}, {"rotation": "rotery"}], ids=str)
def test_unknown_names_are_refused_at_construction(folder: Path, names: dict[str, str]) -> None:
    with pytest.raises(UnknownName, match="did you mean"):
        replace(an_adapter().edit, **names)
    edit = json.loads((folder / METADATA).read_text())["edit"]
    assert "did you mean" in rewritten(folder, edit={**edit, **names})


def test_applied_and_merged_are_one_edit() -> None:
    model, adapter = model_of_bytes(), an_adapter()
    base = model(TOKENS).logits
    with adapter.apply(model):
        applied = model(TOKENS).logits
    with apply_rotation(model, adapter.angles):
        assert torch.equal(applied, model(TOKENS).logits)
    assert torch.equal(base, model(TOKENS).logits)
    other = byte_model()
    assert adapter.merge(other) is other
    assert (applied - base).abs().max() > 0.1
    torch.testing.assert_close(other(TOKENS).logits, applied, atol=1e-4, rtol=1e-4)


def error_message(folder: Path) -> str:
    with pytest.raises(TarotError) as error:
        Adapter.from_pretrained(folder)
    assert "\n" not in str(error.value)
    return str(error.value).replace(str(folder), "DIR")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    an_adapter().save_pretrained(tmp_path)
    return tmp_path


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "DIR/tarot.json: No such file or directory" in error_message(tmp_path)
    with pytest.raises(FileNotFoundError):
        Adapter.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", [METADATA, WEIGHTS])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_a_truncated_file_is_refused(folder: Path, name: str, keep: float) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(len(content) * keep)])
    assert (
        "JSON in DIR/tarot.json" if name == METADATA else "adapter.safetensors that tarot.json describes"
    ) in error_message(folder)


def test_a_newer_format_is_refused(folder: Path) -> None:
    metadata = json.loads((folder / METADATA).read_text())
    (folder / METADATA).write_text(json.dumps({**metadata, "format": 99}))
    assert "got 99 in DIR/tarot.json; update tarot" in error_message(folder)


@pytest.mark.parametrize("text", ["[]", "{}", '{"format": "x"}', "null"])
def test_other_json_is_refused(folder: Path, text: str) -> None:
    (folder / METADATA).write_text(text)
    assert "expected a format number in DIR/tarot.json" in error_message(folder)


def test_nesting_too_deep_is_refused(folder: Path) -> None:
    (folder / METADATA).write_text("[" * 100_000)
    assert error_message(folder).startswith("expected JSON in DIR/tarot.json, got ")


def rewritten(folder: Path, **changes: object) -> str:
    """Return the error of an adapter whose tarot.json has these values instead."""
    metadata = json.loads((folder / METADATA).read_text())
    (folder / METADATA).write_text(json.dumps({**metadata, **changes}))
    return error_message(folder)


VALID = {
    "model": "m",
    "dtype": "auto",
    "task": "t",
    "num_fewshot": "mix",
    "num_samples": 20,
    "objective": "log_probability",
    "bound": 1,
    "seed": -1,
    "apply_chat_template": True,
    "fluency_floor": None,
    "budget": 120,
    "interrupted": False,
    "scores": {"identity": None, "best": -1.5},
    "seconds": {"evaluating": 0.5},
    "samples_drawn": [{"id": "train/1", "key": "a", "num_fewshot": 2}],
    "versions": {"torch": "2"},
    "parents": [{"fingerprint": "a", "strength": 1, "provenance": {"parents": []}}],
    "pruned": {"keep": 0.9, "before": {"keep": 1, "before": None}, "heads": 3, "of": 9},
    "a note": [{"of": "the user"}],
}
OTHER_TYPES = [None, True, 3, 0.5, "text", [], {}, [[1]], {"a": {}}, [{"key": 1}], [{"a": None}]]


@given(st.data())
@settings(max_examples=60)
def test_a_field_of_another_type_is_named_or_accepted(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("adapter")
    field = data.draw(st.sampled_from([name for name in VALID if name != "a note"]))
    value = data.draw(st.sampled_from(OTHER_TYPES))
    adapter = an_adapter()
    Adapter(adapter.angles, adapter.edit, {**VALID, field: value}).save_pretrained(folder)
    try:
        loaded = Adapter.from_pretrained(folder)
    except TarotError as error:
        assert field in str(error) and METADATA in str(error)
        return
    assert loaded.provenance == {**VALID, field: value}
    assert isinstance(loaded.tasks, frozenset)


def test_a_valid_provenance_is_loaded_unchanged(folder: Path) -> None:
    adapter = an_adapter()
    Adapter(adapter.angles, adapter.edit, VALID).save_pretrained(folder)
    assert Adapter.from_pretrained(folder).provenance == VALID


@pytest.mark.parametrize(
    ("provenance", "field"),
    [
        ([], "the file"),
        ({"samples_drawn": ["train/1"]}, "samples_drawn.0"),
        ({"samples_drawn": [{"id": "train/1", "key": 1}]}, "samples_drawn.0.key"),
        ({"samples_drawn": [{"id": "train/first", "key": "a"}]}, "samples_drawn.0.id"),
        ({"budget": "120"}, "budget"),
        ({"budget": -1}, "budget"),
        ({"budget": 2**60}, "budget"),
        ({"seed": 2**63}, "seed"),
        ({"bound": 1e31}, "the number 1e+31"),
        ({"parents": [{"fingerprint": "a", "strength": "1"}]}, "parents.0.strength"),
        ({"parents": [{"fingerprint": "a", "strength": 10**400}]}, "an integer of 1329 bits"),
        ({"parents": [{"fingerprint": "a", "strength": float("inf")}]}, "the number inf"),
        ({"parents": [{"fingerprint": "a", "strength": 1.0}]}, "parents.0.provenance"),
        (
            {"parents": [{"fingerprint": "a", "strength": 1.0, "provenance": {"budget": "120"}}]},
            "parents.0.provenance.budget",
        ),
        ({"pruned": {"keep": 0}}, "pruned.keep"),
        ({"model": []}, "model"),
        ({"model": "m" * 5000}, "model"),
        ({"a note": "\ud800"}, "half a surrogate pair"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_an_invalid_provenance_is_refused(folder: Path, provenance: object, field: str) -> None:
    message = rewritten(folder, provenance=provenance)
    assert "DIR/tarot.json" in message and field in message and len(message) < 300


def test_nan_and_infinity_are_saved_as_null(tmp_path: Path) -> None:
    adapter = an_adapter()
    scores = {"identity": float("nan"), "best": float("-inf")}
    Adapter(adapter.angles, adapter.edit, {"scores": scores, "budget": 3}).save_pretrained(tmp_path)
    assert "NaN" not in (tmp_path / METADATA).read_text()
    assert Adapter.from_pretrained(tmp_path).provenance == {"scores": {"identity": None, "best": None}, "budget": 3}


def test_a_duplicate_key_is_refused(folder: Path) -> None:
    text = (folder / METADATA).read_text()
    (folder / METADATA).write_text(text.replace('"sites"', '"layers": [0], "sites"'))
    assert "the key 'layers' twice in one object" in error_message(folder)


def test_a_pipe_is_refused(folder: Path) -> None:
    (folder / METADATA).unlink()
    os.mkfifo(folder / METADATA)
    assert "DIR/tarot.json: not a regular file" in error_message(folder)


def test_a_large_file_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tarot.edit.adapter_folder.LARGEST_FILE", 100)
    assert "DIR/tarot.json: more than 100 bytes" in error_message(folder)


def test_angles_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    adapter = an_adapter()
    angles = adapter.angles.clone()
    angles[1] = torch.nan
    Adapter(angles, adapter.edit, {}).save_pretrained(tmp_path)
    assert error_message(tmp_path) == "expected finite angles, got 12 that are not in DIR; tune again"


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"other": torch.zeros(2)}, "expected angles in DIR/adapter.safetensors, got 1 other tensors; tune again"),
        ({"angles": torch.zeros(2)}, "expected angles of shape (2, heads, angles) in DIR, got shape (2,); tune again"),
        ({"angles": torch.zeros(3, 3, 4)}, "expected angles of shape (2, heads, angles) in DIR, got shape (3, 3, 4)"),
        ({"angles": torch.zeros(2, 0, 4)}, "expected angles of shape (2, heads, angles) in DIR, got shape (2, 0, 4)"),
        ({"angles": torch.zeros(2, 3, 4, dtype=torch.int64)}, "expected angles of a floating-point type in DIR"),
        ({"angles": torch.zeros(2, 3, 4, dtype=torch.complex64)}, "expected angles of a floating-point type in DIR"),
    ],
)
def test_other_tensors_are_refused(folder: Path, tensors: dict[str, torch.Tensor], message: str) -> None:
    save_file(tensors, folder / WEIGHTS)
    digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    assert rewritten(folder, weights_sha256=digest).startswith(message)


@pytest.mark.parametrize(
    "change", [{"layers": []}, {"layers": ["a"]}, {"layers": [0.0, 1.0]}, {"sites": 5}, {"rotation": []}], ids=str
)
def test_an_invalid_edit_is_refused(folder: Path, change: dict[str, object]) -> None:
    edit = json.loads((folder / METADATA).read_text())["edit"]
    message = rewritten(folder, edit={**edit, **change})
    assert message.startswith("DIR/tarot.json is damaged: edit.")
    assert next(iter(change)) in message


def test_another_model_is_refused() -> None:
    adapter = an_adapter()
    with pytest.raises(TarotError) as error:
        adapter.find_sites(byte_model(heads=6))
    assert str(error.value) == (
        "expected angles of shape (2, 6, 4), got shape (2, 3, 4); this adapter is for another model"
    )
    with pytest.raises(TarotError) as error:
        adapter.find_sites(byte_model(layers=1))
    assert str(error.value) == (
        "expected a model with a layer 1, got LlamaForCausalLM, whose last is 0; this adapter is for another model"
    )
    renamed = Adapter(adapter.angles, Edit("heads", (0, 1), "rotary", "0" * 16), {})
    with pytest.raises(TarotError, match=r"expected the projections that the adapter was made for \(0{16}\)"):
        renamed.find_sites(model_of_bytes())


def test_a_model_with_other_weights_is_edited_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever was made from the adapter warns too; an adapter that does not know its weights cannot."""
    model, other = byte_model(), byte_model(seed=1)
    provenance = {"model": "bytes", "model_weights": weights_fingerprint(model)}
    adapter = replace(an_adapter(), provenance=provenance)
    made = {"itself": adapter, "weaker": adapter.scaled(0.5), "sum": compose(model, adapter, an_adapter())}
    for name, edit in {**made, "unknown": an_adapter(0.4)}.items():
        assert not edit.has_other_weights(model) and edit.has_other_weights(other) == (name in made)
        for edited in (model, other, other):
            caplog.clear()
            with edit.apply(edited, strength=0.9):
                pass
            first = edited is other and name in made
            made.pop(name, None) if first else None
            assert [record.getMessage().count(edit.fingerprint) for record in caplog.records] == [1] * first


def test_a_merged_model_has_other_weights(caplog: pytest.LogCaptureFixture) -> None:
    """An adapter would act twice on the model that it was merged into."""
    model = byte_model()
    adapter = replace(an_adapter(0.6), provenance={"model_weights": weights_fingerprint(model)})
    adapter.merge(model)
    assert not caplog.records
    with adapter.apply(model):
        assert "other weights" in caplog.text
