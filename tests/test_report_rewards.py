"""Sections of the page for texts scored by a reward."""

from dataclasses import replace

import numpy as np
import pytest
from fabricated import ALLOWED_TAGS, COMPARISONS, NAMES, Page, render, reward_comparison
from hypothesis import given, settings
from hypothesis import strategies as st

from tarot.evaluation.statistics.formatting import with_interval
from tarot.evaluation.statistics.means import jackknife
from tarot.objectives.rewards.text_metrics import distinct, distinct_without
from tarot.report.rewards import text_table


@settings(max_examples=12)
@given(st.lists(st.text(max_size=300), min_size=6, max_size=6), NAMES, NAMES, NAMES)
def test_texts_are_escaped(texts, model, task, reward):
    prompts, base, edited = texts[:2], texts[2:4], texts[4:]
    compared = reward_comparison(n=2)
    compared = replace(
        compared,
        model=model,
        task=task,
        reward=reward,
        prompts=tuple(prompts),
        base=replace(compared.base, texts=tuple(base), rewards=(0.0, 0.0)),
        edited=replace(compared.edited, texts=tuple(edited), rewards=(1.0, -1.0)),
    )
    page = Page(render([], rewards=[compared]))
    assert {tag for tag, _ in page.elements if not tag.startswith("text of")} <= ALLOWED_TAGS
    assert set(texts) <= set(page.texts_of("div"))
    assert {model, task, reward} <= set(page.texts_of("dd"))


def test_texts_have_a_section_with_or_without_other_comparisons():
    alone, beside = (
        Page(render([], rewards=[reward_comparison()])),
        Page(render(COMPARISONS[:1], rewards=[reward_comparison()])),
    )
    assert alone.texts_of("h2") == ["Texts scored by a reward"]
    assert "the 95% interval of the gain contains zero" in alone.texts_of("p")[0]
    facts = dict(zip(alone.texts_of("dt"), alone.texts_of("dd"), strict=True))
    assert facts["score"].endswith("on 12 held-out documents") and "nats a token" in facts["fluency"]
    assert {"Texts scored by a reward", "Gains", "Arms and documents"} <= set(beside.texts_of("h2"))
    for page in (alone, beside):
        ids = page.values("id")
        assert len(ids) == len(set(ids))
        references = [each for each in page.values("href") if not each.endswith(".csv")]
        assert all(reference == "data:," or reference[1:] in ids for reference in references)
        assert set(" ".join(page.values("aria-labelledby")).split()) <= set(ids)


def test_the_page_says_when_and_where_texts_were_measured():
    page = Page(render([], rewards=[reward_comparison(date="2026-11-27", machine="a machine")]))
    assert "Measured 2026-11-27 on a machine." in page.texts_of("p")
    facts = dict(zip(page.texts_of("dt"), page.texts_of("dd"), strict=True))
    assert (facts["date"], facts["machine"], facts["versions"]) == ("2026-11-27", "a machine", "not recorded")


def test_reward_fluency_and_variety_have_intervals():
    compared = reward_comparison()
    comparisons = [text.replace("\N{MINUS SIGN}", "-") for text in Page(render([], rewards=[compared])).texts_of("td")]
    rows = dict(zip(("base", "edited", "difference"), (comparisons[i : i + 5] for i in (0, 5, 10)), strict=True))
    for name, arm in (("base", compared.base), ("edited", compared.edited)):
        outcome = arm.summary
        values = (outcome.reward, outcome.fluency, outcome.distinct_2, outcome.repetition)
        assert [text.split()[0] for text in rows[name]] == [*(f"{value:.3f}" for value in values), "12"]
        variety = jackknife(distinct(arm.texts), distinct_without(arm.texts))
        assert rows[name][2].endswith(f" [{variety.low:.3f}, {variety.high:.3f}]")
    assert rows["difference"][:2] == [with_interval(compared.gain), with_interval(compared.fluency_gain)]


def test_every_text_is_listed_with_its_rewards():
    compared = reward_comparison()
    base, edited = compared.base, compared.edited
    moved = np.subtract(edited.rewards, base.rewards)
    table = text_table(compared)
    assert {row[:4] for row in table.rows} == {
        (str(i), *texts) for i, texts in enumerate(zip(compared.prompts, base.texts, edited.texts, strict=True))
    }
    for number, *_, before, after, change, fluency, outcome in table.rows:
        row = int(number)
        assert (before, after) == (f"{base.rewards[row]:.3f}", f"{edited.rewards[row]:.3f}")
        assert float(change) == pytest.approx(moved[row], abs=5e-4)
        assert float(fluency) == pytest.approx(edited.fluencies[row] - base.fluencies[row], abs=5e-4)
        assert outcome == ("rose" if moved[row] > 0 else "fell")
    order = [moved[int(row[0])] for row in table.rows]
    fell = sum(moved < 0)
    assert order[:fell] == sorted(order[:fell]) and order[fell:] == sorted(order[fell:], reverse=True)
    page = Page(render([], rewards=[compared]))
    assert page.values("data-outcome") == [row[-1] for row in table.rows]
    assert f"fell ({fell})" in page.texts_of("button") and "same (0)" in page.texts_of("button")


def test_beyond_a_limit_those_whose_reward_changed_most_are_listed(monkeypatch):
    monkeypatch.setattr("tarot.report.page.MOST_DOCUMENTS", 10)
    compared = reward_comparison()
    page = Page(render([], rewards=[compared, replace(compared, seed=1)]))
    assert len(page.values("data-outcome")) == 2 * 5
    moved = np.abs(np.subtract(compared.edited.rewards, compared.base.rewards))
    listed = {int(row[0]) for row in text_table(compared, 5).rows}
    assert listed == set(np.argsort(-moved)[:5].tolist())
    assert sum("those whose reward changed most" in text for text in page.texts_of("p")) == 2


def test_reward_against_fluency_is_drawn_with_and_without_trials():
    page = Page(render([], rewards=[reward_comparison(), reward_comparison(outcomes={}, front=(), seed=1)]))
    assert page.texts_of("title") == [
        "tarot report: made_up_texts with fabricated/model",
        "Reward against fluency",
        "Reward against fluency",
    ]
    first, second = page.texts_of("desc")
    assert "trials that no other exceeds in both: 4, 3, 2, 1, 0" in first and "trials" not in second
    drawn = page.texts_of("text")
    assert (
        drawn.count("identity") == drawn.count("refused trial") == 1 and drawn.count("edited, held-out documents") == 2
    )
