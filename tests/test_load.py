"""References to models: what each loads, and one clear line for every reference, device and dtype that is refused."""

from pathlib import Path

import pytest
import torch
from checkpoint import byte_model, byte_tokenizer, load_error, logits
from hypothesis import given
from hypothesis import strategies as st
from transformers.utils import logging

from tarot.models.formats.checkpoint import DTYPES
from tarot.models.load import load_model
from tarot.models.loaded_model import LoadedModel


@given(st.text() | st.from_regex(r"wheel:\w*|\w+/\w+|[~./]\S*|\S+\.gguf", fullmatch=True))
def test_any_other_reference_is_refused_in_one_line(reference: str) -> None:
    assert load_error(reference)


@given(st.text())
def test_any_other_device_or_dtype_is_refused_in_one_line(text: str) -> None:
    for option in ("device", "dtype"):
        assert load_error("no/model", **{option: text})


def test_a_folder_gives_the_model_that_was_saved(byte_folder: Path) -> None:
    loaded = load_model(str(byte_folder))
    assert loaded.reference == str(byte_folder)
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert loaded.tokenizer.chat_template == byte_tokenizer().chat_template
    assert torch.equal(logits(loaded), logits(LoadedModel("", byte_model(), byte_tokenizer())))


def test_auto_is_the_dtype_of_the_checkpoint(tmp_path: Path) -> None:
    byte_model().to(torch.bfloat16).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    assert load_model(str(tmp_path)).model.dtype == torch.bfloat16
    for name, dtype in DTYPES.items():
        assert load_model(str(tmp_path), dtype=name).model.dtype == dtype


def test_a_tilde_is_the_home_folder(byte_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(byte_folder.parent))
    assert load_model(f"~/{byte_folder.name}").reference == "~/byte"


def test_loading_is_silent_and_restores_transformers_settings(
    byte_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load_model(str(byte_folder))
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    assert capfd.readouterr() == ("", "")


def test_a_path_that_does_not_exist_is_refused() -> None:
    assert "'/no/such/folder'" in load_error("/no/such/folder")


def test_devices_and_dtypes_that_do_not_exist_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert "'gpu'" in load_error("a/b", device="gpu")
    assert "1 GPUs" in load_error("a/b", device="cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "--device auto" in load_error("a/b", device="cuda")
    assert "'float32'" in load_error("a/b", dtype="float23")


# The object


def test_a_loaded_model_unpacks_and_has_a_short_repr(byte_folder: Path) -> None:
    loaded = load_model(str(byte_folder))
    model, tokenizer = loaded
    assert model is loaded.model and tokenizer is loaded.tokenizer
    assert repr(loaded) == f"LoadedModel({str(byte_folder)!r}, LlamaForCausalLM, float32 on cpu)"


def test_loaded_models_are_equal_if_their_objects_are(byte_folder: Path) -> None:
    one, other = load_model(str(byte_folder)), load_model(str(byte_folder))
    again = LoadedModel(one.reference, one.model, one.tokenizer)
    assert one == again and hash(one) == hash(again)
    assert one != other


def test_the_users_objects_are_known_by_the_models_name(byte_folder: Path) -> None:
    loaded = load_model(str(byte_folder))
    assert LoadedModel.from_objects(*loaded) == loaded
    assert LoadedModel.from_objects(byte_model(), byte_tokenizer()).reference == "LlamaForCausalLM"
