"""Exports: PEFT, stock lm-eval, a merged checkpoint, a GGUF file and the hooked model are one edit."""

import json
import math
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from checkpoint import byte_model, byte_tokenizer, save_checkpoint, write_gguf, write_tasks
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_eval import simple_evaluate
from lm_eval.tasks.manager import TaskManager
from peft import OFTConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from strategies import tensors
from tiny import ARCHITECTURES, tiny_model, tokens
from transformers import AutoModelForCausalLM, PreTrainedModel

from tarot.edit.adapter import Adapter, Edit
from tarot.edit.export.gguf import to_gguf
from tarot.edit.export.peft import CONFIG, WEIGHTS, from_peft, to_peft
from tarot.edit.merge import merge_temporarily
from tarot.edit.rotation import GIVENS, ROTARY, Rotation
from tarot.edit.sites import angle_mask, find_sites
from tarot.errors import TarotError
from tarot.evaluation.evaluate import evaluate
from tarot.models.checkpoint import save_checkpoint as save_merged
from tarot.models.load import load_model
from tarot.models.loaded_model import LoadedModel

# PEFT 0.21 asks transformers 5.23 by a name that it is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

model_of_bytes = cache(byte_model)
TOLERANCE = 3e-5
"""Of logits of the order of 1 to 10, in float32: PEFT solves for each block what the hook turns as a complex number."""


def an_adapter(
    model: PreTrainedModel,
    *,
    scale: float = 0.5,
    kind: str = "heads",
    layers: float | list[int] = 1.0,
    rotation: Rotation = ROTARY,
    **provenance: object,
) -> Adapter:
    sites = find_sites(model, kind, layers)
    mask = angle_mask(sites, rotation.n_angles)
    angles = torch.randn(mask.shape, generator=torch.Generator().manual_seed(0)) * scale * mask
    return Adapter(angles, Edit.from_sites(model, kind, sites, rotation), provenance)


@torch.no_grad()
def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    return model(ids, use_cache=False).logits


