"""Figures of searches and heads."""

import math
import re

import numpy as np
import pytest
from fabricated import Page, fabricated, page_of_comparisons, render
from hypothesis import given
from hypothesis import strategies as st

from tarot.analysis.results import LensResult
from tarot.evaluation.statistics.means import Mean
from tarot.report.figures import mechanism as mechanism_figures
from tarot.report.figures.comparison import best_so_far, has_scores, search_curves
from tarot.report.figures.heads import angle_map, head_map


@given(st.lists(st.floats() | st.none(), max_size=20))
def test_best_so_far_is_the_largest_finite_score(scores):
    for i, best in enumerate(best_so_far(scores)):
        finite = [score for score in scores[: i + 1] if score is not None and np.isfinite(score)]
        assert best == max(finite) if finite else np.isnan(best)


def test_figures_of_few_numbers_are_drawn():
    assert "all are zero: the identity" in angle_map("zero", [[0.0, 0.0]], [3])
    assert "<svg" in angle_map("ragged", [[0.1], [0.2, -0.3, 0.0]], [3, 4])
    assert "bo reaches nan" in search_curves("part", {"bo": (float("nan"),), "adam": (1.0,)}, "bo", "probability")
    one = LensResult((0,), 1, (0.1,), (0.2,), (Mean(0.1, -math.inf, math.inf),))
    assert "<svg" in mechanism_figures.lens_curves("one", one)


def test_curves_without_a_finite_score_are_not_drawn():
    assert not has_scores({"bo": ()}) and not has_scores({"bo": (float("nan"),)}) and not has_scores({})
    assert has_scores({"bo": (float("nan"), 1.0)})
    page = Page(render([fabricated(n=4, curves={"bo": (float("nan"),)}, head_angles=(), layers=())]))
    assert page.texts_of("title")[1:] == ["Gains with their intervals"]


@pytest.mark.parametrize("objective", ["log_probability", "probability"])
def test_axes_have_units(objective):
    unit = {"log_probability": "nats", "probability": "fraction"}[objective]
    texts = Page(str(search_curves("a", {"bo": (0.1, 0.2)}, "bo", objective))).texts_of("text")
    assert f"best {objective} so far, {unit}" in texts and "evaluations spent" in texts
    assert "gain in weighted F1 of the greedy answer over the base" in Page(page_of_comparisons()).texts_of("text")


@pytest.mark.parametrize("n_heads", [1, 2, 4, 8, 64])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_colour_scale_is_complete_for_any_number_of_heads(n_heads, sign):
    """Each head and each step of the scale draws two squares; text and squares lie inside the figure."""
    values = [[sign * 0.1 * (head + 1) for head in range(n_heads)] for _ in range(3)]
    figure = str(head_map("map", values, (0, 1, 2), "radians", "title", "nothing"))
    assert figure.count("<path") - figure.count("<path id") >= 2 * (3 * n_heads + 5)
    texts = Page(figure).texts_of("text")
    peak = f"{0.1 * n_heads:.2f}"
    assert "radians" in texts and f"+{peak}" in texts
    assert (f"\N{MINUS SIGN}{peak}" in texts) == (sign < 0)
    width = float(re.search(r'viewBox="0 0 ([\d.]+)', figure)[1])
    xs = [float(x) for x in re.findall(r'd="M (-?[\d.]+) ', figure)]
    assert max(xs) <= width and min(xs) >= 0
