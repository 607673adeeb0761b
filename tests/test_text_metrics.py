"""Text metrics: n-grams counted, and the jackknife interval of distinct-n."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tarot.evaluation.statistics.means import jackknife
from tarot.objectives.rewards.text_metrics import distinct, distinct_without, repetition
from tarot.objectives.rewards.text_scores import ScoredTexts, TextScores

words = st.lists(st.sampled_from(["a", "B", "b", "good"]), max_size=8).map(" ".join)


@given(st.lists(words, max_size=4), st.integers(1, 3))
def test_distinct_agrees_with_counting(texts: list[str], n: int) -> None:
    grams = []
    for text in texts:
        words = text.lower().split()
        grams += [words[i : i + n] for i in range(len(words) - n + 1)]
    different = [gram for i, gram in enumerate(grams) if gram not in grams[:i]]
    assert distinct(texts, n) == (len(different) / len(grams) if grams else 0.0)


@given(st.lists(words, max_size=4), st.integers(1, 3))
def test_leaving_a_text_out_agrees_with_counting_the_others(texts: list[str], n: int) -> None:
    assert distinct_without(texts, n) == [distinct(texts[:i] + texts[i + 1 :], n) for i in range(len(texts))]


@given(words, st.integers(1, 3))
def test_repetition_complements_distinct(text: str, n: int) -> None:
    assert repetition(text, n) == pytest.approx(1 - distinct([text], n) if distinct([text], n) else 0.0)
    assert 0 <= repetition(text, n) < 1


def test_the_jackknife_interval_of_distinct_covers_its_expectation() -> None:
    """Draw texts whose words follow Zipf's law; about 95% of the intervals must hold the mean over all draws."""
    generator = np.random.default_rng(0)
    draws = [[" ".join(map(str, generator.zipf(1.5, 8).clip(max=99))) for _ in range(20)] for _ in range(300)]
    expected = np.mean([distinct(texts) for texts in draws])
    intervals = [jackknife(distinct(texts), distinct_without(texts)) for texts in draws]
    assert 0.9 <= np.mean([interval.low <= expected <= interval.high for interval in intervals]) <= 0.99


def test_repetitive_texts_score_low() -> None:
    assert repetition("great great great great great") == 0.75
    assert distinct(["so very good", "so very good"]) == 0.5
    babble = ScoredTexts(("great great great great", ""), (1.0, 0.0), (-1.0, -3.0))
    assert babble.summary == TextScores(0.5, -2.0, 1 / 3, pytest.approx(1 / 3))
