"""Prompts and answers as token ids: special tokens once, and an answer has the tokens of its own text."""

import re
from functools import cache

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from test_scorer import plain
from tiny import tiny_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast as Tokens

from tarot.models.lm_eval_model import TarotLM
from tarot.models.scoring.scorer import Request

# In "is red" and "a " one token spans the blank, as in vocabularies that merge across blanks.
SPANNING = (("s", "\u0120"), ("s\u0120", "r"), ("s\u0120r", "e"), ("s\u0120re", "d"), ("a", "\u0120"), ("b", "a"))
SPECIAL = ("", "<s>", "</s>", "</s><s>")
TEXTS = st.text(alphabet="sred ab\n", max_size=8)


@cache
def merging_tokenizer(before: str = "", after: str = "", merges: tuple[tuple[str, str], ...] = SPANNING) -> Tokens:
    """One token a byte and one for each merge, with special tokens before and after every text."""
    alphabet = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet()), *(a + b for a, b in merges)]
    made = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(alphabet)}, merges=list(merges)))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    template = " ".join([*re.findall("<.*?>", before), "$A", *re.findall("<.*?>", after)])
    made.post_processor = processors.TemplateProcessing(single=template, special_tokens=[("<s>", 0), ("</s>", 1)])
    return Tokens(tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="</s>")


@cache
def merging_lm(before: str = "", after: str = "", **arguments: object) -> TarotLM:
    tokenizer = merging_tokenizer(before, after)
    return TarotLM(tiny_model("llama", vocab_size=len(tokenizer)), tokenizer=tokenizer, **arguments)


def logprob(lm: TarotLM, context: list[int], continuation: list[int]) -> float:
    """Score by one plain pass, the slow oracle."""
    return plain(lm.model, Request(tuple(context), tuple(continuation))).log_probability


@given(TEXTS, TEXTS, st.sampled_from(SPECIAL), st.sampled_from(SPECIAL))
@example("It is", " red", "", "")
@example("It is", " red", "<s>", "</s>")
@example(" ", "red", "", "")
@example("", "red", "", "</s>")
def test_an_answer_has_the_tokens_of_its_text(context: str, answer: str, before: str, after: str) -> None:
    lm, tokenizer = merging_lm(before, after), merging_tokenizer()
    blank = len(context) - len(context.rstrip())
    stripped, moved = context[: len(context) - blank], context[len(context) - blank :] + answer
    first = tokenizer.encode(before or ("" if stripped else "<s>"))
    expected = first + tokenizer.encode(stripped), tokenizer.encode(moved)
    assert lm.encode(context, answer) == expected
    stock = HFLM(pretrained=lm.model, tokenizer=merging_tokenizer(before, after))
    if not after and stripped and tokenizer.decode((pair := stock._encode_pair(context, answer))[1]) == moved:
        assert pair == expected


