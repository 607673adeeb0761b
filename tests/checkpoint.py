"""Write what users give a command: a tiny model with a tokenizer, as a folder or a GGUF file, and task files."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tarot.errors import TarotError
from tarot.models.load import load_model
from tarot.models.loaded_model import LoadedModel

CHAT_TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def byte_tokenizer(*, chat: bool = True) -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token for each byte: it encodes any text, and every answer has several tokens."""
    vocabulary = {symbol: i for i, symbol in enumerate(["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    fast.chat_template = CHAT_TEMPLATE if chat else None
    return fast


def byte_model(
    *, layers: int = 4, heads: int = 3, d_mlp: int = 32, seed: int = 0, max_length: int = 4096
) -> LlamaForCausalLM:
    """Return a random llama over bytes whose answers differ between prompts and under rotations."""
    config = LlamaConfig(
        vocab_size=258,
        hidden_size=24,
        intermediate_size=d_mlp,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=max_length,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config).eval().requires_grad_(False)
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model


def logits(loaded: LoadedModel) -> torch.Tensor:
    """Logits of a fixed text, `token x vocabulary`."""
    with torch.no_grad():
        return loaded.model(**loaded.tokenizer("the quick brown fox", return_tensors="pt")).logits[0]


def load_error(reference: object, **options: str) -> str:
    """Return the message, one line, of the TarotError that `load_model` raises."""
    with pytest.raises(TarotError) as error:
        load_model(str(reference), **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def rewrite_config(folder: Path, **changes: object) -> None:
    """Change entries of a checkpoint's config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def add_to_hub_cache(cache: Path, name: str, checkpoint: Path) -> Path:
    """Copy a checkpoint to where huggingface_hub keeps a downloaded model of that name."""
    repo = cache / f"models--{name.replace('/', '--')}"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("0123abc")
    return Path(shutil.copytree(checkpoint, repo / "snapshots" / "0123abc"))


def save_checkpoint(folder: Path, *, chat: bool = True, **model: int) -> Path:
    """Write the model and its tokenizer to a folder and return it."""
    byte_model(**model).save_pretrained(folder)
    byte_tokenizer(chat=chat).save_pretrained(folder)
    return folder


def write_gguf(
    model: LlamaForCausalLM,
    path: Path,
    *,
    merges: Sequence[str] = (),
    metadata: Mapping[str, Any] = MappingProxyType({}),
    tensors: Mapping[str, Sequence[float]] = MappingProxyType({}),
) -> Path:
    """Write a model as llama.cpp does: rows of queries and keys interleaved, large matrices in blocks of 8 bits.

    Args:
        model: what to write.
        path: the file.
        merges: of the tokenizer. llama.cpp needs at least one; transformers accepts only those in the vocabulary.
        metadata: further keys, or other values of keys that are written anyway.
        tensors: further tensors of one dimension.
    """
    config, tokenizer = model.config, byte_tokenizer()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokenizer.convert_ids_to_tokens(range(config.vocab_size)))
    writer.add_token_types([gguf.TokenType.CONTROL] * 2 + [gguf.TokenType.NORMAL] * (config.vocab_size - 2))
    writer.add_token_scores([0.0] * config.vocab_size)
    writer.add_token_merges(merges)
    writer.add_tokenizer_pre("default")
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_chat_template(tokenizer.chat_template)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        stem, _, suffix = name.rpartition(".")
        if stem.endswith(("q_proj", "k_proj")):
            heads = config.num_attention_heads if stem.endswith("q_proj") else config.num_key_value_heads
            tensor = tensor.view(heads, 2, -1, tensor.shape[1]).transpose(1, 2).reshape(tensor.shape)
        kind = gguf.GGMLQuantizationType.Q8_0 if tensor.shape[-1] % 32 == 0 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(f"{names.get_name(stem)}.{suffix}", gguf.quantize(tensor.numpy(), kind), raw_dtype=kind)
    return _finish_gguf(writer, path, metadata, tensors)


def write_gguf_metadata(
    path: Path,
    architecture: str,
    metadata: Mapping[str, Any],
    tensors: Mapping[str, Sequence[float]] = MappingProxyType({}),
) -> Path:
    """Write a GGUF file without weights: the metadata, and tensors of one dimension."""
    return _finish_gguf(gguf.GGUFWriter(path, architecture), path, metadata, tensors)


def _finish_gguf(
    writer: gguf.GGUFWriter, path: Path, metadata: Mapping[str, Any], tensors: Mapping[str, Sequence[float]]
) -> Path:
    add = {
        bool: writer.add_bool,
        int: writer.add_uint32,
        float: writer.add_float32,
        str: writer.add_string,
        list: writer.add_array,
    }
    for key, value in metadata.items():
        writer.kv_data[0].pop(key, None)
        add[type(value)](key, value)
    for name, values in tensors.items():
        writer.add_tensor(name, np.asarray(values, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


CHOICE = """
task: own_choice
dataset_path: json
dataset_kwargs: {{data_files: {{train: {folder}/train.jsonl, test: {folder}/test.jsonl}}}}
output_type: multiple_choice
training_split: train
test_split: test
fewshot_split: train
fewshot_config: {{sampler: first_n}}
doc_to_text: "{{{{question}}}}\\nA:"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{gold}}}}"
description: "Name what it says.\\n"
"""
GENERATE = """
task: own_generate
dataset_path: json
dataset_kwargs: {{data_files: {{train: {folder}/train.jsonl, test: {folder}/test.jsonl}}}}
output_type: generate_until
training_split: train
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{choices[gold]}}}}"
generation_kwargs: {{until: ["\\n"], max_gen_toks: 3}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""
LOGLIKELIHOOD = """
task: own_loglikelihood
dataset_path: json
dataset_kwargs: {{data_files: {{train: {folder}/train.jsonl, test: {folder}/test.jsonl}}}}
output_type: loglikelihood
training_split: train
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_target: " {{{{choices[gold]}}}}"
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""


def write_tasks(folder: Path, *, train: int = 30, test: int = 12) -> Path:
    """Write three tasks of different output types over one data set, whose answers share prefixes of several tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in (("train", range(train)), ("test", range(1000, 1000 + test))):
        lines = [{"question": f"item {row}", "choices": ["red", "redder", "blue"], "gold": row % 3} for row in rows]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name, text in (("choice", CHOICE), ("generate", GENERATE), ("loglikelihood", LOGLIKELIHOOD)):
        (folder / f"{name}.yaml").write_text(text.format(folder=folder).lstrip())
    return folder
