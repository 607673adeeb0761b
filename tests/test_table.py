"""Rows of the summary and of the arms."""

from dataclasses import replace

import numpy as np
import pytest
from fabricated import BARE, COMPARISONS, EVIL, Page, fabricated, render

from tarot.evaluation.cost.speed import BUSY_NOTE
from tarot.evaluation.results.html_table import comparison_to_html
from tarot.evaluation.results.metrics import METRICS
from tarot.evaluation.results.notes import EACH_ALONE, arm_notes
from tarot.evaluation.results.scored_comparison import group_by_setting, mean_gain, score_comparisons
from tarot.evaluation.statistics.formatting import with_interval
from tarot.evaluation.statistics.gains import accuracy_gain, f1_gain, weighted_f1
from tarot.evaluation.statistics.seeds import mean_over_seeds
from tarot.evaluation.statistics.significance import holm
from tarot.report.costs import cost_note
from tarot.report.table import (
    ARM_HEADER,
    arm_mean_rows,
    arm_means,
    arm_rows,
    other_arm_rows,
    summary_rows,
)


def test_comparisons_come_in_order_before_the_means():
    header, rows = summary_rows(COMPARISONS)
    assert header[:8] == ("model", "task", "shots", "seed", "base", "few-shot", "edited", "gain")
    assert all(len(row) == len(header) for row in rows)
    assert [row[:4] for row in rows] == [
        (f"fabricated/{EVIL}", "other", "0", "0"),
        ("fabricated/model", "made_up", "0", "0"),
        ("fabricated/model", "made_up", "0", "1"),
        ("fabricated/model", "made_up", "6", "0"),
        ("mean", "", "", "of 4"),
    ]


def test_searches_are_labelled_and_have_means_of_their_own():
    searches = [("adam", "full"), ("bo", "head"), ("bo", "full")]
    comparisons = [
        fabricated(search=a, space=b, seed=seed, adapter=f"{a}{b}{seed}") for a, b in searches for seed in (0, 1)
    ]
    comparisons.append(replace(comparisons[0], adapter="another"))
    header, rows = summary_rows(comparisons)
    assert header[:6] == ("model", "task", "shots", "seed", "search", "base")
    assert sorted((row[3], row[4]) for row in rows if row[0] != "mean") == [
        ("0", "adam, in full, adapter adamfull0"),
        ("0", "adam, in full, adapter another"),
        ("0", "bo, in full"),
        ("0", "bo, in head"),
        ("1", "adam, in full"),
        ("1", "bo, in full"),
        ("1", "bo, in head"),
    ]
    means = [(row[3], row[4]) for row in rows if row[0] == "mean"]
    assert sorted(means) == [("of 2", "bo, in full"), ("of 2", "bo, in head"), ("of 3", "adam, in full")]
    page = Page(render(comparisons))
    headings = page.texts_of("h3")
    assert len(set(headings)) == len(comparisons) and any(name.endswith("seed 1, bo, in head") for name in headings)
    drawn = page.texts_of("text")
    assert {"made_up, 0-shot, seed 1, bo, in head", "mean: edited, bo, in head"} <= set(drawn)


@pytest.mark.parametrize("metric", METRICS)
def test_a_row_shows_scores_and_gain(metric):
    comparison = COMPARISONS[2]
    gain_of = accuracy_gain if metric.endswith("acc") else f1_gain

    def answers(name):
        return comparison.arm(name).greedy if metric.startswith("greedy") else comparison.arm(name).predicted

    gain = gain_of(comparison.gold, answers("few-shot"), answers("edited"))
    header, rows = summary_rows([comparison], metric)
    row = dict(zip(header, rows[0], strict=True))
    assert gain.value < 0
    assert row["gain"] == row["over few-shot"] == f"{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"
    assert float(row["edited"]) - float(row["base"]) == pytest.approx(gain.value, abs=0.0011)
    assert (row["base"], row["documents"], row["labels"], row["seconds"]) == (row["few-shot"], "40", "6/6/26", "80")


def test_the_base_is_the_unedited_model_under_the_same_prompts():
    for scored in score_comparisons(COMPARISONS, "f1"):
        comparison = scored.comparison
        assert scored.base == ("few-shot" if comparison.num_fewshot else "zero-shot")
        assert scored.scores["edited"] == weighted_f1(comparison.gold, comparison.arm("edited").predicted)
        base, few_shot, edited = (comparison.arm(name).predicted for name in (scored.base, "few-shot", "edited"))
        assert scored.gains["edited"] == f1_gain(comparison.gold, base, edited)
        assert scored.over_few_shot == f1_gain(comparison.gold, few_shot, edited)