def turns_apart(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest difference of angles, whole turns left out, in radians."""
    return float(torch.remainder(a.double() - b.double() + math.pi, 2 * math.pi).sub(math.pi).abs().max())


# The form -----------------------------------------------------------------------------------------


@given(tensors((4, 3, 4), 7.0, torch.float32))
@settings(max_examples=20)
def test_what_is_exported_is_imported(tmp_path_factory: pytest.TempPathFactory, angles: torch.Tensor) -> None:
    model, folder = model_of_bytes(), tmp_path_factory.mktemp("peft")
    adapter = Adapter(angles, an_adapter(model).edit, {"task": "t", "samples_drawn": [{"key": "k"}]})
    to_peft(model, adapter, folder)
    found = from_peft(model, folder)
    assert turns_apart(found.angles, angles) < 2e-6
    assert found.angles.abs().max() <= math.pi + 1e-6
    assert (found.edit, found.provenance) == (adapter.edit, adapter.provenance)


@given(st.floats(-math.pi, math.pi))
def test_pefts_own_rotation_is_the_edit_sign_and_all(angle: float) -> None:
    """R of PEFT's own module against ours, for one block."""
    layer = get_peft_model(torch.nn.Sequential(torch.nn.Linear(2, 2)), oft(target_modules=["0"], task_type=None))
    rotation = layer.base_model.model[0].oft_R["default"]
    rotation.weight.data.fill_(math.tan(angle / 2))
    expected = ROTARY.matrix(torch.tensor([angle], dtype=torch.float32), 2)
    torch.testing.assert_close(rotation.get_weight().detach(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_peft_loads_and_merges_it_or_the_way_out_is_named(architecture: str, tmp_path: Path) -> None:
    model, ids = tiny_model(architecture), tokens(2, 9)
    adapter, base = an_adapter(model), logits(model, ids)
    with adapter.apply(model):
        hooked = logits(model, ids)
    try:
        to_peft(model, adapter, tmp_path)
    except TarotError as error:
        assert architecture == "gpt2"
        assert str(error) == (
            "expected a Linear at transformer.h.0.attn.c_proj, which is all that PEFT's OFT edits, got Conv1D; "
            "tarot merge writes a checkpoint with any edit in it"
        )
        with pytest.raises(TypeError, match="Conv1D"):
            get_peft_model(model, oft(target_modules=["attn.c_proj"]))
        return
    wrapped = PeftModel.from_pretrained(model, tmp_path)
    near = dict(atol=TOLERANCE * float(hooked.abs().max().clamp(min=1)), rtol=0)
    assert not torch.allclose(base, hooked, **near)
    torch.testing.assert_close(logits(wrapped, ids), hooked, **near)
    torch.testing.assert_close(logits(wrapped.merge_and_unload(), ids), hooked, **near)


def test_what_peft_made_is_imported(tmp_path: Path) -> None:
    """An adapter that PEFT itself trained and saved, on two layers of four."""
    model, ids = byte_model(), torch.arange(3, 30)[None]
    targets = [f"model.layers.{layer}.self_attn.o_proj" for layer in (1, 3)]
    wrapped = get_peft_model(model, oft(target_modules=targets))
    generator = torch.Generator().manual_seed(0)
    for name, parameter in wrapped.named_parameters():
        if "oft_R" in name:
            parameter.data.normal_(generator=generator)
    expected = logits(wrapped, ids)
    wrapped.save_pretrained(tmp_path, save_embedding_layers=False)
    plain = byte_model()
    adapter = from_peft(plain, tmp_path)
    assert adapter.edit.layers == (1, 3) and adapter.provenance == {}
    with adapter.apply(plain):
        torch.testing.assert_close(logits(plain, ids), expected, atol=1e-4, rtol=1e-4)


def test_sites_of_unlike_widths_come_back(tmp_path: Path) -> None:
    model = tiny_model("gemma4_text")
    adapter = an_adapter(model)
    to_peft(model, adapter, tmp_path)
    assert turns_apart(from_peft(model, tmp_path).angles, adapter.angles) < 2e-6


# The numbers --------------------------------------------------------------------------------------


def test_hooked_merged_peft_stock_lm_eval_and_reloaded_agree(tmp_path: Path) -> None:
    """One edit on its way through all of them: logits within TOLERANCE, log-probabilities within 1e-4 nats."""
    tasks, base = write_tasks(tmp_path / "tasks"), save_checkpoint(tmp_path / "model")
    loaded = load_model(str(base), device="cpu")
    adapter = an_adapter(loaded.model, scale=0.4)
    to_peft(loaded.model, adapter, tmp_path / "peft", str(base))
    ids = torch.tensor(loaded.tokenizer(["item 1000\nA: redder", "item 1001\nA: blue, as"], padding=True)["input_ids"])
    bare = logits(loaded.model, ids)
    with adapter.apply(loaded.model):
        hooked = logits(loaded.model, ids)
    wrapped = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "peft")
    hops = {"peft": logits(wrapped, ids), "merged by peft": logits(wrapped.merge_and_unload(), ids)}
    hops["imported"] = logits(from_peft(loaded.model, tmp_path / "peft").merge(load_model(str(base)).model), ids)
    merge_temporarily = load_model(str(base), device="cpu")
    hops["merged"] = logits(adapter.merge(merge_temporarily.model), ids)
    save_merged(merge_temporarily, tmp_path / "merged")
    hops["reloaded"] = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "merged"), ids)
    assert (hooked - bare).abs().max() > 1
    for hop, found in hops.items():
        assert (found - hooked).abs().max() < TOLERANCE * hooked.abs().max(), hop
    assert torch.equal(hops["merged"], hops["reloaded"])

    ours = evaluate(loaded.model, loaded.tokenizer, ["own_choice"], adapter=adapter, include_path=tasks, num_fewshot=2)
    unedited = evaluate(loaded.model, loaded.tokenizer, ["own_choice"], include_path=tasks, num_fewshot=2)
    for arguments in (f"pretrained={base},peft={tmp_path / 'peft'}", f"pretrained={tmp_path / 'merged'}"):
        stock = simple_evaluate(
            model="hf",
            model_args=arguments,
            device="cpu",
            tasks=["own_choice"],
            task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
            num_fewshot=2,
            apply_chat_template=True,
            fewshot_as_multiturn=True,
        )
        assert answers(stock) == pytest.approx(answers(ours), abs=1e-4)
        assert stock["results"]["own_choice"]["acc,none"] == ours["results"]["own_choice"]["acc,none"]
    assert answers(ours) != pytest.approx(answers(unedited), abs=0.1)


