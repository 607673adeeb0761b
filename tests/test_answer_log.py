"""Kept answers: each comes back as it was given, to the same owner and request only, whatever else the file holds."""

import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tarot.errors import TarotError
from tarot.models.answer_log import AnswerLog, LoggedAnswers

texts = st.text(st.characters())
requests = st.one_of(
    st.tuples(st.just("loglikelihood"), st.tuples(texts, texts), st.tuples(st.floats(allow_nan=False), st.booleans())),
    st.tuples(st.just("loglikelihood_rolling"), st.tuples(texts), st.floats(allow_nan=False)),
    st.tuples(st.just("generate_until"), st.tuples(texts, st.just({"until": ["\n"]})), texts),
)


@given(st.lists(requests, unique_by=lambda each: repr(each[:2])), st.binary(max_size=30))
def test_answers_come_back_to_their_owner(
    tmp_path_factory: pytest.TempPathFactory, given_answers: list[tuple[str, tuple[Any, ...], Any]], noise: bytes
) -> None:
    path = tmp_path_factory.mktemp("log") / "answers.jsonl"
    log = AnswerLog(path, "owner")
    for kind, arguments, answer in given_answers:
        log.add_partial(kind, arguments, answer)
    with path.open("ab") as file:
        file.write(noise)  # a line that was cut short
    again, other = AnswerLog(path, "owner"), AnswerLog(path, "another")
    for kind, arguments, answer in given_answers:
        assert again.find(kind, arguments) == answer
        assert other.find(kind, arguments) is None


class Model:
    """Answers with the length of a request, and counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def set_cache_hook(self, hook: Any) -> None:
        self.hook = hook

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        self.asked += [request.args[0] for request in requests]
        return [(float(len(request.args[0])), False) for request in requests]

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        self.asked += [request.args[0] for request in requests]
        return [request.args[0].upper() for request in requests]


def asked(*texts: str, **options: object) -> list[Any]:
    return [SimpleNamespace(args=(text, options or "answer")) for text in texts]


def test_only_what_is_missing_is_asked(tmp_path: Path) -> None:
    model = Model()
    lm = LoggedAnswers(model, AnswerLog(tmp_path / "log", "owner"))
    assert lm.loglikelihood(asked("a", "bb")) == [(1.0, False), (2.0, False)]
    assert lm.loglikelihood(asked("bb", "ccc", "a")) == [(2.0, False), (3.0, False), (1.0, False)]
    assert model.asked == ["a", "bb", "ccc"]


def test_a_sampled_text_is_asked_again(tmp_path: Path) -> None:
    model = Model()
    lm = LoggedAnswers(model, AnswerLog(tmp_path / "log", "owner"))
    for _ in range(2):
        assert lm.generate_until(asked("a", do_sample=True)) == ["A"]
        assert lm.generate_until(asked("b", do_sample=False)) == ["B"]
    assert model.asked == ["a", "b", "a"]


def test_a_link_in_the_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    os.symlink(target, tmp_path / "log")
    log = AnswerLog(tmp_path / "log", "owner")
    with pytest.raises(TarotError):
        log.add_partial("loglikelihood", ("a", "b"), (1.0, True))
    assert target.read_text() == "precious"


def test_a_folder_in_the_place_of_the_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TarotError):
        AnswerLog(tmp_path, "owner")
