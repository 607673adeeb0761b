"""Rewards: each name states its direction, and each source is checked."""

import json
import math
import shutil
from functools import cache
from pathlib import Path

import pytest
import torch
from checkpoint import byte_model, byte_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertConfig, BertForSequenceClassification, BertModel

from tarot.errors import TarotError, UnknownName
from tarot.objectives.rewards import registry as rewards
from tarot.objectives.rewards.fluency import Fluency
from tarot.objectives.rewards.registry import (
    Reward,
    check_reward,
    check_reward_name,
    highest_reward,
    is_reward,
    make_reward,
    needs_consent,
    refuse_unrequested,
    split_sum,
)

END = 1
KNOWN = (
    *rewards.WORD_LISTS,
    "length:short",
    "format:json",
    "keywords:a,b c",
    "fluency",
    "classifier:a/b#c",
    "my.module:f",
)


def encode(context: str, continuation: str) -> tuple[list[int], list[int]]:
    return [b + 2 for b in context.encode()], [b + 2 for b in continuation.encode()]


@cache
def fluency() -> Fluency:
    return Fluency(byte_model(), encode, END)


def reward(name: str) -> Reward:
    return make_reward(name, fluency())


def rewards_of(name: str, *texts: str) -> list[float]:
    return list(reward(name)(["so"] * len(texts), texts))


@given(st.text())
def test_positive_and_negative_mirror_each_other(text: str) -> None:
    (positive,), (negative,) = rewards_of("sentiment:positive", text), rewards_of("sentiment:negative", text)
    assert positive == -negative and -1 <= positive <= 1


@pytest.mark.parametrize(
    ("name", "better", "between", "worse"),
    [
        ("sentiment:positive", "a wonderful, happy film", "a film of two hours", "a terrible, sad film"),
        ("sentiment:negative", "a terrible, sad film", "a film of two hours", "a wonderful, happy film"),
        ("toxicity:low", "what a nice day it is", "what a damn fine day", "shit, damn this shit"),
    ],
)
def test_higher_is_better(name: str, better: str, between: str, worse: str) -> None:
    high, middle, low = rewards_of(name, better, between, worse)
    assert high > middle > low