def answers(results: dict[str, Any]) -> list[float]:
    """Log-probabilities of all choices of all documents, in nats."""
    documents = sorted(results["samples"]["own_choice"], key=lambda document: document["doc_id"])
    return [float(value) for document in documents for value, _ in document["filtered_resps"]]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_merged_checkpoint_is_rounded_once(dtype: str, tmp_path: Path) -> None:
    """Its weights are those of the merge in float32, cast to the model's dtype, bit for bit."""
    base = save_checkpoint(tmp_path / "model")
    edited = load_model(str(base), dtype=dtype)
    adapter = an_adapter(edited.model)
    precise = load_model(str(base), dtype=dtype).model.float()
    save_merged(LoadedModel("merged", adapter.merge(edited.model), edited.tokenizer), tmp_path / "merged")
    written = load_file(tmp_path / "merged" / "model.safetensors")
    adapter.merge(precise)
    for name, parameter in precise.named_parameters():
        if name in written:
            assert torch.equal(written[name], parameter.to(getattr(torch, dtype))), name


def test_shards_are_the_whole_model(tmp_path: Path) -> None:
    loaded = LoadedModel("bytes", byte_model(), byte_tokenizer())
    an_adapter(loaded.model).merge(loaded.model)
    save_merged(loaded, tmp_path / "sharded", "20KB")
    assert len(list((tmp_path / "sharded").glob("model-*.safetensors"))) > 2
    ids = torch.arange(3, 30)[None]
    for reloaded in (
        AutoModelForCausalLM.from_pretrained(tmp_path / "sharded"),
        load_model(str(tmp_path / "sharded")).model,
    ):
        assert torch.equal(logits(reloaded, ids), logits(loaded.model, ids))
    with pytest.raises(TarotError, match="expected a size of files such as 500MB or 2GB, got '0GB'"):
        save_merged(loaded, tmp_path / "none", "0GB")


# Refusals -----------------------------------------------------------------------------------------


def oft(**changed: object) -> OFTConfig:
    return OFTConfig(**{"r": 0, "oft_block_size": 2, "use_cayley_neumann": False, "task_type": "CAUSAL_LM", **changed})


def refusal(call: Callable[[], object], tmp_path: Path) -> str:
    with pytest.raises(TarotError) as error:
        call()
    return str(error.value).replace(str(tmp_path), "DIR")


def test_edits_that_oft_has_no_blocks_for(tmp_path: Path) -> None:
    model = byte_model()
    for adapter, named in (
        (an_adapter(model, rotation=GIVENS), "givens on heads"),
        (an_adapter(model, kind="mlp"), "rotary on mlp"),
    ):
        assert refusal(lambda adapter=adapter: to_peft(model, adapter, tmp_path), tmp_path) == (
            f"expected an edit that OFT can hold, rotary on heads, got {named}; "
            "tarot merge writes a checkpoint with any edit in it"
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("peft_type", "LORA"),
        ("oft_block_size", 4),
        ("oft_block_size", None),
        ("r", 12),
        ("use_cayley_neumann", True),
        ("use_cayley_neumann", None),
        ("block_share", True),
        ("coft", True),
        ("bias", "all"),
        ("modules_to_save", ["lm_head"]),
    ],
)
def test_configurations_that_no_edit_equals(name: str, value: object, tmp_path: Path) -> None:
    """None: the file does not say, and PEFT's default is another."""
    model = byte_model()
    to_peft(model, an_adapter(model), tmp_path)
    config = json.loads((tmp_path / CONFIG).read_text())
    config = {**config, name: value} if value is not None else {k: v for k, v in config.items() if k != name}
    (tmp_path / CONFIG).write_text(json.dumps(config))
    message = refusal(lambda: from_peft(model, tmp_path), tmp_path)
    assert message.startswith(f"expected an OFT adapter with {name}=") and "which a rotary edit equals, got" in message
    assert message.endswith("in DIR; merge it into a checkpoint with PEFT instead")


def _other_module(tensors: dict[str, torch.Tensor]) -> None:
    tensors["base_model.model.model.layers.0.self_attn.q_proj.oft_R.weight"] = torch.zeros(12, 1)


def _other_parameter(tensors: dict[str, torch.Tensor]) -> None:
    tensors["base_model.model.model.layers.0.self_attn.o_proj.lora_A.weight"] = torch.zeros(12, 1)


