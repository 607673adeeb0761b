"""An answer log returns each answer unchanged, to the same owner and request only, even from a damaged file."""

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
def test_answers_are_returned_to_their_owner(
    tmp_path_factory: pytest.TempPathFactory, given_answers: list[tuple[str, tuple[Any, ...], Any]], noise: bytes
) -> None:
    path = tmp_path_factory.mktemp("log") / "answers.jsonl"
    log = AnswerLog(path, "owner")
    for kind, arguments, answer in given_answers:
        log.add_partial(kind, arguments, answer)
    with path.open("ab") as file:
        file.write(noise)  # a line of an interrupted run
    again, other = AnswerLog(path, "owner"), AnswerLog(path, "another")
    for kind, arguments, answer in given_answers:
        assert again.find(kind, arguments) == answer
        assert other.find(kind, arguments) is None


class Model:
    """Answer with the length of a request, and record the requests."""

    def __init__(self) -> None:
        self.answered: list[str] = []

    def set_cache_hook(self, hook: Any) -> None:
        self.hook = hook

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        self.answered += [request.args[0] for request in requests]
        return [(float(len(request.args[0])), False) for request in requests]

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        self.answered += [request.args[0] for request in requests]
        return [request.args[0].upper() for request in requests]


def instances(*texts: str, **options: object) -> list[Any]:
    return [SimpleNamespace(args=(text, options or "answer")) for text in texts]


def test_only_missing_answers_are_computed(tmp_path: Path) -> None:
    model = Model()
    lm = LoggedAnswers(model, AnswerLog(tmp_path / "log", "owner"))
    assert lm.loglikelihood(instances("a", "bb")) == [(1.0, False), (2.0, False)]
    assert lm.loglikelihood(instances("bb", "ccc", "a")) == [(2.0, False), (3.0, False), (1.0, False)]
    assert model.answered == ["a", "bb", "ccc"]


def test_a_sampled_text_is_generated_again(tmp_path: Path) -> None:
    model = Model()
    lm = LoggedAnswers(model, AnswerLog(tmp_path / "log", "owner"))
    for _ in range(2):
        assert lm.generate_until(instances("a", do_sample=True)) == ["A"]
        assert lm.generate_until(instances("b", do_sample=False)) == ["B"]
    assert model.answered == ["a", "b", "a"]


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    os.symlink(target, tmp_path / "log")
    log = AnswerLog(tmp_path / "log", "owner")
    with pytest.raises(TarotError):
        log.add_partial("loglikelihood", ("a", "b"), (1.0, True))
    assert target.read_text() == "precious"


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TarotError):
        AnswerLog(tmp_path, "owner")