@pytest.mark.parametrize("metric", METRICS)
def test_every_table_of_arms_shows_the_edit_against_each_other_arm(metric):
    """An interval of each arm's gain over the base does not tell whether the edit beats that arm."""
    for scored in score_comparisons(COMPARISONS, metric):
        comparison = scored.comparison
        assert "edited" not in scored.edited_over
        for arm in comparison.arms:
            if arm.name != "edited":
                assert scored.edited_over[arm.name] == comparison.gain(metric, over=arm.name)
        rows = {name: with_interval(over) for name, over in scored.edited_over.items()}
        assert {scored.base: rows[scored.base], **dict(other_arm_rows(scored))} == rows
        shown = {text.replace("-", "\N{MINUS SIGN}") for text in rows.values()}
        page = Page(render([comparison], metric))
        assert "edited minus it" in page.texts_of("th") and shown <= set(page.texts_of("td"))
    scored, *_ = score_comparisons(COMPARISONS)
    html, card = comparison_to_html(scored.comparison), scored.comparison.to_measurement()
    for name, over in scored.edited_over.items():
        assert f"<td>{with_interval(over)}</td>" in html
        assert card.differences[name] == (over.value, over.low, over.high)


def test_the_intervals_of_many_arms_are_not_called_corrected():
    assert arm_notes(COMPARISONS[0]) == [EACH_ALONE]
    assert any(EACH_ALONE in text for text in Page(render(COMPARISONS[:1])).texts_of("p"))
    assert arm_notes(replace(BARE, arms=(BARE.arms[0], BARE.arms[2]))) == []
    assert "p" not in ARM_HEADER


@pytest.mark.parametrize("name", ["few-shot calibrated", "batch-calibration"])
def test_a_table_says_which_arms_answer_among_the_choices_only(name):
    comparison = replace(BARE, arms=(*BARE.arms[:3], replace(BARE.arms[3], name=name)))
    for metric in METRICS:
        assert any(name in note for note in arm_notes(comparison, metric)) == metric.startswith("greedy")
    assert any(f"one of the choices ({name})" in text for text in Page(render([comparison])).texts_of("p"))
    assert f"one of the choices ({name})" in comparison_to_html(comparison)


def test_a_mean_counts_each_setting_once():
    scored_comparisons = score_comparisons(COMPARISONS)
    means = [
        mean_over_seeds([scored.gains["random search"] for scored in group]).value
        for group in group_by_setting(scored_comparisons)
    ]
    assert len(means) == 3
    (arm,) = [arm for arm in arm_means(scored_comparisons) if arm.name == "random search"]
    assert arm.gain.value == pytest.approx(np.mean(means)) and (arm.n, arm.n_total) == (4, 4)


def test_the_mean_of_the_base_is_of_the_base_of_each_comparison():
    scored_comparisons = score_comparisons(COMPARISONS)
    base, edited, *_ = arm_means(scored_comparisons)
    by_setting = group_by_setting(scored_comparisons)
    assert base.score == pytest.approx(np.mean([np.mean([s.scores[s.base] for s in group]) for group in by_setting]))
    assert (base.name, base.gain, edited.name) == ("base", None, "edited")
    assert edited.score - base.score == pytest.approx(edited.gain.value)
    assert arm_mean_rows([base])[0][2] == "-"


def test_repeated_comparisons_and_other_edits_are_no_further_seeds():
    """A repeated comparison counts once; another edit and other documents do not narrow an interval over seeds."""
    seeds = [fabricated(seed=0), fabricated(seed=1)]
    once = mean_gain(score_comparisons(seeds), lambda scored: scored.gain)
    assert mean_gain(score_comparisons(seeds * 3), lambda scored: scored.gain) == once
    timed = [replace(comparison, seconds=1.0) for comparison in seeds]
    assert mean_gain(score_comparisons(seeds + timed), lambda scored: scored.gain) == once
    others = [fabricated(seed=0, adapter="another"), fabricated(seed=0, n=20), fabricated(seed=0, layers=(1,))]
    others.append(fabricated(seed=2, max_kl=0.01))  # the others have no limit
    groups = group_by_setting(score_comparisons([*seeds, *others]))
    assert sorted(len(group) for group in groups) == [1, 1, 1, 1, 2]
    assert all(len({scored.comparison.seed for scored in group}) == len(group) for group in groups)


