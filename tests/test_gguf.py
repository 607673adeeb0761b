"""GGUF export: only edited tensors differ, and the reloaded file is the hooked model."""

import struct
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest
import torch
from adapters import error_message, logits, random_adapter
from checkpoint import byte_model, write_gguf
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import tensors
from tiny import tiny_model
from transformers import PreTrainedModel

from tarot.edit.adapter import Adapter
from tarot.edit.export.gguf import to_gguf
from tarot.edit.merge import merge_temporarily
from tarot.edit.rotation import GIVENS
from tarot.edit.sites import find_sites
from tarot.errors import TarotError
from tarot.models.load import load_model
from tarot.models.loaded_model import LoadedModel


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write an 8-bit file of a model with four heads of eight, whose projections consist of complete blocks."""
    return write_gguf(byte_model(heads=4), tmp_path_factory.mktemp("gguf") / "byte.gguf")


@pytest.fixture(scope="module")
def source_model(source: Path) -> LoadedModel:
    return load_model(str(source), device="cpu")


def metadata(reader: gguf.GGUFReader) -> bytes:
    """Return the bytes before the table of tensors."""
    return reader.data[: reader.tensors[0].field.offset].tobytes()


def stored(path: Path) -> dict[str, tuple[str, list[int], bytes]]:
    """Return type, shape and bytes of each tensor, in order."""
    return {each.name: (each.tensor_type.name, each.shape.tolist(), each.data.tobytes()) for each in read(path)}


def read(path: Path) -> list[gguf.ReaderTensor]:
    return gguf.GGUFReader(path).tensors


@given(tensors((4, 4, 4), 7.0, torch.float32), st.sets(st.integers(0, 3)))
@settings(max_examples=10)
def test_only_edited_tensors_differ(
    source: Path, source_model: LoadedModel, angles: torch.Tensor, identical: set[int]
) -> None:
    model, output = source_model.model, source.with_name("edited.gguf")
    angles = torch.stack([row * (layer not in identical) for layer, row in enumerate(angles)])
    adapter = Adapter(angles, random_adapter(model).edit, {})
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    edited = to_gguf(model, adapter, source, output)
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
    assert metadata(gguf.GGUFReader(output)) == metadata(gguf.GGUFReader(source))
    was, now = stored(source), stored(output)
    assert list(now) == list(was)
    assert {name for name in now if now[name] != was[name]} == set(edited)
    assert set(edited) <= {f"blk.{layer}.attn_output.weight" for layer in range(4) if angles[layer].any()}
    with merge_temporarily(model, angles, adapter.find_sites(model)):
        for name in edited:
            weight = model.get_submodule(f"model.layers.{name.split('.')[1]}.self_attn.o_proj").weight
            assert now[name] == ("F16", was[name][1], weight.half().numpy().tobytes())


def test_the_identity_writes_an_identical_file(source: Path, source_model: LoadedModel, tmp_path: Path) -> None:
    assert (
        to_gguf(source_model.model, random_adapter(source_model.model, scale=0), source, tmp_path / "same.gguf") == ()
    )
    assert (tmp_path / "same.gguf").read_bytes() == source.read_bytes()


def test_the_reloaded_file_is_the_hooked_model(source: Path, source_model: LoadedModel, tmp_path: Path) -> None:
    """Agree up to the rounding of the edited weights to float16; the other weights are in 8 bits."""
    model, ids = source_model.model, torch.arange(3, 30)[None]
    adapter = random_adapter(model, scale=0.4, layers=-0.5)
    bare = logits(model, ids)
    with adapter.apply(model):
        hooked = logits(model, ids)
    edited = to_gguf(model, adapter, source, tmp_path / "new" / "edited.gguf")
    assert edited == ("blk.2.attn_output.weight", "blk.3.attn_output.weight")
    reloaded = load_model(str(tmp_path / "new" / "edited.gguf"), device="cpu")
    assert (logits(reloaded.model, ids) - hooked).abs().max() < 2e-3 * hooked.abs().max()
    assert (hooked - bare).abs().max() > 1
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["edited.gguf"]
    assert reloaded.tokenizer.chat_template == source_model.tokenizer.chat_template
    again = random_adapter(reloaded.model, layers=[0, 3])  # from a file of many types another can be made
    assert len(to_gguf(reloaded.model, again, tmp_path / "new" / "edited.gguf", tmp_path / "again.gguf")) == 2


GGUF_NAMES = {"heads": "attn_output", "mlp": "ffn_down"}
"""Names in llama.cpp, in every layer `blk.N`."""


def write_projections(model: PreTrainedModel, path: Path, architecture: str, kind: str) -> Path:
    """Write a file of the projections only, in float32 with outputs in rows."""
    writer = gguf.GGUFWriter(path, architecture)
    for site in find_sites(model, kind, 1.0):
        for name, parameter in site.module.named_parameters():
            rows = parameter.T if type(site.module).__name__ == "Conv1D" and name == "weight" else parameter
            writer.add_tensor(f"blk.{site.layer}.{GGUF_NAMES[kind]}.{name}", rows.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("kind", ["heads", "mlp"])
@pytest.mark.parametrize(
    ("model_type", "architecture"),
    [
        ("bloom", "bloom"),
        ("falcon", "falcon"),
        ("gemma3_text", "gemma3"),
        ("gpt2", "gpt2"),
        ("gpt_neox", "gptneox"),
        ("llama", "llama"),
        ("mistral", "llama"),
        ("mpt", "mpt"),
        ("phi3", "phi3"),
        ("qwen3", "qwen3"),
        ("starcoder2", "starcoder2"),
    ],
)
def test_projections_are_found_by_llama_cpp_name(model_type: str, architecture: str, kind: str, tmp_path: Path) -> None:
    """Cover Conv1D, biases, and edits of outputs, which rotate the biases too."""
    model = tiny_model(model_type)
    source = write_projections(model, tmp_path / "source.gguf", architecture, kind)
    adapter = random_adapter(model, kind=kind, rotation=GIVENS)
    edited = to_gguf(model, adapter, source, tmp_path / "edited.gguf")
    adapter.merge(model)
    write_projections(model, tmp_path / "merged.gguf", architecture, kind)
    assert (tmp_path / "edited.gguf").read_bytes() == (tmp_path / "merged.gguf").read_bytes()
    has_bias = kind == "mlp" and any(name.endswith("bias") for name in stored(source))
    assert {name.rpartition(".")[2] for name in edited} == ({"weight", "bias"} if has_bias else {"weight"})


def test_weights_too_large_for_float16_are_float32(source: Path, tmp_path: Path) -> None:
    model = byte_model(heads=4)
    model.model.layers[0].self_attn.o_proj.weight *= 1e6
    large = write_gguf(model, tmp_path / "large.gguf")
    loaded = load_model(str(large), device="cpu").model
    to_gguf(loaded, random_adapter(loaded), large, tmp_path / "edited.gguf")
    kinds = {name: kind for name, (kind, _, _) in stored(tmp_path / "edited.gguf").items()}
    assert [kinds[f"blk.{layer}.attn_output.weight"] for layer in range(4)] == ["F32", "F16", "F16", "F16"]
    reloaded = load_model(str(tmp_path / "edited.gguf"), device="cpu").model
    assert all(parameter.isfinite().all() for parameter in reloaded.parameters())


def permute(model: PreTrainedModel) -> None:
    weight = model.get_submodule("model.layers.1.self_attn.o_proj").weight
    weight.data = weight.data.flip(1)


def transpose(model: PreTrainedModel) -> None:
    """Transpose a square weight, whose shape does not show it."""
    weight = model.get_submodule("model.layers.1.self_attn.o_proj").weight
    weight.data = weight.data.T.contiguous()


def perturb(model: PreTrainedModel) -> None:
    model.get_submodule("model.layers.1.self_attn.o_proj").weight.data[3, 3] += 1e-4


@pytest.mark.parametrize("spoil", [permute, transpose, perturb])
def test_a_file_with_other_weights_is_refused(spoil: Callable[[PreTrainedModel], None], tmp_path: Path) -> None:
    model = byte_model()
    adapter = random_adapter(model, layers=[1, 3])
    spoil(other := byte_model())
    source = write_projections(other, tmp_path / "source.gguf", "llama", "heads")
    assert error_message(lambda: to_gguf(model, adapter, source, tmp_path / "edited.gguf"), tmp_path) == (
        "expected the model's model.layers.1.self_attn.o_proj.weight in DIR/source.gguf, got other numbers, or in "
        "another order, in blk.1.attn_output.weight; tarot merge writes the folder that llama.cpp's converter reads"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["source.gguf"]
    unaffected = random_adapter(model, layers=[0, 3])
    assert len(to_gguf(model, unaffected, source, tmp_path / "edited.gguf")) == 2


def test_damaged_and_unknown_files_are_refused(tmp_path: Path) -> None:
    model, output = byte_model(), tmp_path / "edited.gguf"
    heads, mlp = random_adapter(model), random_adapter(model, kind="mlp")
    source = write_projections(model, tmp_path / "source.gguf", "llama", "heads")
    unknown = write_projections(model, tmp_path / "unknown.gguf", "lamma", "heads")
    (tmp_path / "cut.gguf").write_bytes(source.read_bytes()[:-100])
    (tmp_path / "short.gguf").write_bytes(source.read_bytes()[:50])
    (tmp_path / "other.gguf").write_bytes(b"PK\x03\x04 and more of it")
    assert error_message(lambda: to_gguf(model, mlp, source, output), tmp_path) == (
        "expected the model's model.layers.0.mlp.down_proj.weight in DIR/source.gguf, got none of that name; "
        "tarot merge writes the folder that llama.cpp's converter reads"
    )
    assert error_message(lambda: to_gguf(model, heads, unknown, output), tmp_path) == (
        "expected an architecture that the package gguf knows in DIR/unknown.gguf, got 'lamma'; update gguf"
    )
    for name in ("cut", "short", "other", "none"):
        message = error_message(lambda name=name: to_gguf(model, heads, tmp_path / f"{name}.gguf", output), tmp_path)
        assert message.startswith(f"DIR/{name}.gguf is not a complete GGUF file: ")
        assert message.endswith("; check the download") and "\n" not in message
    assert not output.exists()


def test_metadata_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """Insert an empty list, which the package gguf cannot write."""
    model = byte_model()
    source = write_projections(model, tmp_path / "source.gguf", "llama", "heads")
    content, table = source.read_bytes(), len(metadata(gguf.GGUFReader(source)))
    key = b"an.empty.list.of.nothing.in.this.file.of"  # 64 bytes with the rest, so that tensors stay aligned
    array = struct.pack("<Q40sIIQ", len(key), key, gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.STRING, 0)
    count = struct.pack("<Q", struct.unpack_from("<Q", content, 16)[0] + 1)
    source.write_bytes(content[:16] + count + content[24:table] + array + content[table:])
    message = error_message(lambda: to_gguf(model, random_adapter(model), source, tmp_path / "edited.gguf"), tmp_path)
    assert message.startswith("The package gguf cannot write the metadata of DIR/source.gguf: ")
    assert message.endswith("; tarot merge writes the folder that llama.cpp's converter reads")
    assert [path.name for path in tmp_path.iterdir()] == ["source.gguf"]


def test_models_that_do_not_fit_the_file_are_refused(source: Path, tmp_path: Path) -> None:
    model = load_model(str(source), dtype="bfloat16", device="cpu").model
    assert error_message(lambda: to_gguf(model, random_adapter(model), source, tmp_path / "edited.gguf"), tmp_path) == (
        "expected weights in float32 and in memory, got torch.bfloat16; load the model without a dtype or a device map"
    )
    other = byte_model()
    with pytest.raises(TarotError, match="another model"):
        to_gguf(other, random_adapter(model), source, tmp_path / "edited.gguf")
    (tmp_path / "edited.gguf").mkdir()
    model = load_model(str(source), device="cpu").model
    message = error_message(lambda: to_gguf(model, random_adapter(model), source, tmp_path / "edited.gguf"), tmp_path)
    assert "DIR/edited.gguf cannot be written: Is a directory" in message
    assert [path.name for path in tmp_path.iterdir()] == ["edited.gguf"]