@given(st.text(st.sampled_from("aehist ")), st.integers(0, 3))
def test_toxicity_is_a_fraction_of_the_words(text: str, more: int) -> None:
    (value,) = rewards_of("toxicity:low", text)
    assert -1 <= value <= 0
    clean, foul = rewards_of("toxicity:low", "quiet " * 4, "quiet " * 4 + "shit " * more)
    assert (clean, foul) == (0, pytest.approx(-more / (4 + more)))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random classifier of bytes, as a folder."""
    folder = tmp_path_factory.mktemp("classifier")
    config = BertConfig(
        vocab_size=258,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
        id2label={0: "NEGATIVE", 1: "POSITIVE"},
        label2id={"NEGATIVE": 0, "POSITIVE": 1},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertForSequenceClassification(config).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def test_a_classifiers_label_is_its_probability(classifier: Path) -> None:
    texts = ["good", "bad", "so long that it is cut, since the classifier reads thirty-two bytes and not one more"] * 20
    positive = rewards_of(f"classifier:{classifier}#POSITIVE", *texts)
    negative = rewards_of(f"classifier:{classifier}#NEGATIVE", *texts)
    assert all(p + n == pytest.approx(1, abs=1e-6) for p, n in zip(positive, negative, strict=True))
    model = BertForSequenceClassification.from_pretrained(classifier).eval()
    tokens = byte_tokenizer()("good", return_tensors="pt")
    assert positive[0] == pytest.approx(model(**tokens).logits.softmax(-1)[0, 1].item(), abs=1e-5)
    assert len({round(p, 6) for p in positive}) == 3


def changed(classifier: Path, folder: Path, **config: object) -> Path:
    shutil.copytree(classifier, folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return folder


def test_independent_labels_have_a_sigmoid_each(classifier: Path, tmp_path: Path) -> None:
    folder = changed(classifier, tmp_path / "apart", problem_type="multi_label_classification")
    values = [rewards_of(f"classifier:{folder}#{label}", "good")[0] for label in ("POSITIVE", "NEGATIVE")]
    model = BertForSequenceClassification.from_pretrained(folder).eval()
    negative, positive = model(**byte_tokenizer()("good", return_tensors="pt")).logits[0].sigmoid().tolist()
    assert values == pytest.approx([positive, negative], abs=1e-5)


def test_classifiers_that_are_refused(classifier: Path, tmp_path: Path) -> None:
    def error_of(name: str) -> str:
        with pytest.raises(TarotError) as error:
            reward(name)
        return str(error.value)

    assert error_of(f"classifier:{classifier}#joy") == (
        f"expected a label of {classifier}: NEGATIVE, POSITIVE, got 'joy'"
    )
    assert error_of("classifier:some/model") == (
        "expected a classifier and its label, as classifier:REF#LABEL, got 'classifier:some/model'"
    )
    pickled = changed(classifier, tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    assert "expected weights as safetensors, got" in error_of(f"classifier:{pickled}#POSITIVE")
    headless = changed(classifier, tmp_path / "headless")
    BertModel.from_pretrained(classifier).save_pretrained(headless)
    assert "BertForSequenceClassification without classifier" in error_of(f"classifier:{headless}#POSITIVE")
    assert error_of(f"classifier:{tmp_path / 'none'}#POSITIVE").startswith("expected a hub id, folder")
    padless = changed(classifier, tmp_path / "padless")
    tokenizer = byte_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(padless)
    assert error_of(f"classifier:{padless}#POSITIVE") == (f"The tokenizer of {padless} has no padding token.")


def test_code_that_comes_with_a_classifier_is_not_run(classifier: Path, tmp_path: Path) -> None:
    auto = {"AutoConfig": "code.Config", "AutoModelForSequenceClassification": "code.Model"}
    folder = changed(classifier, tmp_path / "code", auto_map=auto)
    (folder / "code.py").write_text(f"open({str(tmp_path / 'was-run')!r}, 'w')\n")
    rewards_of(f"classifier:{folder}#POSITIVE", "good")  # transformers' own class is used
    folder = changed(classifier, tmp_path / "odd", auto_map=auto, model_type="unheard-of")
    shutil.copy(tmp_path / "code" / "code.py", folder)
    with pytest.raises(TarotError, match="Cannot load a text classifier from"):
        reward(f"classifier:{folder}#POSITIVE")
    assert not (tmp_path / "was-run").exists()


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of rewards in the working folder."""
    (tmp_path / "planted_rewards.py").write_text(
        "def length(prompts, continuations):\n    return [len(p + c) for p, c in zip(prompts, continuations)]\n"
        "def short(prompts, continuations):\n    return [1.0]\n"
        "def nan(prompts, continuations):\n    return [float('nan')] * len(continuations)\n"
        "def endless(prompts, continuations):\n    return [-float('inf')] * len(continuations)\n"
        "def words(prompts, continuations):\n    return continuations\n"
        "number = 3\n"
    )
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("own")
def test_a_users_function_sees_prompts_and_continuations() -> None:
    assert rewards_of("planted_rewards:length", "me", "") == [4.0, 2.0]


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("short", "expected 2 finite numbers from planted_rewards:short, got 1, 0 of them nan or beyond 1e+30"),
        ("nan", "expected 2 finite numbers from planted_rewards:nan, got 2, 2 of them nan or beyond 1e+30"),
        ("endless", "expected 2 finite numbers from planted_rewards:endless, got 2, 2 of them nan or beyond 1e+30"),
        ("words", "planted_rewards:words did not return numbers: could not convert string to float: 'a'"),
        ("number", "expected a function planted_rewards:number(prompts, continuations), got int"),
        ("none", "expected the function none of the module planted_rewards, got module 'planted_rewards' has no"),
    ],
)
def test_a_users_function_is_checked(name: str, message: str) -> None:
    with pytest.raises(TarotError) as error:
        rewards_of(f"planted_rewards:{name}", "a", "b")
    assert str(error.value).startswith(message)


