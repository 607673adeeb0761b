"""An answer log returns each answer unchanged, to the same owner and request only, even from a damaged file."""

import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tarot.errors import TarotError
from tarot.models.answer_log import AnswerLog, LoggedAnswers

texts = st.text()
finite = st.floats(-1e30, 1e30)
requests = st.one_of(
    st.tuples(st.just("loglikelihood"), st.tuples(texts, texts), st.tuples(finite, st.booleans())),
    st.tuples(st.just("loglikelihood_rolling"), st.tuples(texts), finite),
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
        return self.answer("loglikelihood", requests, lambda text: (float(len(text)), False))

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        return self.answer("generate_until", requests, str.upper)

    def answer(self, kind: str, requests: Sequence[Any], answer: Callable[[str], Any]) -> list[Any]:
        for request in requests:
            self.answered.append(request.args[0])
            self.hook.add_partial(kind, request.args, answer(request.args[0]))
        return [answer(request.args[0]) for request in requests]


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
        assert lm.generate_until(instances("c", temperature=0.7)) == ["C"]  # lm-eval samples these too
    assert model.answered == ["a", "b", "c", "a", "c"]


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    os.symlink(target, tmp_path / "log")
    log = AnswerLog(tmp_path / "log", "owner")
    with pytest.raises(TarotError):
        log.add_partial("loglikelihood", ("a", "b"), (1.0, True))
    assert target.read_text() == "precious"


def test_only_a_regular_file_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(TarotError):
            AnswerLog(path, "owner")


@given(st.sampled_from([math.nan, math.inf, -math.inf]))
def test_an_answer_of_an_older_log_that_is_no_number_is_computed_again(
    tmp_path_factory: pytest.TempPathFactory, value: float
) -> None:
    path = tmp_path_factory.mktemp("log") / "answers.jsonl"
    log = AnswerLog(path, "owner")
    log.add_partial("loglikelihood", ("a", "b"), (value, True))
    log.add_partial("loglikelihood_rolling", ("a",), value)
    again = AnswerLog(path, "owner")
    assert again.find("loglikelihood", ("a", "b")) is again.find("loglikelihood_rolling", ("a",)) is None


def test_the_time_of_earlier_answers_is_counted_once(tmp_path: Path) -> None:
    path = tmp_path / "log"
    lines = [json.loads(line) for line in _two_answers(path)]
    again = AnswerLog(path, "owner")
    for _ in range(2):
        for text in ("a", "b"):
            assert again.find("loglikelihood_rolling", (text,)) == 1.0
    assert again.earlier_seconds == pytest.approx(sum(line["seconds"] for line in lines))


def _two_answers(path: Path) -> list[str]:
    log = AnswerLog(path, "owner")
    for text in ("a", "b"):
        log.add_partial("loglikelihood_rolling", (text,), 1.0)
    return path.read_text().splitlines()
