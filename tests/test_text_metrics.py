"""Judged texts: variety, counted; a log that survives kills and says when it is damaged."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tarot.errors import TarotError
from tarot.evaluation.statistics.means import jackknife
from tarot.objectives.text_metrics import distinct, distinct_without, repetition
from tarot.objectives.text_scores import TEXT_SCORES_FILE, ScoredTexts, TextScoreLog, TextScores, read_text_scores

words = st.lists(st.sampled_from(["a", "B", "b", "good"]), max_size=8).map(" ".join)


@given(st.lists(words, max_size=4), st.integers(1, 3))
def test_distinct_agrees_with_counting(texts: list[str], n: int) -> None:
    grams = []
    for text in texts:
        said = text.lower().split()
        grams += [said[i : i + n] for i in range(len(said) - n + 1)]
    different = [gram for i, gram in enumerate(grams) if gram not in grams[:i]]
    assert distinct(texts, n) == (len(different) / len(grams) if grams else 0.0)


@given(st.lists(words, max_size=4), st.integers(1, 3))
def test_leaving_a_text_out_is_not_having_it(texts: list[str], n: int) -> None:
    assert distinct_without(texts, n) == [distinct(texts[:i] + texts[i + 1 :], n) for i in range(len(texts))]


@given(words, st.integers(1, 3))
def test_repetition_is_what_distinct_leaves(text: str, n: int) -> None:
    assert repetition(text, n) == pytest.approx(1 - distinct([text], n) if distinct([text], n) else 0.0)
    assert 0 <= repetition(text, n) < 1


def test_the_interval_of_distinct_holds_what_is_expected_of_as_many_texts() -> None:
    """Of texts whose words follow Zipf: its mean over many draws, in about 95% of them."""
    generator = np.random.default_rng(0)
    draws = [[" ".join(map(str, generator.zipf(1.5, 8).clip(max=99))) for _ in range(20)] for _ in range(300)]
    expected = np.mean([distinct(texts) for texts in draws])
    intervals = [jackknife(distinct(texts), distinct_without(texts)) for texts in draws]
    assert 0.9 <= np.mean([found.low <= expected <= found.high for found in intervals]) <= 0.99


def test_babble_shows() -> None:
    assert repetition("great great great great great") == 0.75
    assert distinct(["so very good", "so very good"]) == 0.5
    babble = ScoredTexts(("great great great great", ""), (1.0, 0.0), (-1.0, -3.0))
    assert babble.summary == TextScores(0.5, -2.0, 1 / 3, pytest.approx(1 / 3))


def test_the_log_survives_a_kill(tmp_path: Path) -> None:
    first, again = TextScores(0.5, -1.25, 0.5, 0.1), TextScores(0.25, -2.0, 1.0, 0.0, refused=True)
    log = TextScoreLog(tmp_path)
    log.add(0, first)
    log.add(1, again)
    resumed = TextScoreLog(tmp_path)
    resumed.add(1, again)  # judged, but not written down as a trial
    assert read_text_scores(tmp_path) == {0: first, 1: again}


@pytest.mark.parametrize("content", ["{", "[]", '{"x": {}}', '{"0": {"reward": 1}}', '{"0": 1}'])
def test_a_damaged_log(tmp_path: Path, content: str) -> None:
    (tmp_path / TEXT_SCORES_FILE).write_text(content)
    with pytest.raises(
        TarotError, match=r"expected outcomes as tarot writes them in .*outcomes\.json, got .*; tune again"
    ):
        read_text_scores(tmp_path)


def test_no_log(tmp_path: Path) -> None:
    with pytest.raises(TarotError, match=r"expected the outcomes of a search in .*, got No such file or directory"):
        read_text_scores(tmp_path)
