"""PEFT export: OFT adapters that PEFT loads are read back, and those that no edit equals are refused."""

import json
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from adapters import error_message, logits, random_adapter
from checkpoint import byte_model
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import OFTConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from strategies import tensors
from tiny import ARCHITECTURES, tiny_model, tokens

from tarot.edit.adapter import Adapter
from tarot.edit.export.peft import CONFIG, WEIGHTS, from_peft, to_peft
from tarot.edit.rotation import GIVENS, ROTARY
from tarot.errors import TarotError

# PEFT 0.21 asks transformers 5.23 by a name that it is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
TOLERANCE = 3e-5
"""For float32 logits of 1 to 10: PEFT solves a linear system where the hook multiplies complex numbers."""

model_of_bytes = cache(byte_model)


def angle_difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the largest difference of angles modulo full turns, in radians."""
    return float(torch.remainder(a.double() - b.double() + math.pi, 2 * math.pi).sub(math.pi).abs().max())


@given(tensors((4, 3, 4), 7.0, torch.float32))
@settings(max_examples=20)
def test_an_exported_adapter_is_imported_unchanged(
    tmp_path_factory: pytest.TempPathFactory, angles: torch.Tensor
) -> None:
    model, folder = model_of_bytes(), tmp_path_factory.mktemp("peft")
    adapter = Adapter(angles, random_adapter(model).edit, {"task": "t", "samples_drawn": [{"key": "k"}]})
    to_peft(model, adapter, folder)
    imported = from_peft(model, folder)
    assert angle_difference(imported.angles, angles) < 2e-6
    assert imported.angles.abs().max() <= math.pi + 1e-6
    assert (imported.edit, imported.provenance) == (adapter.edit, adapter.provenance)


@given(st.floats(-math.pi, math.pi))
def test_the_rotation_of_peft_has_our_sign(angle: float) -> None:
    """Compare the rotation of PEFT's own module with ours, for one block."""
    layer = get_peft_model(torch.nn.Sequential(torch.nn.Linear(2, 2)), oft(target_modules=["0"], task_type=None))
    rotation = layer.base_model.model[0].oft_R["default"]
    rotation.weight.data.fill_(math.tan(angle / 2))
    expected = ROTARY.matrix(torch.tensor([angle], dtype=torch.float32), 2)
    torch.testing.assert_close(rotation.get_weight().detach(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_peft_loads_and_merges_the_export_or_it_is_refused(architecture: str, tmp_path: Path) -> None:
    model, ids = tiny_model(architecture), tokens(2, 9)
    adapter, base = random_adapter(model), logits(model, ids)
    with adapter.apply(model):
        hooked = logits(model, ids)
    try:
        to_peft(model, adapter, tmp_path)
    except TarotError as error:
        assert architecture == "gpt2"
        assert str(error) == (
            "expected a Linear at transformer.h.0.attn.c_proj, as PEFT's OFT requires, got Conv1D; "
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


def test_random_adapter_that_peft_saved_is_imported(tmp_path: Path) -> None:
    """Import an adapter on two layers of four, made and saved by PEFT."""
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


def test_sites_of_different_widths_are_imported_unchanged(tmp_path: Path) -> None:
    model = tiny_model("gemma4_text")
    adapter = random_adapter(model)
    to_peft(model, adapter, tmp_path)
    assert angle_difference(from_peft(model, tmp_path).angles, adapter.angles) < 2e-6


def oft(**changed: object) -> OFTConfig:
    return OFTConfig(**{"r": 0, "oft_block_size": 2, "use_cayley_neumann": False, "task_type": "CAUSAL_LM", **changed})


def test_edits_that_oft_cannot_hold_are_refused(tmp_path: Path) -> None:
    model = byte_model()
    for adapter, named in (
        (random_adapter(model, rotation=GIVENS), "givens on heads"),
        (random_adapter(model, kind="mlp"), "rotary on mlp"),
    ):
        assert error_message(lambda adapter=adapter: to_peft(model, adapter, tmp_path), tmp_path) == (
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
def test_configurations_that_no_edit_equals_are_refused(name: str, value: object, tmp_path: Path) -> None:
    """None removes the key, so that PEFT's default holds."""
    model = byte_model()
    to_peft(model, random_adapter(model), tmp_path)
    config = json.loads((tmp_path / CONFIG).read_text())
    config = {**config, name: value} if value is not None else {k: v for k, v in config.items() if k != name}
    (tmp_path / CONFIG).write_text(json.dumps(config))
    message = error_message(lambda: from_peft(model, tmp_path), tmp_path)
    assert message.startswith(f"expected an OFT adapter with {name}=") and "which a rotary edit equals, got" in message
    assert message.endswith("in DIR; merge it into a checkpoint with PEFT instead")


def add_other_module(tensors: dict[str, torch.Tensor]) -> None:
    tensors["base_model.model.model.layers.0.self_attn.q_proj.oft_R.weight"] = torch.zeros(12, 1)


def add_other_parameter(tensors: dict[str, torch.Tensor]) -> None:
    tensors["base_model.model.model.layers.0.self_attn.o_proj.lora_A.weight"] = torch.zeros(12, 1)


def change_block_size(tensors: dict[str, torch.Tensor]) -> None:
    tensors["base_model.model.model.layers.0.self_attn.o_proj.oft_R.weight"] = torch.zeros(4, 1)


def add_nan(tensors: dict[str, torch.Tensor]) -> None:
    tensors["base_model.model.model.layers.0.self_attn.o_proj.oft_R.weight"][3] = torch.nan


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            add_other_module,
            "expected OFT blocks of this model's attention output projections only, "
            "got base_model.model.model.layers.0.self_attn.q_proj.oft_R.weight; merge it with PEFT",
        ),
        (
            add_other_parameter,
            "expected OFT blocks of this model's attention output projections only, "
            "got base_model.model.model.layers.0.self_attn.o_proj.lora_A.weight; merge it with PEFT",
        ),
        (
            change_block_size,
            "expected OFT blocks of model.layers.0.self_attn.o_proj of shape (12, 1), got shape (4, 1); "
            "made for another model",
        ),
        (add_nan, "expected finite OFT blocks of model.layers.0.self_attn.o_proj, got 1 that are not"),
        (dict.clear, "expected OFT blocks in DIR/adapter_model.safetensors, got none"),
    ],
)
def test_weights_that_no_edit_equals_are_refused(
    spoil: Callable[[dict[str, torch.Tensor]], None], message: str, tmp_path: Path
) -> None:
    model = byte_model()
    to_peft(model, random_adapter(model), tmp_path)
    blocks = load_file(tmp_path / WEIGHTS)
    spoil(blocks)
    save_file(blocks, tmp_path / WEIGHTS)
    assert error_message(lambda: from_peft(model, tmp_path), tmp_path) == message


def test_pickles_are_never_read(tmp_path: Path) -> None:
    model = byte_model()
    to_peft(model, random_adapter(model), tmp_path)
    torch.save(load_file(tmp_path / WEIGHTS), tmp_path / "adapter_model.bin")
    (tmp_path / WEIGHTS).unlink()
    message = error_message(lambda: from_peft(model, tmp_path), tmp_path)
    assert message.startswith("expected safetensors in DIR/adapter_model.safetensors, got")
    assert message.endswith("; pickled weights are never read")


@pytest.mark.parametrize(
    "text",
    ["{", "[" * 100_000, "[]", '{"r": 0, "r": 8}', '{"oft_block_size": "2"}', '{"bias": []}'],
    ids=["cut", "deep", "list", "twice", "text", "no text"],
)
def test_a_damaged_configuration_is_refused(text: str, tmp_path: Path) -> None:
    assert "is not the folder of a PEFT adapter" in error_message(lambda: from_peft(byte_model(), tmp_path), tmp_path)
    (tmp_path / CONFIG).write_text(text)
    assert error_message(lambda: from_peft(byte_model(), tmp_path), tmp_path).startswith(
        "DIR/adapter_config.json is not a PEFT configuration: "
    )
