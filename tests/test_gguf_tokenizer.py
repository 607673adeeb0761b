"""Tokenizers of GGUF files: texts are split by the rule that the file names, and no other rule takes its place."""

import re
from pathlib import Path
from typing import Any

import pytest
from checkpoint import byte_model, load_error, write_gguf, write_gguf_metadata
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

from tarot.errors import TarotError
from tarot.models.formats.gguf_tokenizer import apply_tokenizer_metadata

# The rules for ASCII, as `llama-vocab.cpp` has them.
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\nA-Za-z0-9]?[A-Za-z]+|[0-9]{1,3}| ?[^\sA-Za-z0-9]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace("{1,3}", "")
texts = st.text(st.sampled_from("ab'sT 019.,(\n\t"), max_size=20)


def read_tokenizer(folder: Path, metadata: dict[str, Any]) -> PreTrainedTokenizerFast:
    path = write_gguf_metadata(folder / "words.gguf", "llama", metadata)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=path.name)
    apply_tokenizer_metadata(tokenizer, path)
    return tokenizer


def byte_level(**metadata: Any) -> dict[str, Any]:
    tokens = sorted({*ByteLevel.alphabet(), "ĠĠ"})
    return {
        **sizes(len(tokens)),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * len(tokens),
        "tokenizer.ggml.merges": ["Ġ Ġ"],
        **{f"tokenizer.ggml.{name}": value for name, value in metadata.items()},
    }


def sizes(n_tokens: int) -> dict[str, Any]:
    counts = {"block_count": 1, "context_length": 32, "embedding_length": 8, "feed_forward_length": 8}
    heads = {"attention.head_count": 1, "attention.head_count_kv": 1, "vocab_size": n_tokens}
    return {f"llama.{name}": value for name, value in (counts | heads).items()}


def pieces(tokenizer: PreTrainedTokenizerFast, text: str) -> list[str]:
    return [text[begin:end] for _, (begin, end) in tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)]


def by_digits_first(text: str) -> list[str]:
    return [piece for part in re.findall("[0-9]|[^0-9]+", text) for piece in re.findall(GPT2, part)]


@pytest.mark.parametrize(
    ("rule", "split"),
    [
        ("gpt-2", GPT2),
        ("default", GPT2),
        ("smollm", None),
        ("starcoder", None),
        ("llama-bpe", LLAMA3),
        ("chatglm-bpe", LLAMA3),
        ("qwen2", QWEN2),
        ("stablelm2", QWEN2),
    ],
)
def test_a_text_is_cut_by_the_rule_of_the_file(rule: str, split: str | None, tmp_path: Path) -> None:
    tokenizer = read_tokenizer(tmp_path, byte_level(pre=rule))

    @given(texts)
    def check(text: str) -> None:
        assert pieces(tokenizer, text) == (re.findall(split, text) if split else by_digits_first(text))
        assert tokenizer.decode(tokenizer.encode(text)) == text

    check()


def test_blanks_before_a_digit_are_one_token_where_digits_stand_alone(tmp_path: Path) -> None:
    """GPT-2's rule, which transformers uses for names that it does not know, leaves the last blank to the digit."""
    assert read_tokenizer(tmp_path, byte_level(pre="smollm")).tokenize("a  12") == ["a", "ĠĠ", "1", "2"]
    assert read_tokenizer(tmp_path, byte_level(pre="gpt-2")).tokenize("a  12") == ["a", "Ġ", "Ġ", "1", "2"]


@pytest.mark.parametrize("rule", ["bloom", "falcon", "deepseek-llm", "a-new-rule"])
def test_a_rule_that_cannot_be_followed_is_named(rule: str, tmp_path: Path) -> None:
    assert rule not in GGUF_PRE_TOKENIZER_SPLITS
    with pytest.raises(TarotError, match=rf"tokenizer\.ggml\.pre = '{rule}'"):
        read_tokenizer(tmp_path, byte_level(pre=rule))