def _other_blocks(tensors: dict[str, torch.Tensor]) -> None:
    tensors["base_model.model.model.layers.0.self_attn.o_proj.oft_R.weight"] = torch.zeros(4, 1)


def _no_number(tensors: dict[str, torch.Tensor]) -> None:
    tensors["base_model.model.model.layers.0.self_attn.o_proj.oft_R.weight"][3] = torch.nan


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            _other_module,
            "expected OFT blocks of this model's attention output projections alone, "
            "got base_model.model.model.layers.0.self_attn.q_proj.oft_R.weight; merge it with PEFT",
        ),
        (
            _other_parameter,
            "expected OFT blocks of this model's attention output projections alone, "
            "got base_model.model.model.layers.0.self_attn.o_proj.lora_A.weight; merge it with PEFT",
        ),
        (
            _other_blocks,
            "expected OFT blocks of model.layers.0.self_attn.o_proj of shape (12, 1), got shape (4, 1); "
            "made for another model",
        ),
        (_no_number, "expected finite OFT blocks of model.layers.0.self_attn.o_proj, got 1 that are not"),
        (dict.clear, "expected OFT blocks in DIR/adapter_model.safetensors, got none"),
    ],
)
def test_weights_that_no_edit_equals(
    spoil: Callable[[dict[str, torch.Tensor]], None], message: str, tmp_path: Path
) -> None:
    model = byte_model()
    to_peft(model, an_adapter(model), tmp_path)
    blocks = load_file(tmp_path / WEIGHTS)
    spoil(blocks)
    save_file(blocks, tmp_path / WEIGHTS)
    assert refusal(lambda: from_peft(model, tmp_path), tmp_path) == message


def test_pickles_are_not_read(tmp_path: Path) -> None:
    model = byte_model()
    to_peft(model, an_adapter(model), tmp_path)
    torch.save(load_file(tmp_path / WEIGHTS), tmp_path / "adapter_model.bin")
    (tmp_path / WEIGHTS).unlink()
    message = refusal(lambda: from_peft(model, tmp_path), tmp_path)
    assert message.startswith("expected safetensors in DIR/adapter_model.safetensors, got")
    assert message.endswith("; pickled weights are never read")


@pytest.mark.parametrize(
    "text",
    ["{", "[" * 100_000, "[]", '{"r": 0, "r": 8}', '{"oft_block_size": "2"}', '{"bias": []}'],
    ids=["cut", "deep", "list", "twice", "text", "no text"],
)
def test_a_configuration_that_is_none(text: str, tmp_path: Path) -> None:
    assert "expected a PEFT adapter folder with adapter_config.json, got No such file" in refusal(
        lambda: from_peft(byte_model(), tmp_path), tmp_path
    )
    (tmp_path / CONFIG).write_text(text)
    assert refusal(lambda: from_peft(byte_model(), tmp_path), tmp_path).startswith(
        "expected a PEFT configuration in DIR/adapter_config.json, got "
    )


# GGUF ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four heads of eight, so that the output projections are whole blocks, in 8 bits."""
    return write_gguf(byte_model(heads=4), tmp_path_factory.mktemp("gguf") / "byte.gguf")


@pytest.fixture(scope="module")
def from_source(source: Path) -> LoadedModel:
    return load_model(str(source), device="cpu")


def metadata(reader: gguf.GGUFReader) -> bytes:
    """All that stands before the table of tensors."""
    return reader.data[: reader.tensors[0].field.offset].tobytes()


def stored(path: Path) -> dict[str, tuple[str, list[int], bytes]]:
    """Type, shape and bytes of each tensor, in order."""
    return {each.name: (each.tensor_type.name, each.shape.tolist(), each.data.tobytes()) for each in read(path)}


def read(path: Path) -> list[gguf.ReaderTensor]:
    return gguf.GGUFReader(path).tensors


@given(tensors((4, 4, 4), 7.0, torch.float32), st.sets(st.integers(0, 3)))
@settings(max_examples=10)
def test_what_is_edited_differs_and_nothing_else(
    source: Path, from_source: LoadedModel, angles: torch.Tensor, identical: set[int]
) -> None:
    model, output = from_source.model, source.with_name("edited.gguf")
    angles = torch.stack([row * (layer not in identical) for layer, row in enumerate(angles)])
    adapter = Adapter(angles, an_adapter(model).edit, {})
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


