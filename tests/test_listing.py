"""The list of models is read from file headers, and agrees with the models themselves."""

import shutil
from pathlib import Path

import pytest
from checkpoint import add_to_hub_cache, byte_tokenizer, rewrite_config
from test_checkpoint import encoder, sequence_to_sequence, with_adapter
from tiny import ARCHITECTURES, tiny_model
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tarot.edit.sites import find_sites
from tarot.models.formats.listing import CAUSAL_CLASS, ModelInfo, available

# Classes of other naming that transformers counts as causal language models, too rare to name here.
RARE = {
    "BertGenerationDecoder",
    "GotOcr2ForConditionalGeneration",
    "MossTranscribeDiarizeForConditionalGeneration",
    "ReformerModelWithLMHead",
}


def cached() -> list[ModelInfo]:
    return [info for info in available() if info.source == "hub cache"]


def test_causal_models_of_the_hub_cache_are_listed(byte_folder: Path, hub_cache: Path, tmp_path: Path) -> None:
    for damage in (encoder, sequence_to_sequence, with_adapter):
        folder = Path(shutil.copytree(byte_folder, tmp_path / damage.__name__))
        damage(folder)
        add_to_hub_cache(hub_cache, f"people/{damage.__name__}", folder)
    (add_to_hub_cache(hub_cache, "people/part", byte_folder) / "model.safetensors").unlink()
    (add_to_hub_cache(hub_cache, "people/damaged", byte_folder) / "model.safetensors").write_bytes(b"none")
    add_to_hub_cache(hub_cache, "people/byte", byte_folder)
    (info,) = cached()
    assert (info.reference, info.layers, info.heads, info.d_head) == ("people/byte", 4, 3, 8)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_numbers_are_those_of_the_model(architecture: str, hub_cache: Path, tmp_path: Path) -> None:
    model = tiny_model(architecture)
    model.save_pretrained(tmp_path / "model")
    byte_tokenizer().save_pretrained(tmp_path / "model")
    add_to_hub_cache(hub_cache, "people/model", tmp_path / "model")
    (info,) = cached()
    saved = {tensor.data_ptr(): tensor.numel() for tensor in model.state_dict().values()}
    assert info.parameters == sum(saved.values())
    sites = find_sites(model, "heads", 1.0)
    assert info.layers == model.config.num_hidden_layers
    assert info.heads == max(site.n_heads for site in sites)
    assert info.d_head in {site.d_head for site in sites}


def test_sizes_that_the_files_do_not_state_are_unknown(byte_folder: Path, hub_cache: Path) -> None:
    snapshot = add_to_hub_cache(hub_cache, "people/odd", byte_folder)
    rewrite_config(snapshot, architectures=["MambaForCausalLM"], quantization_config={"quant_method": "awq"})
    for name in ("num_attention_heads", "hidden_size"):
        text = (snapshot / "config.json").read_text()
        (snapshot / "config.json").write_text(text.replace(f'"{name}"', f'"other_{name}"'))
    (info,) = cached()
    assert (info.parameters, info.heads, info.d_head) == (None, None, None)


def test_classes_of_causal_models_are_known_by_name() -> None:
    names = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
    assert {name for name in names if not CAUSAL_CLASS.fullmatch(name)} <= RARE
    assert not CAUSAL_CLASS.fullmatch("T5ForConditionalGeneration")
