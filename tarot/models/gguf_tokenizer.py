"""Make the tokenizer that transformers builds from a GGUF file split texts as the file states, or refuse the file.

A byte-level vocabulary is learned on pieces of text, and `tokenizer.ggml.pre` names the rule that cuts them. Where
transformers does not know the name, it cuts by GPT-2's rule, and the model reads other tokens than it was trained on.

Source: the rules are those of llama.cpp's `llama-vocab.cpp`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Regex, pre_tokenizers
from transformers import PreTrainedTokenizerBase

from tarot.errors import TarotError

_GPT2 = frozenset({"default", "gpt-2", "granite-docling", "jais", "mpt", "olmo", "phi-2", "roberta-bpe", "trillion"})
# Every digit is a piece, then GPT-2's rule.
_SINGLE_DIGITS = frozenset({"codeshell", "command-r", "exaone", "minerva-7b", "refact", "smollm", "starcoder"})
_ALIASES: Mapping[str, str] = {
    "chatglm-bpe": "llama-bpe",
    "hunyuan": "qwen2",
    "solar-open": "qwen2",
    "stablelm2": "qwen2",
}
_HINT = "load the checkpoint that the file was made from"


def apply_tokenizer_metadata(tokenizer: PreTrainedTokenizerBase, path: Path) -> None:
    """Change a tokenizer that transformers read from a GGUF file into that of the file.

    Args:
        tokenizer: the tokenizer, changed in place.
        path: the GGUF file.

    Raises:
        TarotError: the file states a rule for splitting texts that cannot be followed; its key is named.
    """
    from transformers.integrations.gguf.reader import read_gguf_metadata

    metadata, _ = read_gguf_metadata(str(path))
    kind = metadata.get("tokenizer.ggml.model")
    backend: Any = tokenizer.backend_tokenizer
    if kind == "gpt2":
        _apply_split(backend, metadata.get("tokenizer.ggml.pre", "default"), path)
    elif kind == "llama":
        _apply_space_prefix(backend, metadata.get("tokenizer.ggml.add_space_prefix"), path)


def _apply_split(backend: Any, rule: str, path: Path) -> None:
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    if rule in _SINGLE_DIGITS:
        digits = pre_tokenizers.Digits(individual_digits=True)
        backend.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    elif rule in _ALIASES:
        split = pre_tokenizers.Split(Regex(GGUF_PRE_TOKENIZER_SPLITS[_ALIASES[rule]]), "isolated")
        plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.pre_tokenizer = pre_tokenizers.Sequence([split, plain])
    elif rule not in _GPT2 and rule not in GGUF_PRE_TOKENIZER_SPLITS:
        _refuse(path, "tokenizer.ggml.pre", rule)


def _apply_space_prefix(backend: Any, stated: bool | None, path: Path) -> None:
    """Put a blank before each text, or none, where the file states which."""
    if stated is None:
        return
    pieces = backend.pre_tokenizer
    if isinstance(pieces, pre_tokenizers.Metaspace):
        pieces.prepend_scheme = "first" if stated else "never"
    if _adds_blank(backend) is not stated:
        _refuse(path, "tokenizer.ggml.add_space_prefix", stated)


def _adds_blank(backend: Any) -> bool:
    text = backend.normalizer.normalize_str("a") if backend.normalizer else "a"
    if backend.pre_tokenizer:
        text = backend.pre_tokenizer.pre_tokenize_str(text)[0][0]
    return bool(text != "a")


def _refuse(path: Path, name: str, value: object) -> None:
    """Raise TarotError for a key."""
    raise TarotError(f"a GGUF file whose texts transformers can split in {path}", f"{name} = {value!r}", _HINT)
