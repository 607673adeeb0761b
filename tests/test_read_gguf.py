"""GGUF files: the weights and tokenizer of the file, and nothing that lies beside it."""

import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from checkpoint import byte_model, byte_tokenizer, load_error, logits, write_gguf
from peft import LoraConfig, get_peft_model
from transformers import LlamaForCausalLM

from tarot.errors import TarotError
from tarot.models.formats import wheels
from tarot.models.formats.checkpoint import save_checkpoint
from tarot.models.formats.gguf import gguf_file
from tarot.models.formats.listing import available
from tarot.models.load import load_model


def test_a_gguf_file_gives_its_weights_in_float32(byte_gguf: Path, capfd: pytest.CaptureFixture[str]) -> None:
    loaded, source = load_model(str(byte_gguf)), byte_model().state_dict()
    assert capfd.readouterr() == ("", "")
    assert loaded.model.dtype == torch.float32
    assert type(loaded.model) is LlamaForCausalLM
    weights = loaded.model.state_dict()
    for name, tensor in source.items():
        # Blocks of 32 numbers in steps of their largest / 127.
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=float(tensor.abs().max()) / 127)
    exact = {name for name in source if torch.equal(weights[name], source[name])}
    assert exact == {name for name in source if "down_proj" not in name}
    text = "the quick brown fox"
    assert loaded.tokenizer(text).input_ids == byte_tokenizer()(text).input_ids
    assert loaded.tokenizer.chat_template == byte_tokenizer().chat_template
    assert load_model(str(byte_gguf), dtype="bfloat16").model.dtype == torch.bfloat16


def test_a_model_from_gguf_can_be_saved(byte_gguf: Path, tmp_path: Path) -> None:
    loaded = load_model(str(byte_gguf))
    save_checkpoint(loaded, tmp_path / "plain")
    assert torch.equal(logits(loaded), logits(load_model(str(tmp_path / "plain"))))
    assert "quantization_config" not in json.loads((tmp_path / "plain" / "config.json").read_text())


def test_files_beside_a_gguf_file_are_ignored(byte_gguf: Path, tmp_path: Path) -> None:
    expected = load_model(str(byte_gguf))
    path = Path(shutil.copy(byte_gguf, tmp_path / "byte.gguf"))
    other = byte_model(seed=1)
    other.generation_config.max_new_tokens = 3
    other.save_pretrained(tmp_path)
    byte_tokenizer(chat=False).save_pretrained(tmp_path)
    get_peft_model(other, LoraConfig(target_modules=["q_proj"], init_lora_weights=False)).save_pretrained(tmp_path)
    loaded = load_model(str(path))
    assert torch.equal(logits(loaded), logits(expected))
    assert loaded.model.generation_config.max_new_tokens == expected.model.generation_config.max_new_tokens
    assert loaded.tokenizer.chat_template == expected.tokenizer.chat_template


def test_files_that_are_not_gguf_are_refused(byte_gguf: Path, tmp_path: Path) -> None:
    missing, other, cut = tmp_path / "missing.gguf", tmp_path / "other.gguf", tmp_path / "cut.gguf"
    other.write_bytes(b"PK\x03\x04 and more")
    cut.write_bytes(byte_gguf.read_bytes()[:3000])
    assert "not a file" in load_error(missing)
    assert r"b'PK\x03\x04'" in load_error(other)
    assert str(cut) in load_error(cut)


def test_one_part_of_a_gguf_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add = gguf.GGUFWriter.add_tensor

    def add_first_layers(writer: gguf.GGUFWriter, name: str, *args: Any, **named: Any) -> None:
        if not name.startswith("blk.1."):
            add(writer, name, *args, **named)

    monkeypatch.setattr(gguf.GGUFWriter, "add_tensor", add_first_layers)
    part = write_gguf(byte_model(), tmp_path / "byte-00001-of-00002.gguf")
    message = load_error(part)
    assert "model.layers.1." in message and "llama-gguf-split --merge" in message


def test_without_the_package_gguf_the_error_names_it(byte_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "find_spec", lambda name: None)
    assert "pip install gguf" in load_error(byte_gguf)
    assert [info for info in available() if info.reference.startswith("wheel:")] == []


def test_gguf_file_gives_the_file_of_a_reference(byte_gguf: Path, byte_folder: Path, byte_wheel: list[Path]) -> None:
    with gguf_file(str(byte_gguf)) as named, gguf_file("wheel:fake") as unpacked:
        assert named == unpacked == byte_gguf
        assert byte_wheel[0].is_dir()
    assert not byte_wheel[0].exists()
    for reference, keyword in (
        (str(byte_folder), "tarot merge"),
        ("none.gguf", "not a file"),
        ("wheel:fakes", "'wheel:fake'"),
    ):
        with pytest.raises(TarotError, match=keyword), gguf_file(reference):
            pass