def test_the_identity_writes_the_file_that_was(source: Path, from_source: LoadedModel, tmp_path: Path) -> None:
    assert to_gguf(from_source.model, an_adapter(from_source.model, scale=0), source, tmp_path / "same.gguf") == ()
    assert (tmp_path / "same.gguf").read_bytes() == source.read_bytes()


def test_a_gguf_file_reloaded_is_the_hooked_model(source: Path, from_source: LoadedModel, tmp_path: Path) -> None:
    """To the rounding of the edited weights: 2^-11 of each, where the other weights are in 8 bits."""
    model, ids = from_source.model, torch.arange(3, 30)[None]
    adapter = an_adapter(model, scale=0.4, layers=-0.5)
    bare = logits(model, ids)
    with adapter.apply(model):
        hooked = logits(model, ids)
    edited = to_gguf(model, adapter, source, tmp_path / "new" / "edited.gguf")
    assert edited == ("blk.2.attn_output.weight", "blk.3.attn_output.weight")
    reloaded = load_model(str(tmp_path / "new" / "edited.gguf"), device="cpu")
    assert (logits(reloaded.model, ids) - hooked).abs().max() < 2e-3 * hooked.abs().max()
    assert (hooked - bare).abs().max() > 1
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["edited.gguf"]
    assert reloaded.tokenizer.chat_template == from_source.tokenizer.chat_template
    again = an_adapter(reloaded.model, layers=[0, 3])  # from a file of many types another can be made
    assert len(to_gguf(reloaded.model, again, tmp_path / "new" / "edited.gguf", tmp_path / "again.gguf")) == 2


GGUF_NAMES = {"heads": "attn_output", "mlp": "ffn_down"}
"""What llama.cpp's code calls them, in every layer `blk.N`."""


def write_projections(model: PreTrainedModel, path: Path, architecture: str, kind: str) -> Path:
    """A file of the projections alone, in float32 and outputs in rows."""
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
def test_a_projection_has_llama_cpps_name(model_type: str, architecture: str, kind: str, tmp_path: Path) -> None:
    """Conv1D, biases, and an edit of outputs, which turns those too."""
    model = tiny_model(model_type)
    source = write_projections(model, tmp_path / "source.gguf", architecture, kind)
    adapter = an_adapter(model, kind=kind, rotation=GIVENS)
    edited = to_gguf(model, adapter, source, tmp_path / "edited.gguf")
    adapter.merge(model)
    write_projections(model, tmp_path / "merged.gguf", architecture, kind)
    assert (tmp_path / "edited.gguf").read_bytes() == (tmp_path / "merged.gguf").read_bytes()
    biased = kind == "mlp" and any(name.endswith("bias") for name in stored(source))
    assert {name.rpartition(".")[2] for name in edited} == ({"weight", "bias"} if biased else {"weight"})


def test_what_is_too_large_for_16_bits_has_32(source: Path, tmp_path: Path) -> None:
    model = byte_model(heads=4)
    model.model.layers[0].self_attn.o_proj.weight *= 1e6
    large = write_gguf(model, tmp_path / "large.gguf")
    loaded = load_model(str(large), device="cpu").model
    to_gguf(loaded, an_adapter(loaded), large, tmp_path / "edited.gguf")
    kinds = {name: kind for name, (kind, _, _) in stored(tmp_path / "edited.gguf").items()}
    assert [kinds[f"blk.{layer}.attn_output.weight"] for layer in range(4)] == ["F32", "F16", "F16", "F16"]
    reloaded = load_model(str(tmp_path / "edited.gguf"), device="cpu").model
    assert all(parameter.isfinite().all() for parameter in reloaded.parameters())


def permuted(model: PreTrainedModel) -> None:
    weight = model.get_submodule("model.layers.1.self_attn.o_proj").weight
    weight.data = weight.data.flip(1)


def transposed(model: PreTrainedModel) -> None:
    """As square as a model has to be for nobody to notice."""
    weight = model.get_submodule("model.layers.1.self_attn.o_proj").weight
    weight.data = weight.data.T.contiguous()


def requantised(model: PreTrainedModel) -> None:
    model.get_submodule("model.layers.1.self_attn.o_proj").weight.data[3, 3] += 1e-4


