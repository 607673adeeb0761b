"""The result of a comparison: scores, gains, changed documents, tables, equality and labels."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_regression import comparison

from tarot.errors import TarotError, UnknownName
from tarot.evaluation.results.changes import changed_rows
from tarot.evaluation.results.comparison import (
    EDITED,
    OUTSIDE,
    SEARCH_SETTINGS,
    ZERO_SHOT,
    Arm,
    Comparison,
    search_labels,
)
from tarot.evaluation.results.metrics import METRICS
from tarot.evaluation.results.scored_comparison import score_comparisons

QUOTED = "\N{LEFT DOUBLE QUOTATION MARK}maybe so\N{RIGHT DOUBLE QUOTATION MARK}"
CHOICES = st.integers(OUTSIDE, 2)
DOCUMENTS = st.lists(st.tuples(st.integers(0, 2), CHOICES, CHOICES, CHOICES, CHOICES), min_size=1, max_size=12)


def answered(documents: list[tuple[int, int, int, int, int]]) -> Comparison:
    """Return a comparison with these right answers, and likeliest and greedy answers of base and edited arm."""
    gold, base, greedy_base, edited, greedy_edited = map(tuple, zip(*documents, strict=True))
    probability = (0.5,) * len(gold)
    arms = (
        Arm(ZERO_SHOT, 0, base, greedy_base, probability, 1.0),
        Arm(EDITED, 20, edited, greedy_edited, probability, 2.0),
    )
    return replace(comparison([True] * len(gold)), gold=gold, arms=arms)


@given(DOCUMENTS, st.sampled_from(sorted(METRICS)))
def test_changed_documents_are_those_that_a_gain_counts(
    documents: list[tuple[int, int, int, int, int]], metric: str
) -> None:
    compared = answered(documents)
    fixed, broken = compared.changed(metric)
    gain = compared.gain(metric)
    assert (len(fixed), len(broken)) == (gain.gained, gain.lost)
    for document in (*fixed, *broken):
        assert document.gold == compared.gold[document.row] and document.text == compared.texts[document.row]
        assert (document.edited == document.gold) == (document in fixed) != (document.base == document.gold)


@given(st.lists(st.tuples(st.integers(0, 2), CHOICES, CHOICES)))
def test_swapped_arms_swap_changed_rows(documents: list[tuple[int, int, int]]) -> None:
    gold, base, edited = ([row[column] for row in documents] for column in range(3))
    assert changed_rows(gold, base, edited) == changed_rows(gold, edited, base)[::-1]


def test_the_arms_of_two_comparisons_of_one_edit_are_scored_together() -> None:
    one = answered([(0, 0, 0, 1, 1), (1, 0, 0, 1, 1)])
    few, base = replace(one.arms[0], name="all-shots"), replace(one.arms[1], name="lora")
    first, second = replace(one, arms=(*one.arms, few)), replace(one, arms=(*one.arms, base))
    for pair in ((one, first), (first, one), (first, second), (second, first)):
        (scored,) = score_comparisons(pair)
        assert set(scored.arms) == {arm.name for comparison in pair for arm in comparison.arms}
    drawn = replace(one, arms=(*one.arms, replace(few, name="few-shot 1 of 1", draw=1)))
    (scored,) = score_comparisons([drawn, replace(drawn, arms=(*drawn.arms, few))])
    assert len(scored.comparison.draws) == 1


@given(DOCUMENTS)
def test_equal_comparisons_have_equal_hashes(documents: list[tuple[int, int, int, int, int]]) -> None:
    one, other = (replace(answered(documents), curves={"bo": (float("nan"), 0.5)}) for _ in range(2))
    assert one == other and hash(one) == hash(other) and len({one, other}) == 1


@pytest.mark.parametrize("change", [{"seed": 1}, {"curves": {"bo": (0.25,)}}, {"versions": {}}, {"seconds": 9.0}])
def test_comparisons_that_differ_are_not_equal(change: dict[str, object]) -> None:
    one = comparison([True])
    assert one != replace(one, **change)
    assert one != "comparison"


def test_score_and_gain() -> None:
    compared = answered([(0, 0, 0, 0, 0), (1, 0, 0, 1, 1), (1, 0, OUTSIDE, 0, 1), (0, 0, 0, 1, 1)])
    assert compared.score("acc") == 0.5 and compared.score("greedy_acc") == 0.75
    assert compared.score("acc", arm=ZERO_SHOT) == 0.5
    assert compared.gain("greedy_acc").value == pytest.approx(0.25)
    assert compared.gain("acc", arm=ZERO_SHOT, over=EDITED).value == 0
    with pytest.raises(UnknownName, match="greedy"):
        compared.gain("greedy")
    with pytest.raises(TarotError, match="zero-shot, edited"):
        compared.changed(arm="few-shot")


def test_pandas_has_a_row_for_each_document_and_arm() -> None:
    compared = answered([(0, 1, OUTSIDE, 0, 0), (2, 2, 2, 2, OUTSIDE)])
    table = compared.to_pandas()
    numbers = ["document", "text", "gold", "arm", "predicted", "greedy", "gold_probability", "without_number"]
    assert list(table.columns) == [*numbers, "gold_text", "predicted_text", "greedy_text"]
    assert list(table["arm"]) == [ZERO_SHOT, ZERO_SHOT, EDITED, EDITED]
    assert list(table["document"]) == [0, 1, 0, 1] and list(table["greedy"]) == [OUTSIDE, 2, 0, OUTSIDE]


def test_pandas_has_answers_in_words() -> None:
    compared = answered([(0, 1, OUTSIDE, 0, 0), (1, 1, 1, 0, OUTSIDE)])
    written = replace(compared.arm(EDITED), written=("", " maybe so"))
    compared = replace(compared, choices=((" no", " yes"),) * 2, arms=(compared.base, written))
    table = compared.to_pandas()
    assert list(table["gold_text"]) == ["no", "yes"] * 2
    assert list(table["predicted_text"]) == ["yes", "yes", "no", "no"]
    assert list(table["greedy_text"]) == ["none of the choices", "yes", "no", f"wrote {QUOTED}"]


def test_notebooks_show_a_table_without_markup_of_the_names() -> None:
    html = replace(comparison([True, False]), task="<b>&'")._repr_html_()
    assert html.startswith("<table>") and html.count("<tr>") == 3
    assert "<b>" not in html and "&lt;b&gt;&amp;" in html
    assert "edited" in html and "95% CI" in html


def test_the_repr_is_short() -> None:
    assert repr(comparison([True] * 500)) == (
        "<Comparison of model task 0-shot seed 0: 500 documents, zero-shot, edited>"
    )


@given(st.lists(st.fixed_dictionaries({name: st.integers(1, 3) for name in ("samples", "budget")}), min_size=1))
def test_labels_tell_settings_apart_and_nothing_else(settings: list[dict[str, int]]) -> None:
    comparisons = [comparison([True], **change) for change in settings]
    labels = search_labels(comparisons)
    by_label = {(label, each.identity) for label, each in zip(labels, comparisons, strict=True)}
    assert len(by_label) == len(set(labels)) == len({each.identity for each in comparisons})
    assert (set(labels) == {""}) == (len({each.identity for each in comparisons}) == 1)


def test_labels_tell_limits_apart() -> None:
    limits = [comparison([True], max_kl=limit) for limit in (0.0, 0.01, 0.03)]
    assert search_labels(limits) == ["no limit of KL", "KL at most 0.01", "KL at most 0.03"]


def test_every_setting_is_part_of_the_identity() -> None:
    one = comparison([True])
    for name in SEARCH_SETTINGS:
        value = getattr(one, name)
        other = replace(one, **{name: value + 1 if isinstance(value, int) else "other"})
        assert other.identity != one.identity and search_labels([one, other])[0] != search_labels([one, other])[1]


@given(st.lists(st.dictionaries(st.sampled_from(["bound", "gate", "scale"]), st.sampled_from([0.5, 2.0])), min_size=1))
def test_settings_of_the_edit_are_part_of_identity_and_label(settings: list[dict[str, float]]) -> None:
    comparisons = [comparison([True], settings=each) for each in settings]
    distinct = len({tuple(sorted(each.items())) for each in settings})
    assert len({each.identity for each in comparisons}) == len(set(search_labels(comparisons))) == distinct
    scored = score_comparisons(comparisons)  # sorts by them
    assert len({each.setting for each in scored}) == distinct
