"""Rewards from the text alone: each name states its direction."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tarot.errors import InvalidValueError, UnknownName
from tarot.objectives.rewards.text_rewards import DIRECTIONS, is_text_reward, make_text_reward

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
)


@given(JSON)
def test_json_objects_and_arrays_are_valid(value: object) -> None:
    score = make_text_reward("format:json")
    assert score(json.dumps(value)) == isinstance(value, dict | list)
    assert score(json.dumps([value])[:-1]) == 0


def test_deep_json_is_no_answer() -> None:
    assert make_text_reward("format:json")("[" * 100_000) == 0


@given(st.integers(0, 200), st.integers(1, 50))
def test_shorter_is_better(n: int, more: int) -> None:
    short, long = make_text_reward("length:short"), make_text_reward("length:long")
    assert 0 < short("word " * (n + more)) < short("word " * n) <= 1
    assert long("word " * n) == 1 - short("word " * n)
    assert short("word " * 20) == 0.5


@given(st.sets(st.sampled_from(["plot", "actors", "sound", "the end"]), min_size=1), st.booleans())
def test_keywords_are_counted_as_whole_words(words: set[str], upper: bool) -> None:
    text = f"Here: {', '.join(words)}; plots, sounding"
    score = make_text_reward("keywords:plot, actors,sound,the end")(text.upper() if upper else text)
    assert score == len(words) / 4


@pytest.mark.parametrize("text", ["I\u2019m sorry, no.", "As an AI, I cannot say.", "No: I am unable to."])
def test_refusals_are_found(text: str) -> None:
    assert make_text_reward("refusal:high")(text) == 1 and make_text_reward("refusal:low")(text) == -1
    assert make_text_reward("refusal:low")("It is a film about a baker.") == 0


def test_a_pattern_may_match_anywhere() -> None:
    score = make_text_reward(r"regex:\d{4}-\d\d")
    assert score("in 2024-05") == 1 and score("in 24-5") == 0


@pytest.mark.parametrize("name", ["length:medium", "format:xml", "refusal:"])
def test_an_unknown_direction_is_an_unknown_name(name: str) -> None:
    with pytest.raises(UnknownName):
        make_text_reward(name)


@pytest.mark.parametrize("name", ["keywords: ,", "regex:("])
def test_a_wrong_argument_is_an_error(name: str) -> None:
    with pytest.raises(InvalidValueError):
        make_text_reward(name)


def test_names() -> None:
    assert all(map(is_text_reward, (*DIRECTIONS, "keywords:a", "regex:a")))
    assert not any(map(is_text_reward, ("length", "fluency", "sentiment:positive", "lengths:short")))
