"""The answer at the top of the page: what was edited, whether it helped, how sure that is, and its cost elsewhere."""

import re
from dataclasses import replace

import pytest
from fabricated import COMPARISONS, Page, fabricated, render, reward_comparison

from tarot.evaluation.held_out import HeldOut
from tarot.evaluation.results.comparison import OUTSIDE
from tarot.report.answer import NOT_MEASURED
from tarot.report.side_effect_words import Costs


def facts_of(page):
    return dict(page.facts())


def test_the_page_opens_with_the_answer():
    comparison = fabricated(draws=5, date="2026-11-27", machine="a machine", n_angles=480)
    page = Page(render([comparison]))
    facts = dict(zip(page.texts_of("dt"), page.texts_of("dd"), strict=True))
    gain = comparison.gain()
    assert page.texts_of("p")[0].startswith("The edit helped") and gain.low > 0
    assert facts["edited"] == "15 attention heads (480 angles) in 3 layers of fabricated/model"
    before, after = comparison.score(arm="zero-shot"), comparison.score()
    assert facts["score"].startswith(
        f"weighted F1 of the greedy answer from {before:.3f} to {after:.3f} on 40 held-out documents"
    )
    assert facts["gain"].startswith(f"+{gain.value:.3f}, 95% interval +{gain.low:.3f} to +{gain.high:.3f}, p ")
    assert f"{gain.gained} fixed, {gain.lost} broken" in facts["answers"]
    assert f"6 of the same 20 labels reaches {comparison.score(arm='few-shot'):.3f}" in facts["few-shot"]
    assert "over the mean of 5 draws" in facts["few-shot"]
    assert "not measured" in facts["elsewhere"] and "tarot effects" in page.texts_of("code")[0]
    assert "Measured 2026-11-27 on a machine with torch 0.0.fabricated." in page.texts_of("p")


def test_several_comparisons_have_one_answer_whose_means_agree():
    page = Page(render(COMPARISONS))
    facts = dict(reversed([*zip(page.texts_of("dt"), page.texts_of("dd"), strict=True)]))  # the first of each
    before, after = map(float, re.findall(r"[0-9]\.[0-9]{3}", facts["score"]))
    gain = float(re.findall(r"[+-][0-9]\.[0-9]{3}", facts["gain"].replace("\N{MINUS SIGN}", "-"))[0])
    assert after - before == pytest.approx(gain, abs=0.0011)
    assert facts["edited"] == "2 models, 2 tasks, 2 seeds"
    above = sum(comparison.gain().low > 0 for comparison in COMPARISONS)
    assert f"above zero in {above} of 4 comparisons" in facts["each"]


@pytest.mark.parametrize(
    ("edited_right", "verdict"),
    [(0.05, "The edit lowered the score."), (0.3, "The edit may or may not help"), (0.9, "helped")],
)
def test_the_verdict_follows_the_interval(edited_right, verdict):
    comparison = fabricated(edited_right=edited_right, n=300)
    gain = comparison.gain()
    assert (verdict == "helped") == (gain.low > 0) and ("lowered" in verdict) == (gain.high < 0)
    assert verdict in Page(render([comparison])).texts_of("p")[0]


def test_a_gain_of_the_form_alone_is_called_so():
    comparison = fabricated()
    right = tuple(i % 4 != 0 for i in range(40))
    predicted = tuple(gold if r else (gold + 1) % 3 for gold, r in zip(comparison.gold, right, strict=True))
    base = replace(comparison.arms[0], predicted=predicted, greedy=(OUTSIDE,) * 40)
    edited = replace(comparison.arms[2], predicted=predicted, greedy=predicted)
    form = replace(comparison, arms=(base, comparison.arms[1], edited))
    assert "form of the answers. It may or may not" in Page(render([form])).texts_of("p")[0]
    assert "contains zero" in Page(render([form], metric="f1")).texts_of("p")[0]
    wrong = tuple((gold + 1) % 3 for gold in comparison.gold)
    few = tuple(gold if i < 12 else answer for i, (gold, answer) in enumerate(zip(form.gold, wrong, strict=True)))
    worse = replace(form, arms=(base, form.arms[1], replace(edited, predicted=few, greedy=few)))
    assert "picks the right one less often" in Page(render([worse])).texts_of("p")[0]
    better = replace(form, arms=(base, form.arms[1], replace(edited, predicted=form.gold, greedy=form.gold)))
    assert Page(render([better])).texts_of("p")[0] == "The edit helped."


def test_measured_costs_replace_the_command_that_would_measure_them():
    costs = [
        Costs("mine", COMPARISONS[0].adapter, "Of 3 other tasks, the score fell in 1.", "On neutral text, 2 nats.")
    ]
    for page in (
        Page(render([COMPARISONS[0]], costs=costs)),
        Page(render([], rewards=[reward_comparison()], costs=costs)),
    ):
        facts = facts_of(page)
        assert facts["elsewhere"] == "Of 3 other tasks, the score fell in 1. On neutral text, 2 nats."
        assert not any("tarot effects" in text for text in page.texts_of("code"))
        assert "Side effects" in page.texts_of("h2")
        assert not any("belong to edits" in text for text in page.texts_of("p"))


def test_the_costs_of_another_adapter_are_not_those_of_the_edit():
    other = Costs("other", "fab0000000000000", "Of 3 other tasks, the score fell in 1.")
    page = Page(render(COMPARISONS[:1], costs=[other]))
    assert facts_of(page)["elsewhere"] == NOT_MEASURED and any(
        "tarot effects" in text for text in page.texts_of("code")
    )
    assert any("belong to edits that this page does not" in text and "other" in text for text in page.texts_of("p"))
    assert "other (not compared on this page): Of 3 other tasks, the score fell in 1." in page.texts_of("p")
    one, two = fabricated(), fabricated(seed=1, adapter="fab0000000000000")
    several = Page(render([one, two], costs=[other]))
    first, *each = [text for term, text in several.facts() if term == "elsewhere"]
    assert first == f"other: {other.tasks} Other tasks: not measured of 1 edit, whose sections have the command."
    assert each == [NOT_MEASURED, "Of 3 other tasks, the score fell in 1."]
    assert sum("tarot effects" in text for text in several.texts_of("code")) == 1


def test_what_tune_measured_on_held_out_text_is_in_the_answer():
    held_out = HeldOut(512, 0.02, 0.016, 0.024, 1.012)
    text = "On text that it was not tuned on, it changes the model by KL 0.020 nats a token [0.016, 0.024], perplexity"
    expected = f"{text} x1.012. Other tasks: not measured."
    measured = fabricated(held_out=held_out)
    page = Page(render([measured]))
    assert facts_of(page)["elsewhere"] == expected
    assert "DIR is the adapter's folder. tarot report ... --analysis effects adds the result to this page." in (
        page.texts_of("p")
    )
    assert facts_of(Page(render([], rewards=[reward_comparison(held_out=held_out)])))["elsewhere"] == expected
    more = fabricated(seed=1, adapter="fab0000000000000", held_out=replace(held_out, kl=0.04))
    first = next(text for term, text in Page(render([measured, more])).facts() if term == "elsewhere")
    assert "2 edits change the model by KL 0.020 to 0.040 nats a token, perplexity x1.012 to 1.012." in first
    tasks = Costs("mine", measured.adapter, "Of 3 other tasks, the score fell in 1.")
    assert facts_of(Page(render([measured], costs=[tasks])))["elsewhere"] == f"{tasks.tasks} {text} x1.012."
