"""Make the tokenizer that transformers builds from a GGUF file split texts as the file states, or refuse the file.

A byte-level vocabulary is learned on pieces of text, and `tokenizer.ggml.pre` names the rule that cuts them. Where
transformers does not know the name, it cuts by GPT-2's rule, and the model reads other tokens than it was trained on.
transformers also skips other keys. Those in the lists below are followed, or change nothing; any other is an error.

Source: the rules, and what a missing key means, are those of llama.cpp's `llama-vocab.cpp`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Regex, normalizers, pre_tokenizers
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
# Where the file does not say whether texts begin with the BOS token, they do under these rules.
_ADD_BOS = frozenset(
    {
        *("chameleon", "falcon-h1", "falcon3", "jina-v5-nano", "lfm2", "llama-bpe", "llama-v3", "llama3", "midm-2.0"),
        *("pixtral", "tekken"),
    }
)
# A piece that is a token is not merged from parts.
_WHOLE_PIECES = _ADD_BOS - {"chameleon"}
# Read by transformers: vocabulary, special tokens and chat template.
_READ = frozenset(
    {
        *("model", "pre", "tokens", "token_type", "scores", "merges", "add_bos_token", "add_eos_token"),
        *("bos_token_id", "eos_token_id", "unknown_token_id", "padding_token_id"),
    }
)
# They name tokens, for uses other than splitting texts, or repeat what other keys state.
_NEUTRAL = frozenset(
    {
        *("token_type_count", "eot_token_id", "eom_token_id", "seperator_token_id", "cls_token_id", "mask_token_id"),
        *("fim_pre_token_id", "fim_suf_token_id", "fim_mid_token_id", "fim_pad_token_id", "fim_rep_token_id"),
        *("fim_sep_token_id", "prefix_token_id", "suffix_token_id", "middle_token_id"),
    }
)
# With this value the key changes nothing.
_OFF: Mapping[str, Any] = {
    "add_sep_token": False,
    "escape_whitespaces": True,
    "normalizer.lowercase": False,
    "normalizer.nfc": False,
    "normalizer.strip_accents": False,
    "precompiled_charsmap": [],
    "treat_whitespace_as_suffix": False,
}
_HINT = "load the checkpoint that the file was made from"


def apply_tokenizer_metadata(tokenizer: PreTrainedTokenizerBase, path: Path) -> None:
    """Change a tokenizer that transformers read from a GGUF file into that of the file.

    Args:
        tokenizer: the tokenizer, changed in place.
        path: the GGUF file.

    Raises:
        TarotError: a key of the file is not followed, or states a rule for splitting texts that cannot be; it is named.
    """
    from transformers.integrations.gguf.reader import read_gguf_metadata

    metadata, _ = read_gguf_metadata(str(path))
    stated = {key.removeprefix("tokenizer."): value for key, value in metadata.items() if key.startswith("tokenizer.")}
    ggml = {key.removeprefix("ggml."): value for key, value in stated.items() if key.startswith("ggml.")}
    for key in sorted(stated.keys() - {f"ggml.{name}" for name in ggml}):
        if not key.startswith("chat_template") and key != "huggingface.json":
            _refuse(path, f"tokenizer.{key}", stated[key])
    backend: Any = tokenizer.backend_tokenizer
    if ggml.get("model") == "gpt2":
        rule = ggml.get("pre", "default")
        _apply_split(backend, rule, path)
        backend.model.ignore_merges = rule in _WHOLE_PIECES
        if "add_bos_token" not in ggml and rule in _ADD_BOS:
            tokenizer.add_bos_token = True  # rebuilds what puts it there
        if ggml.pop("normalizer.nfc", False):
            backend.normalizer = normalizers.NFC()
    if (blank := ggml.pop("add_space_prefix", None)) is not None:
        _apply_space_prefix(backend, bool(blank), path)
    removes = ggml.pop("remove_extra_whitespaces", None)
    if removes is not None and bool(removes) is not _removes_blanks(backend):
        _refuse(path, "tokenizer.ggml.remove_extra_whitespaces", removes)
    for name, value in sorted(ggml.items()):
        if name not in _READ | _NEUTRAL and not (name in _OFF and value == _OFF[name]):
            _refuse(path, f"tokenizer.ggml.{name}", value)


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


def _apply_space_prefix(backend: Any, stated: bool, path: Path) -> None:
    """Put a blank before each text, or none, as the file states."""
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


def _removes_blanks(backend: Any) -> bool:
    """Whether several blanks count as one."""
    one, two = (backend.encode(text, add_special_tokens=False).ids for text in ("a a", "a  a"))
    return bool(one == two)


def _refuse(path: Path, name: str, value: object) -> None:
    """Raise TarotError for a key."""
    got = f"{name} = {value!r}" if len(repr(value)) < 80 else name
    raise TarotError(f"a GGUF file whose texts transformers can split in {path}", got, _HINT)
