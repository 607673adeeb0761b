"""Checkpoint folders: what cannot be read as stated is refused, and what is written is the complete model."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint import byte_model, byte_tokenizer, load_error, logits, rewrite_config
from huggingface_hub import constants
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, T5Config, T5ForConditionalGeneration

from tarot.errors import TarotError
from tarot.models.formats import checkpoint
from tarot.models.formats.checkpoint import check_shard_size, save_checkpoint
from tarot.models.load import load_classifier, load_model
from tarot.models.loaded_model import LoadedModel


@pytest.fixture
def copied(byte_folder: Path, tmp_path: Path) -> Path:
    """A checkpoint that the test may damage."""
    return Path(shutil.copytree(byte_folder, tmp_path / "copied"))


# Reading


def without_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def without_one_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.self_attn.o_proj.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def cut_short(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def with_broken_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type":')


def with_own_code(folder: Path) -> None:
    rewrite_config(folder, model_type="mine", auto_map={"AutoConfig": "mine.Mine"})


def of_unknown_type(folder: Path) -> None:
    rewrite_config(folder, model_type="lamma")


def classifier(folder: Path) -> None:
    rewrite_config(folder, architectures=["LlamaForSequenceClassification"])


def with_a_number_as_architecture(folder: Path) -> None:
    rewrite_config(folder, architectures=[3])


def with_a_tokenizer_of_no_length(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": "long"}))


def without_tokenizer(folder: Path) -> None:
    for path in folder.glob("token*"):
        path.unlink()


def encoder(folder: Path) -> None:
    config = BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    BertForMaskedLM(config).save_pretrained(folder)


def sequence_to_sequence(folder: Path) -> None:
    config = T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, pad_token_id=0)
    T5ForConditionalGeneration(config).save_pretrained(folder)


def with_adapter(folder: Path) -> None:
    get_peft_model(byte_model(), LoraConfig(target_modules=["q_proj"])).save_pretrained(folder)


def adapter_alone(folder: Path) -> None:
    shutil.rmtree(folder)
    with_adapter(folder)


@pytest.mark.parametrize(
    ("damage", "keyword"),
    [
        (without_config, "config.json"),
        (pickled, "convert"),
        (without_weights, "download"),
        (without_one_weight, "model.layers.1.self_attn.o_proj.weight"),
        (cut_short, "causal language model"),
        (with_broken_config, "causal language model"),
        (with_own_code, "own code"),
        (of_unknown_type, "lamma"),
        (classifier, "LlamaForSequenceClassification"),
        (with_a_number_as_architecture, "causal language model"),
        (with_a_tokenizer_of_no_length, "tokenizer"),
        (without_tokenizer, "tokenizer"),
        (encoder, "BertForMaskedLM"),
        (sequence_to_sequence, "T5ForConditionalGeneration"),
        (with_adapter, "PEFT"),
        (adapter_alone, "PEFT"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_folder_that_is_not_one_causal_model_is_refused(
    copied: Path, damage: Callable[[Path], None], keyword: str
) -> None:
    damage(copied)
    message = load_error(copied)
    assert keyword in message and str(copied) in message


def test_a_pipe_in_a_checkpoint_folder_is_refused(copied: Path) -> None:
    (copied / "tokenizer.json").unlink()
    os.mkfifo(copied / "tokenizer.json")
    assert "regular files" in load_error(copied)


def add_weight(folder: Path, name: str) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, name: torch.ones(24)}, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("name", ["self_attn.q_proj.bias", "self_attn.q_norm.weight", "mlp.gate.weight", "norm.bias"])
@pytest.mark.parametrize("prefix", ["model.", ""])
def test_a_weight_that_the_layers_do_not_use_is_refused(copied: Path, name: str, prefix: str) -> None:
    """transformers drops a bias, for example, if the configuration does not state that the layer has one."""
    add_weight(copied, f"{prefix}layers.2.{name}")
    assert f"{prefix}layers.2.{name}" in load_error(copied)


@pytest.mark.parametrize("name", ["model.layers.4.mlp.gate_proj.weight", "vision_tower.embed.weight"])
def test_a_weight_beside_the_layers_is_named(copied: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    add_weight(copied, name)
    load_model(str(copied))
    (record,) = caplog.records
    assert name in record.getMessage() and str(copied) in record.getMessage()


@pytest.mark.parametrize("name", ["self_attn.bias", "self_attn.masked_bias", "self_attn.rotary_emb.inv_freq"])
def test_masks_and_frequencies_of_old_checkpoints_are_left_out(
    copied: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    add_weight(copied, f"model.layers.0.{name}")
    assert torch.equal(logits(load_model(str(copied))), logits(LoadedModel("", byte_model(), byte_tokenizer())))
    assert not caplog.records


def test_a_classifier_with_an_adapter_beside_it_is_refused(copied: Path) -> None:
    with_adapter(copied)
    with pytest.raises(TarotError, match="PEFT"):
        load_classifier(str(copied))


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("tokenizer_config.json", lambda token: {"added_tokens_decoder": {"3": token}}),
        ("tokenizer_config.json", lambda token: {"extra_special_tokens": [{**token, "__type": "AddedToken"}]}),
        ("special_tokens_map.json", lambda token: {"eos_token": token}),
    ],
)
@pytest.mark.parametrize("setting", ["\x1b[31mred", "x" * 5000])
def test_a_setting_of_a_token_is_not_printed_as_it_is(
    copied: Path, capfd: pytest.CaptureFixture[str], name: str, place: Callable[[Any], Any], setting: str
) -> None:
    path = copied / name
    stated = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**stated, **place({"content": "<s>", setting: True})}))
    for load in (load_model, load_classifier):
        with pytest.raises(TarotError, match="printable names"):
            load(str(copied))
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation", "experts_implementation"])
def test_a_kernel_from_the_hub_is_not_used(copied: Path, key: str) -> None:
    expected = logits(load_model(str(copied)))
    rewrite_config(copied, **{key: "kernels-community/flash-attn2"})
    loaded = load_model(str(copied))
    assert loaded.model.config._attn_implementation in ("eager", "sdpa")
    assert torch.equal(logits(loaded), expected)


@pytest.mark.parametrize("method", ["eetq", "fbgemm_fp8", "metal", "mxfp8", "nvfp4"])
def test_quantisation_whose_kernels_come_from_the_hub_is_refused(copied: Path, method: str) -> None:
    rewrite_config(copied, quantization_config={"quant_method": method})
    assert method in load_error(copied)


@pytest.mark.parametrize("damage", [None, without_tokenizer])
def test_the_hub_is_offline_while_files_are_read(
    copied: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], None] | None
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    offline: list[bool] = []
    for name in ("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer"):
        kind = getattr(checkpoint, name)

        def read(*args: Any, read: Callable[..., Any] = kind.from_pretrained, **kwargs: Any) -> Any:
            offline.append(constants.HF_HUB_OFFLINE)
            return read(*args, **kwargs)

        monkeypatch.setattr(kind, "from_pretrained", read)
    if damage:
        damage(copied)
        load_error(copied)
    else:
        load_model(str(copied))
    assert len(offline) >= 3 and all(offline)
    assert constants.HF_HUB_OFFLINE is False


# Writing


def test_a_saved_checkpoint_is_the_loaded_one(byte_folder: Path, tmp_path: Path) -> None:
    loaded = load_model(str(byte_folder))
    save_checkpoint(loaded, tmp_path / "new" / "model")
    again = load_model(str(tmp_path / "new" / "model"))
    assert torch.equal(logits(loaded), logits(again))
    assert again.tokenizer.chat_template == loaded.tokenizer.chat_template
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["model"]


def test_generation_settings_that_transformers_refuses_to_save_are_kept(byte_folder: Path, tmp_path: Path) -> None:
    loaded = load_model(str(byte_folder))
    loaded.model.generation_config.temperature = 0.5  # without sampling
    save_checkpoint(loaded, tmp_path / "model")
    assert json.loads((tmp_path / "model" / "generation_config.json").read_text())["temperature"] == 0.5
    assert loaded.model.generation_config.temperature == 0.5


def test_a_folder_in_use_is_left_alone(byte_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(TarotError, match="not empty"):
        save_checkpoint(load_model(str(byte_folder)), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_nothing_is_left_of_a_save_that_fails(
    byte_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_model(str(byte_folder))

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(loaded.tokenizer, "save_pretrained", fail)
    with pytest.raises(TarotError, match="No space left"):
        save_checkpoint(loaded, tmp_path / "new")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrap", [False, True], ids=["added", "wrapped"])
def test_a_model_with_a_peft_adapter_is_not_saved(tmp_path: Path, wrap: bool) -> None:
    model: Any = byte_model()
    lora = LoraConfig(target_modules=["q_proj"])
    if wrap:
        model = get_peft_model(model, lora)
    else:
        model.add_adapter(lora)
    with pytest.raises(TarotError, match="PEFT"):
        save_checkpoint(LoadedModel("lora", model, byte_tokenizer()), tmp_path / "new")
    assert not (tmp_path / "new").exists()
    merged = model.merge_and_unload() if wrap else byte_model()
    save_checkpoint(LoadedModel("merged", merged, byte_tokenizer()), tmp_path / "new")


def test_a_save_without_some_weights_is_noticed(tmp_path: Path) -> None:
    model = byte_model()
    model._keys_to_ignore_on_save = {"model.layers.2.mlp.down_proj.weight"}
    with pytest.raises(TarotError, match=r"model\.layers\.2\.mlp\.down_proj\.weight"):
        save_checkpoint(LoadedModel("byte", model, byte_tokenizer()), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_save_in_another_shape_is_noticed(tmp_path: Path) -> None:
    model = byte_model()
    model.config.num_hidden_layers = 3
    with pytest.raises(TarotError, match=r"model\.layers\.3"):
        save_checkpoint(LoadedModel("byte", model, byte_tokenizer()), tmp_path / "new")
    assert not (tmp_path / "new").exists()


@given(st.integers(1, 10**6), st.sampled_from("KMGT"), st.text(max_size=3))
def test_only_file_sizes_are_shard_sizes(number: int, unit: str, noise: str) -> None:
    check_shard_size(f"{number}{unit}B")
    for text in (f"0{unit}B", f"{number}", f"-{number}{unit}B", f"{number}{unit}B{noise} "):
        with pytest.raises(TarotError, match="500MB"):
            check_shard_size(text)