def test_a_tokenizer_that_puts_a_blank_before_texts_puts_none_before_answers() -> None:
    alphabet = ["<s>", "</s>", "\u2581", *"Itsred"]
    made = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer = Tokens(tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    lm = TarotLM(tiny_model("llama"), tokenizer=tokenizer)
    for context, answer in (("It is", " red"), ("It is ", "red"), ("It is", "red")):
        assert lm.encode(context, answer) == HFLM(pretrained=lm.model, tokenizer=tokenizer)._encode_pair(
            context, answer
        )


@given(TEXTS, st.sampled_from(["<s>", "</s>", "</s><s>"]), st.sampled_from(["", "</s>"]), st.data())
@example("ed", "</s><s>", "", None)
def test_first_tokens_that_a_text_spells_are_encoded_once(
    text: str, before: str, after: str, data: st.DataObject | None
) -> None:
    """Chat templates spell all of them, or only the last or the first."""
    parts = [before, *re.findall("<.*?>", before)]
    spelled = data.draw(st.sampled_from(parts)) if data else before
    lm, bare = merging_lm(before, after), merging_tokenizer()
    expected = bare.encode(before) + bare.encode(text)
    assert lm.tok_encode(spelled + text) == lm.tok_encode(text) == expected
    assert lm.encode(spelled + text + "b", " red") == lm.encode(text + "b", " red")
    (ids, _) = lm.tok_batch_encode([spelled + text])
    assert ids[0].tolist() == expected


@pytest.mark.parametrize("after", ["", "</s>"])
@pytest.mark.parametrize("before", ["", "<s>", "</s><s>"])
def test_a_text_is_conditioned_on_its_first_token_once(before: str, after: str) -> None:
    texts = ["the colour is red", "<s>is red", "a"]
    scores = merging_lm(before, after).loglikelihood_rolling(
        [Instance("loglikelihood_rolling", {}, (text,), i) for i, text in enumerate(texts)], disable_tqdm=True
    )
    bare = merging_tokenizer(before, after)
    first = bare.encode(before, add_special_tokens=False) or [0]
    own = [bare.encode(text, add_special_tokens=False) for text in texts]
    own[1] = own[1][1:]
    lm = merging_lm(before, after)
    assert scores == pytest.approx([logprob(lm, first, tokens) for tokens in own], abs=1e-4)


def test_a_long_text_has_its_first_token_in_its_first_window_only() -> None:
    lm = merging_lm("</s><s>", "</s>", max_length=8)
    text = "it was red and blue, all of it"
    tokens = merging_tokenizer().encode(text)
    windows = [([1, 0], tokens[:7]), (tokens[6:7], tokens[7:14]), (tokens[13:14], tokens[14:21])]
    windows.append((tokens[len(tokens) - 8 : 21], tokens[21:]))
    (score,) = lm.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (text,), 0)], disable_tqdm=True)
    assert 21 < len(tokens) < 28
    assert score == pytest.approx(sum(logprob(lm, *window) for window in windows), abs=1e-4)


@pytest.mark.parametrize(
    ("before", "arguments", "tokens"),
    [
        ("", {}, [70, 69]),
        ("", {"add_bos_token": True}, [0, 70, 69]),
        ("<s>", {"add_bos_token": True}, [0, 70, 69]),
        ("<s>", {"add_bos_token": False}, [70, 69]),
        ("<s>", {"prefix_token_id": 1}, [0, 70, 69]),
    ],
)
def test_the_first_token_is_encoded_once(before: str, arguments: dict[str, object], tokens: list[int]) -> None:
    lm = merging_lm(before, "</s>", **arguments)
    assert lm.tok_encode("ed") == tokens
    assert lm.tok_encode("<s>ed") == [0, 70, 69]  # as a chat template writes it
    assert lm.encode("", "ed") == ([arguments.get("prefix_token_id", 0)], [70, 69])


@pytest.mark.parametrize(("before", "after"), [("", ""), ("<s>", ""), ("<s>", "</s>"), ("", "</s>")])
def test_prompts_to_complete_end_without_special_tokens(before: str, after: str) -> None:
    lm, prompts = merging_lm(before, after), ["It is", "a", "<s>red"]
    ids, mask = lm.tok_batch_encode(prompts)
    assert [row[kept.bool()].tolist() for row, kept in zip(ids, mask, strict=True)] == [*map(lm.tok_encode, prompts)]
    assert ids[:, -1].tolist() == [lm.tok_encode(prompt)[-1] for prompt in prompts] and 1 not in ids[:, -1]
    cut, _ = lm.tok_batch_encode(prompts, left_truncate_len=2)
    assert cut.tolist() == ids[:, -2:].tolist()
    if not after:
        stock = HFLM(pretrained=lm.model, tokenizer=merging_tokenizer(before)).tok_batch_encode(prompts[:2])
        assert torch.equal(lm.tok_batch_encode(prompts[:2])[0], stock[0])