def test_a_model_with_such_a_rule_is_refused(tmp_path: Path) -> None:
    path = write_gguf(byte_model(layers=1), tmp_path / "byte.gguf", metadata={"tokenizer.ggml.pre": "bloom"})
    assert "tokenizer.ggml.pre" in load_error(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ggml.add_sep_token", True),
        ("ggml.add_space_prefix", True),
        ("ggml.remove_extra_whitespaces", True),
        ("ggml.normalizer.lowercase", True),
        ("ggml.precompiled_charsmap", [1, 2]),
        ("ggml.escape_whitespaces", False),
        ("ggml.treat_whitespace_as_suffix", True),
        ("ggml.a_new_rule", 1),
        ("rwkv.world", "words"),
    ],
)
def test_a_key_that_is_not_followed_is_named(key: str, value: object, tmp_path: Path) -> None:
    with pytest.raises(TarotError, match=rf"tokenizer\.{re.escape(key)} = .*load the checkpoint"):
        read_tokenizer(tmp_path, {**byte_level(pre="gpt-2"), f"tokenizer.{key}": value})


def test_keys_that_change_nothing_are_accepted(tmp_path: Path) -> None:
    off = {"add_sep_token": False, "remove_extra_whitespaces": False, "add_space_prefix": False}
    neutral = {"eot_token_id": 1, "fim_pre_token_id": 2, "seperator_token_id": 3, "normalizer.lowercase": False}
    other = {"tokenizer.chat_template.tool_use": "{{ messages }}", "tokenizer.huggingface.json": "{}"}
    metadata = byte_level(pre="gpt-2", **off, **neutral) | other
    assert read_tokenizer(tmp_path, metadata).tokenize("a b") == ["a", "Ġ", "b"]


def test_unicode_is_composed_where_the_file_states_so(tmp_path: Path) -> None:
    tokenizer = read_tokenizer(tmp_path, byte_level(pre="qwen2", **{"normalizer.nfc": True}))
    assert tokenizer.encode("e\u0301") == tokenizer.encode("\u00e9")


@pytest.mark.parametrize(("rule", "missing"), [("llama-bpe", True), ("tekken", True), ("qwen2", False)])
def test_a_missing_key_for_bos_means_what_it_means_in_llama_cpp(rule: str, missing: bool, tmp_path: Path) -> None:
    for stated, expected in ((None, missing), (True, True), (False, False)):
        metadata = byte_level(pre=rule, bos_token_id=7) | (
            {} if stated is None else {"tokenizer.ggml.add_bos_token": stated}
        )
        tokenizer = read_tokenizer(tmp_path, metadata)
        assert tokenizer.encode("ab") == [7] * expected + tokenizer.convert_tokens_to_ids(["a", "b"])


@pytest.mark.parametrize(("rule", "whole"), [("llama-bpe", True), ("tekken", True), ("qwen2", False)])
def test_a_piece_that_is_a_token_needs_no_merges_under_rules_of_llama_3(rule: str, whole: bool, tmp_path: Path) -> None:
    metadata = byte_level(pre=rule, add_bos_token=False)
    metadata["tokenizer.ggml.tokens"] += ["aba"]
    metadata["tokenizer.ggml.token_type"] += [1]
    tokens = read_tokenizer(tmp_path, metadata).tokenize("aba")
    assert tokens == (["aba"] if whole else ["a", "b", "a"])


@pytest.mark.parametrize("stated", [True, False, None])
def test_a_blank_stands_before_texts_where_the_file_states_so(stated: bool | None, tmp_path: Path) -> None:
    tokens = ["<unk>", "<s>", "</s>", "▁", "a", "b", "▁a"]
    metadata = {
        **sizes(len(tokens)),
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [2, 3, 3, 1, 1, 1, 1],
        "tokenizer.ggml.scores": [-float(i) for i in range(len(tokens))],
        "tokenizer.ggml.add_bos_token": False,
    }
    if stated is not None:
        metadata["tokenizer.ggml.add_space_prefix"] = stated
    tokenizer = read_tokenizer(tmp_path, metadata)
    assert tokenizer.tokenize("ab a") == (["a", "b", "▁a"] if stated is False else ["▁a", "b", "▁a"])