DRAWN = fabricated(draws=5)


def test_draws_of_shots_have_a_mean_a_best_and_a_worst():
    (scored,) = score_comparisons([DRAWN])
    base = DRAWN.arm("zero-shot").greedy
    of_draws = [f1_gain(DRAWN.gold, base, draw.greedy) for draw in DRAWN.draws]
    name = "few-shot, mean of 5 draws"
    assert scored.gains[name] == mean_over_seeds(of_draws)
    assert scored.gains[name].value == pytest.approx(np.mean([gain.value for gain in of_draws]))
    assert scored.scores[name] == pytest.approx(np.mean([weighted_f1(DRAWN.gold, draw.greedy) for draw in DRAWN.draws]))
    edited = DRAWN.arm("edited").greedy
    assert scored.over_draws == mean_over_seeds([f1_gain(DRAWN.gold, d.greedy, edited) for d in DRAWN.draws])
    rows = {row[0]: dict(zip(ARM_HEADER, row, strict=True)) for row in arm_rows(scored)}
    assert [*rows][4:] == [name, *(draw.name for draw in DRAWN.draws)]
    assert rows[name]["labels"] == "6" and dict(other_arm_rows(scored))[name] == with_interval(scored.over_draws)
    best, worst = (float(rows[f"few-shot {rank}"]["score"]) for rank in ("1 of 5 (best)", "5 of 5 (worst)"))
    assert worst <= float(rows[name]["score"]) <= best
    assert len(summary_rows([DRAWN])[1]) == 1
    assert [arm.name for arm in arm_means([scored])] == [
        *("base", "edited", "few-shot", "random search", name),
        *("few-shot 1 of 5 (best)", "few-shot 5 of 5 (worst)"),  # those between them are in the mean
    ]
    page = Page(render([DRAWN]))
    assert {name, "few-shot 3 of 5"} <= set(page.texts_of("th"))


def test_the_interval_of_a_mean_over_draws_includes_their_spread():
    same = replace(DRAWN, arms=tuple(replace(arm, greedy=DRAWN.draws[0].greedy) for arm in DRAWN.arms))
    one = f1_gain(same.gold, same.arm("zero-shot").greedy, same.draws[0].greedy)
    name = "few-shot, mean of 5 draws"
    agreeing = score_comparisons([same])[0].gains[name]
    assert (agreeing.low, agreeing.high) == pytest.approx((one.low, one.high))
    spread = score_comparisons([DRAWN])[0].gains[name]
    within = np.sqrt(np.mean([f1_gain(DRAWN.gold, DRAWN.arms[0].greedy, d.greedy).error ** 2 for d in DRAWN.draws]))
    assert spread.between > 0 and spread.error > within


def test_a_single_draw_has_no_mean():
    (scored,) = score_comparisons([fabricated(draws=1)])
    assert scored.over_draws is None and not any("mean" in name for name in scored.scores)


def test_p_is_corrected_for_the_number_of_comparisons():
    p_values = [scored.gains["edited"].p for scored in score_comparisons(COMPARISONS)]
    header, rows = summary_rows(COMPARISONS)
    for p, row in zip(holm(p_values), rows, strict=False):
        assert row[header.index("p")] == ("<0.001" if p < 0.001 else f"{p:.3f}")


def test_the_seconds_of_a_busy_machine_are_marked():
    busy = fabricated(seed=1, reference_times=(1.0, 2.0))
    header, rows = summary_rows([fabricated(reference_times=(1.0, 1.1)), busy])
    assert [row[header.index("seconds")] for row in rows] == ["80", "81 (busy)", "80 (busy)"]  # the last is the mean
    assert cost_note(busy) == BUSY_NOTE and cost_note(fabricated()) == ""
    cells = Page(render([fabricated(), busy])).texts_of("td")
    assert "81 (busy)" in cells and "80" in cells
    assert sum(BUSY_NOTE in text for text in Page(render([busy])).texts_of("p")) == 1


def test_a_missing_arm_leaves_its_column_empty():
    comparison = replace(BARE, arms=(BARE.arms[0], BARE.arms[2]))
    header, rows = summary_rows([comparison])
    row = dict(zip(header, rows[0], strict=True))
    assert (row["few-shot"], row["over few-shot"], row["labels"]) == ("-", "-", "0/-/20")
    assert len(rows) == 1