def test_names() -> None:
    assert all(is_reward(name) for name in (*rewards.WORD_LISTS, "fluency", "classifier:a/b#c", "my.module:f"))
    assert not any(is_reward(name) for name in ("log_probability", "margin", "accuracy", "probability"))
    with pytest.raises(UnknownName, match=r"got 'sentiment:positiv'; did you mean 'sentiment:positive'\?"):
        check_reward("sentiment:positiv")
    with pytest.raises(UnknownName, match="expected a known reward, got 'toxicity:high'"):
        check_reward("toxicity:high")
    with pytest.raises(UnknownName, match="expected a known reward, got 'rm -rf:x'"):
        check_reward("rm -rf:x")


@pytest.mark.parametrize("name", [*rewards.WORD_LISTS, "fluency", "log_probability"])
def test_a_file_may_name_the_rewards_of_tarot(name: str) -> None:
    assert not needs_consent(name)
    refuse_unrequested(name, "the task t")


@pytest.mark.parametrize(
    ("name", "what", "option"),
    [
        ("os:system", "runs code", "os:system"),
        ("classifier:org/name#POSITIVE", "loads a model", "'classifier:org/name#POSITIVE'"),
        ("classifier:./here#x", "loads a model", "'classifier:./here#x'"),
        ("classifier:", "loads a model", "classifier:"),
        ("Classifier:org/name#x", "runs code", "'Classifier:org/name#x'"),
    ],
)
def test_a_file_chooses_neither_code_nor_a_model(name: str, what: str, option: str) -> None:
    assert needs_consent(name)
    with pytest.raises(TarotError) as error:
        refuse_unrequested(name, "an adapter")
    assert str(error.value) == (
        f"an adapter names the reward {name!r}, which {what}; if you trust it, pass --reward {option}"
    )


def test_several_rewards_are_weighted() -> None:
    texts = ("a wonderful film", "a film of two hours, in which a baker moves to another town")
    name = "sentiment:positive*0.7+length:short*0.3"
    positive, short = rewards_of("sentiment:positive", *texts), rewards_of("length:short", *texts)
    assert rewards_of(name, *texts) == pytest.approx([0.7 * a + 0.3 * b for a, b in zip(positive, short, strict=True)])
    assert is_reward("fluency*0.5+fluency*0.5") and not needs_consent(name)
    assert needs_consent("length:short*0.3+os:system*0.7")
    assert rewards_of("length:short*0.3+regex:film|town*2", *texts) == pytest.approx([0.3 * a + 2 for a in short])


LIMITED = ("format:json", "keywords:a,b", "regex:a", "refusal:low", "refusal:high", "toxicity:low")
BEST = {"refusal:high": "I cannot a, b", "format:json": "[1]"}  # other texts with the highest score


@given(st.sampled_from(LIMITED), st.text(st.sampled_from("ab [1]{}shit")), st.floats(0.1, 10))
def test_no_text_scores_above_the_highest_reward(name: str, text: str, weight: float) -> None:
    assert rewards_of(name, text)[0] <= highest_reward(name) == rewards_of(name, BEST.get(name, "a b"))[0]
    if not name.startswith("regex:"):  # a pattern takes no weight
        assert highest_reward(f"{name}*{weight:.3f}") == pytest.approx(float(f"{weight:.3f}") * highest_reward(name))


@pytest.mark.parametrize("name", ["length:short", "length:long", "sentiment:positive", "fluency", "module:function"])
def test_other_rewards_have_no_highest(name: str) -> None:
    assert highest_reward(name) == highest_reward(f"{name}*0.5+format:json*0.5") == math.inf


@given(st.lists(st.tuples(st.sampled_from(KNOWN), st.floats(0.1, 100)), min_size=1, max_size=4))
def test_a_sum_is_read_as_it_is_written(terms: list[tuple[str, float]]) -> None:
    assert split_sum("+".join(f"{term}*{weight}" for term, weight in terms)) == tuple(terms)


@pytest.mark.parametrize("name", ["length:short*0", "sentiment:positive*0.7+sentiment:good*0.3", "length:medium"])
def test_a_wrong_sum_is_an_error(name: str) -> None:
    with pytest.raises(TarotError, match=r"weights|sentiment:good|length:medium"):
        check_reward_name(name)


def test_a_missing_package_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tarot.errors.find_spec", lambda name: None)
    with pytest.raises(TarotError) as error:
        check_reward("toxicity:low")
    assert str(error.value) == (
        "The reward toxicity:low needs the package pyobscenity; "
        "in tarot's checkout: python -m pip install -e '.[rewards]'"
    )
