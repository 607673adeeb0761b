"""The page shows the results and runs nothing that their texts contain."""

import base64
import csv
import hashlib
import html
import io
import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import matplotlib
import pytest
from fabricated import (
    ALLOWED_TAGS,
    BARE,
    COMPARISONS,
    EVIL,
    NAMES,
    Page,
    all_figures,
    fabricated,
    page_of_comparisons,
    render,
    reward_comparison,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tarot.errors import TarotError, UnknownName
from tarot.evaluation.regression.reference import check_regressions
from tarot.evaluation.results.comparison import OUTSIDE, comparison_names
from tarot.report.data_files import FILES
from tarot.report.document_table import OUTCOMES
from tarot.report.figures.comparison import Interval, forest
from tarot.report.figures.pictures import read_pictures
from tarot.report.figures.svg import without_controls, write_svg
from tarot.report.page import Gate, write_report
from tarot.report.table import summary_rows


@settings(max_examples=12)
@given(st.lists(st.text(max_size=300), min_size=4, max_size=4), NAMES, NAMES, NAMES)
def test_texts_are_escaped(texts, model, task, arm):
    renamed = (*BARE.arms[:3], replace(BARE.arms[3], name=arm + "!"))
    flipped = replace(renamed[2], predicted=BARE.gold)  # all right
    wrong = replace(renamed[0], predicted=tuple((answer + 1) % 3 for answer in BARE.gold))
    comparison = replace(
        BARE, texts=tuple(texts), model=model, task=task, command=task, arms=(wrong, renamed[1], flipped, renamed[3])
    )
    page = Page(render([comparison], "f1"))
    assert {tag for tag, _ in page.elements if not tag.startswith("text of")} <= ALLOWED_TAGS
    shown = page.texts_of("div")
    assert all(text in shown for text in texts)
    assert page.texts_of("code")[1:] == [task, task]
    assert {model, task} <= set(page.texts_of("dd"))


def test_elements_are_nested_and_references_are_internal():
    page = Page(page_of_comparisons())
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    for reference in page.values("href"):
        assert reference == "data:," or reference[1:] in ids or reference.removesuffix(".csv") in FILES
    assert set(" ".join(page.values("aria-labelledby")).split()) <= set(ids)
    assert not page.values("src")
    assert {tag for tag, _ in page.elements if not tag.startswith("text of")} <= ALLOWED_TAGS
    assert [tag for tag, _ in page.elements].count("script") == 1
    assert not [
        name for _, attrs in page.elements if isinstance(attrs, dict) for name in attrs if name.startswith("on")
    ]


def test_no_network_is_used():
    text = page_of_comparisons()
    assert not re.search(r"https?:|//[a-z]|@import|\burl\((?!#)", text)
    assert "default-src 'none'" in text


def test_markup_in_documents_and_names_is_shown_as_text():
    text = page_of_comparisons()
    assert text.count("<script") == 1
    assert "&lt;script&gt;alert(" in text
    page = Page(text)
    assert any(EVIL in text for text in page.texts_of("div"))
    assert any(EVIL in text for text in page.texts_of("h3"))
    assert any("<script>alert(" in text for text in page.texts_of("text"))  # in a figure


def test_the_order_of_comparisons_does_not_change_the_bytes(tmp_path):
    path = write_report(COMPARISONS[::-1], tmp_path / "new" / "folder", gate=Gate())
    assert path == tmp_path / "new" / "folder" / "index.html"
    assert path.read_bytes() == page_of_comparisons().encode()


def test_the_users_matplotlib_settings_do_not_matter():
    with matplotlib.rc_context({"axes.facecolor": "red", "svg.fonttype": "path", "font.size": 30}):
        styled = render([COMPARISONS[0]])
    assert styled == render([COMPARISONS[0]])


def test_a_page_without_results_states_it(tmp_path):
    text = write_report([], tmp_path).read_text()
    assert Page(text).texts_of("p") == ["Nothing was compared."]
    assert "<table" not in text and "<svg" not in text
    assert summary_rows([])[1] == []


def test_a_section_has_everything_to_repeat_the_comparison():
    page = Page(render([COMPARISONS[0]]))
    effects = "tarot effects --model fabricated/model --adapter DIR --output-path effects"
    assert page.texts_of("code") == [effects, COMPARISONS[0].command, COMPARISONS[0].command]
    terms = dict(zip(page.texts_of("dt"), page.texts_of("dd"), strict=True))
    assert "DIR is the adapter's folder. tarot report ... --analysis effects adds the result to this page." in (
        page.texts_of("p")
    )
    settings = dict([*terms.items()][[*terms].index("model") :])
    assert settings == {
        "model": "fabricated/model",
        "task": "made_up",
        "shots": "0",
        "seed": "0",
        "labelled samples": "20",
        "search": "bo in head, a budget of 30 evaluations, log_probability",
        "adapter": "fab1234567890abc",
        "documents": "40, digest 7c4886fedc077b5d",
        "time": "80.0 s; the machine's speed was not recorded",
        "date": "not recorded",
        "machine": "not recorded",
        "versions": "torch 0.0.fabricated",
    }


def test_every_document_is_listed_with_its_answers_in_words():
    choices = ((" red", " green", " blue"),) * 40
    arms = tuple(
        replace(arm, written=tuple("I\\'m" if answer == OUTSIDE else "" for answer in arm.greedy))
        for arm in COMPARISONS[2].arms
    )
    comparison = replace(COMPARISONS[2], choices=choices, arms=arms)
    page = Page(render([comparison]))
    base, edited = comparison.arm("few-shot").greedy, comparison.arm("edited").greedy
    rights = [(b == gold, e == gold) for gold, b, e in zip(comparison.gold, base, edited, strict=True)]
    outcomes = {
        (True, False): "broken",
        (False, True): "fixed",
        (False, False): "wrong both",
        (True, True): "right both",
    }
    expected = Counter(outcomes[right] for right in rights)
    assert Counter(page.values("data-outcome")) == expected
    counted = ", ".join(f"{expected[outcome]} {outcome}" for outcome in OUTCOMES)
    assert any(text.startswith(counted) for text in page.texts_of("p"))
    words = ("red", "green", "blue", "wrote \N{LEFT DOUBLE QUOTATION MARK}I\\'m\N{RIGHT DOUBLE QUOTATION MARK}")
    cells = iter(page.texts_of("bdi"))
    shown = {(text, *(next(cells) for _ in range(3))) for text in documents_of(page)}
    assert shown == {
        (comparison.texts[i], words[comparison.gold[i]], words[base[i]], words[edited[i]]) for i in range(40)
    }


def documents_of(page):
    return [text for text in page.texts_of("div") if re.fullmatch("Fabricated document [0-9]+ of [a-z_]+", text)]


def test_documents_beyond_a_limit_are_listed_if_they_changed(monkeypatch):
    monkeypatch.setattr("tarot.report.document_table.MOST_DOCUMENTS", 39)
    page = Page(render([COMPARISONS[2]]))
    changed = COMPARISONS[2].changed()
    assert len(page.values("data-outcome")) == len(changed.fixed) + len(changed.broken) < 40
    assert "The page lists those that changed" in " ".join(page.texts_of("p"))


def test_tables_say_what_their_metrics_stand_for():
    comparison = COMPARISONS[0]
    worse = replace(comparison, arms=(*comparison.arms[:2], replace(comparison.arms[0], name="edited")))
    page = Page(render([worse], gate=Gate(check_regressions([comparison], [worse], 0.02))))
    legends = [text for text in page.texts_of("p") if "greedy_f1 is the weighted F1 of the greedy answer" in text]
    assert len(legends) == 2  # of the arms and of the gate
    assert any("Gold prob. is the mean probability of the right answer" in text for text in legends)


def test_controls_have_rows_of_their_own():
    page = Page(render(COMPARISONS[:2]))
    headings = page.texts_of("th")
    assert {"base", "edited", "few-shot", "random search"} <= set(headings)
    assert not any(text.startswith("mean: ") for text in headings)
    single = Page(render([COMPARISONS[0]]))
    assert "Summary" not in single.texts_of("h2")  # it would repeat the table of arms
    assert "of its shots" not in render([COMPARISONS[0], COMPARISONS[2]])  # no draws, so no sentence on them


def test_the_policy_allows_this_script_and_no_other():
    text = render([COMPARISONS[0]])
    (script,) = re.findall("<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text
    assert script == without_controls(script)  # or the written page would have another hash
    assert not re.search(r"innerHTML|eval|fetch|https?:", script)


def test_numbers_behind_tables_and_pictures_are_files(tmp_path):
    figures = tmp_path / "figures"
    write_svg(figures / "lens.svg", all_figures()["lens"])
    (figures / "lens.csv").write_text("layer,value\n0,0.5\n")
    limited = fabricated(seed=2, trade_off=((0.0, -2.0), (0.02, -1.0)), max_kl=0.03)
    compared = [*COMPARISONS, limited]
    right, wrong = (
        replace(COMPARISONS[0], arms=(*COMPARISONS[0].arms[:2], _all(COMPARISONS[0], right))) for right in (1, 0)
    )
    (verdict,) = check_regressions([right], [wrong], 0.02)
    gate = Gate([verdict])
    path = write_report(compared, tmp_path, analyses=[figures], rewards=[reward_comparison()], gate=gate)
    links = {name for name in Page(path.read_text()).values("href") if name.endswith(".csv")}
    assert links == {file.name for file in tmp_path.glob("*.csv")}
    assert links == {f"{name}.csv" for name in FILES} | {"figures-1-lens.csv"}
    assert (tmp_path / "figures-1-lens.csv").read_bytes() == (figures / "lens.csv").read_bytes()
    tables = {name: list(csv.DictReader(io.StringIO((tmp_path / name).read_text(encoding="utf-8")))) for name in links}
    n = sum(len(comparison.keys) for comparison in compared)
    assert len(tables["documents.csv"]) == n and len(tables["summary.csv"]) == len(compared)
    (row,) = [row for row in tables["summary.csv"] if row["comparison"] == comparison_names(compared)[2]]
    assert float(row["gain"]) == pytest.approx(COMPARISONS[2].gain().value, rel=1e-5)
    assert len(tables["angles.csv"]) == 15 * len(compared)
    assert [row["text"] for row in tables["lost.csv"]] == [each.text for each in verdict.lost]
    assert len(verdict.lost) == 40
    listed = [text for text in Page(path.read_text()).texts_of("li") if "; now: " in text]
    assert len(listed) == 40 and "The other 37" in Page(path.read_text()).texts_of("summary")
    text_arms = {row["arm"]: row for row in tables["text-arms.csv"]}
    gain = reward_comparison().gain
    assert [*text_arms] == ["base", "edited", "edited minus base"]
    assert [float(text_arms["edited minus base"][f"reward{end}"]) for end in ("", "_low", "_high")] == pytest.approx(
        [gain.value, gain.low, gain.high], rel=1e-5
    )
    write_report(COMPARISONS[:2], tmp_path)
    assert not any((tmp_path / f"{name}.csv").exists() for name in ("gate", "lost", "texts"))  # of the earlier page
    assert {row["busy"] for row in (*tables["summary.csv"], *tables["arms.csv"])} == {"False"}


def _all(comparison, right):
    """Return an edited arm whose answers are all right, or all wrong."""
    answers = tuple(gold if right else (gold + 1) % 3 for gold in comparison.gold)
    return replace(comparison.arm("edited"), predicted=answers, greedy=answers)


def test_the_gate_is_on_the_page():
    comparison = COMPARISONS[0]
    worse = replace(comparison, arms=(*comparison.arms[:2], replace(comparison.arms[0], name="edited")))
    verdicts = check_regressions([comparison], [worse], 0.02)
    page = Page(render([worse], gate=Gate(verdicts, "do this", "The test run failed: 1 of 2 tests.")))
    assert verdicts[0].failed and "The test run failed: 1 of 2 tests." in page.texts_of("p")
    assert any(text.startswith(f"FAILED {comparison.id}: weighted F1") for text in page.texts_of("h3"))
    change = verdicts[0].scores[0]
    assert {f"{change.then:.3f}", f"{change.now:.3f}"} <= set(page.texts_of("td"))
    assert f"Right then and wrong now: {len(verdicts[0].lost)}" in page.texts_of("summary")
    assert "To accept an intended change: do this." in page.texts_of("p")


def test_figures_have_titles_and_descriptions():
    page = Page(render([COMPARISONS[0]]))
    roles = [attrs.get("role") for tag, attrs in page.elements if tag == "svg"]
    assert roles == ["img"] * 3
    assert page.texts_of("title") == [
        "tarot report: made_up with fabricated/model",
        "Gains with their intervals",
        "Best score so far of each search",
        "Root-mean-square angle of each head, layer by layer",
    ]
    gain, search, angles = page.texts_of("desc")
    assert gain.startswith("edited +") and "; few-shot +" in gain
    reaches = "random reaches -1.8 after 4 evaluations; bo reaches -1 after 4 evaluations"
    assert search == f"{reaches}; the identity scores -2"
    assert re.fullmatch("largest: [+]0[.][0-9]{3} radians at layer [014], head [0-4]", angles)


def test_the_forest_names_what_comparisons_differ_by():
    one, other = fabricated(task="a_name_of_some_length", shots=6), fabricated(model="wheel:a-model-of-135m")
    texts = Page(render([one, replace(other, task=one.task)])).texts_of("text")
    assert "a_name_of_some_length, 6-shot, fabricated/model" in texts
    assert "a_name_of_some_length, 0-shot, wheel:a-model-of-135m" in texts
    assert "made_up, 0-shot, seed 1" in Page(render(COMPARISONS[:2])).texts_of("text")


def test_lines_of_the_forest_do_not_overlap():
    """Means need not come last: a search with one comparison has none."""
    labels = [Interval(f"line {i}", 0.1, 0.0, 0.2, is_mean=i in (1, 2)) for i in range(5)]
    heights = [float(y) for y in re.findall(r'<text[^>]* y="([0-9.]+)"[^>]*>line', forest(labels, "gain"))]
    gaps = [after - before for before, after in pairwise(heights)]
    assert len(gaps) == 4 and min(gaps) > 0.9 * max(gaps) / 1.5


def test_figures_use_the_pages_colours():
    figures = "".join(re.findall("<svg.*?</svg>", page_of_comparisons(), re.DOTALL))
    assert not re.search(r"#[0-9a-f]{6}\b", figures)
    assert {"var(--gain)", "var(--loss)", "var(--muted)", "currentColor"} <= set(
        re.findall(r"(?:fill|stroke): ([^;\"]+)", figures)
    )


def test_control_characters_and_text_direction_are_removed(tmp_path):
    name = "\x1b[2J\x9b\u202e\u2066<script>\u2028"
    page = write_report([fabricated(model=name, n=4)], tmp_path).read_text()
    assert not set(page) & set("\x1b\x9b\u202e\u2066\u2028") and page.count("<script>") == 1


def test_losses_are_marked():
    page = Page(page_of_comparisons())
    losses = [text for row in summary_rows(COMPARISONS)[1] if (text := row[7]).startswith("-")]
    assert losses
    classes = [attrs.get("class") for tag, attrs in page.elements if tag == "td"]
    assert classes.count("negative") >= len(losses)
    assert all(loss.replace("-", "\N{MINUS SIGN}") in page.texts_of("td") for loss in losses)
    assert any("below zero in 1," in text for text in page.texts_of("dd"))


def test_several_seeds_have_a_table():
    assert 'id="seeds"' in page_of_comparisons()
    assert 'id="seeds"' not in render(COMPARISONS[1:])


def test_figures_of_an_analysis_are_images(tmp_path):
    for name, figure in all_figures().items():
        write_svg(tmp_path / f"{name}.svg", figure)
    evil = f"<svg><title>{html.escape(EVIL)}</title><script>alert(1)</script></svg>"
    (tmp_path / "evil.svg").write_text(evil, encoding="utf-8")
    shown = read_pictures(tmp_path)
    assert [picture.name for picture in shown] == [
        "attention",
        "effects",
        "evil",
        "flips",
        "layers",
        "lens",
        "tradeoff",
    ]
    page = Page(render([BARE], analyses=[shown]))
    images = [attrs for tag, attrs in page.elements if tag == "img"]
    assert len(images) == 7 and all(image["src"].startswith("data:image/svg+xml;base64,") for image in images)
    assert images[3]["alt"].startswith(EVIL)
    assert images[6]["alt"].startswith("The answer's probability after each layer, edited minus base: mean over 9")
    assert [tag for tag, _ in page.elements].count("script") == 1
    assert (
        "Mechanism" in page.texts_of("h2")
        and "Side effects" in page.texts_of("h2")
        and "Mechanism" not in Page(render([BARE])).texts_of("h2")
    )


def test_figures_bring_the_file_of_their_numbers(tmp_path):
    for name in ("heads-alone", "heads-missed"):
        write_svg(tmp_path / "figures" / f"{name}.svg", all_figures()["layers"])
    (tmp_path / "figures" / "heads.csv").write_text("layer,head\n")
    write_report([BARE], tmp_path / "page", analyses=[tmp_path / "figures"])
    (kept,) = (tmp_path / "page").glob("figures-*.csv")
    assert kept.read_text() == "layer,head\n" and kept.name in (tmp_path / "page" / "index.html").read_text()
    write_report([BARE], tmp_path / "page")
    assert not kept.exists()


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    page = tmp_path / "file" / "index.html"
    with pytest.raises(TarotError) as error:
        write_report([], tmp_path / "file")
    assert f"{page} cannot be written: " in str(error.value)


def test_a_failed_report_leaves_the_old_one(tmp_path):
    folder = tmp_path / "report"
    (folder / "index.html").mkdir(parents=True)
    with pytest.raises(TarotError, match="directory"):
        write_report([], folder)
    assert [path.name for path in folder.iterdir()] == ["index.html"]


def test_unknown_metrics_and_missing_arms_are_rejected(tmp_path):
    with pytest.raises(UnknownName, match="f2"):
        write_report(COMPARISONS, tmp_path, metric="f2")
    with pytest.raises(TarotError, match="zero-shot"):
        write_report([replace(BARE, arms=BARE.arms[2:3])], tmp_path)
    assert list(tmp_path.iterdir()) == []