@pytest.mark.parametrize("spoil", [permuted, transposed, requantised])
def test_a_file_that_holds_other_weights_is_refused(spoil: Callable[[PreTrainedModel], None], tmp_path: Path) -> None:
    model = byte_model()
    adapter = an_adapter(model, layers=[1, 3])
    spoil(other := byte_model())
    source = write_projections(other, tmp_path / "source.gguf", "llama", "heads")
    assert refusal(lambda: to_gguf(model, adapter, source, tmp_path / "edited.gguf"), tmp_path) == (
        "expected the model's model.layers.1.self_attn.o_proj.weight in DIR/source.gguf, got other numbers, or in "
        "another order, in blk.1.attn_output.weight; tarot merge writes the folder that llama.cpp's converter reads"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["source.gguf"]
    unaffected = an_adapter(model, layers=[0, 3])
    assert len(to_gguf(model, unaffected, source, tmp_path / "edited.gguf")) == 2


def test_files_without_what_is_edited_are_refused(tmp_path: Path) -> None:
    model, output = byte_model(), tmp_path / "edited.gguf"
    heads, mlp = an_adapter(model), an_adapter(model, kind="mlp")
    source = write_projections(model, tmp_path / "source.gguf", "llama", "heads")
    strange = write_projections(model, tmp_path / "strange.gguf", "lamma", "heads")
    (tmp_path / "cut.gguf").write_bytes(source.read_bytes()[:-100])
    (tmp_path / "short.gguf").write_bytes(source.read_bytes()[:50])
    (tmp_path / "other.gguf").write_bytes(b"PK\x03\x04 and more of it")
    assert refusal(lambda: to_gguf(model, mlp, source, output), tmp_path) == (
        "expected the model's model.layers.0.mlp.down_proj.weight in DIR/source.gguf, got none of that name; "
        "tarot merge writes the folder that llama.cpp's converter reads"
    )
    assert refusal(lambda: to_gguf(model, heads, strange, output), tmp_path) == (
        "expected an architecture that the package gguf knows in DIR/strange.gguf, got 'lamma'; update gguf"
    )
    for name in ("cut", "short", "other", "none"):
        message = refusal(lambda name=name: to_gguf(model, heads, tmp_path / f"{name}.gguf", output), tmp_path)
        assert message.startswith(f"expected a whole GGUF file in DIR/{name}.gguf, got ")
        assert message.endswith("; check that it was downloaded whole") and "\n" not in message
    assert not output.exists()


def test_metadata_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """An empty list, put in by hand."""
    model = byte_model()
    source = write_projections(model, tmp_path / "source.gguf", "llama", "heads")
    whole, table = source.read_bytes(), len(metadata(gguf.GGUFReader(source)))
    key = b"an.empty.list.of.nothing.in.this.file.of"  # 64 bytes with the rest, so that tensors stay aligned
    array = struct.pack("<Q40sIIQ", len(key), key, gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.STRING, 0)
    count = struct.pack("<Q", struct.unpack_from("<Q", whole, 16)[0] + 1)
    source.write_bytes(whole[:16] + count + whole[24:table] + array + whole[table:])
    message = refusal(lambda: to_gguf(model, an_adapter(model), source, tmp_path / "edited.gguf"), tmp_path)
    assert message.startswith("expected metadata in DIR/source.gguf that the package gguf writes, got ")
    assert message.endswith("; tarot merge writes the folder that llama.cpp's converter reads")
    assert [path.name for path in tmp_path.iterdir()] == ["source.gguf"]


def test_models_that_no_gguf_file_is_written_from(source: Path, tmp_path: Path) -> None:
    model = load_model(str(source), dtype="bfloat16", device="cpu").model
    assert refusal(lambda: to_gguf(model, an_adapter(model), source, tmp_path / "edited.gguf"), tmp_path) == (
        "expected weights in float32 and in memory, got torch.bfloat16; load the model without a dtype or a device map"
    )
    other = byte_model()
    with pytest.raises(TarotError, match="another model"):
        to_gguf(other, an_adapter(model), source, tmp_path / "edited.gguf")
    (tmp_path / "edited.gguf").mkdir()
    model = load_model(str(source), device="cpu").model
    message = refusal(lambda: to_gguf(model, an_adapter(model), source, tmp_path / "edited.gguf"), tmp_path)
    assert message == "expected to write DIR/edited.gguf, got Is a directory; free space or choose another place"
    assert [path.name for path in tmp_path.iterdir()] == ["edited.gguf"]
