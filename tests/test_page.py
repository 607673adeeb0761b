"""The page shows the results and runs nothing that their texts contain."""

import html
import re
from dataclasses import replace

import matplotlib
import pytest
from fabricated import ALLOWED_TAGS, BARE, COMPARISONS, EVIL, NAMES, Page, all_figures, fabricated, page_of_comparisons
from hypothesis import given, settings
from hypothesis import strategies as st

from tarot.errors import TarotError, UnknownName
from tarot.report.page import render, write_report
from tarot.report.pictures import read_pictures
from tarot.report.svg import write_svg
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
    assert page.texts_of("code") == [task]
    assert {model, task} <= set(page.texts_of("dd"))


def test_elements_are_nested_and_references_are_internal():
    page = Page(page_of_comparisons())
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    for reference in page.values("href"):
        assert reference == "data:," or reference[1:] in ids
    assert set(" ".join(page.values("aria-labelledby")).split()) <= set(ids)
    assert not page.values("src")
    assert {tag for tag, _ in page.elements if not tag.startswith("text of")} <= ALLOWED_TAGS
    assert not [
        name for _, attrs in page.elements if isinstance(attrs, dict) for name in attrs if name.startswith("on")
    ]


def test_no_network_is_used():
    text = page_of_comparisons()
    assert not re.search(r"https?:|//[a-z]|@import|\burl\((?!#)", text)
    assert "default-src 'none'" in text


def test_markup_in_documents_and_names_is_shown_as_text():
    text = page_of_comparisons()
    assert "<script" not in text
    assert "&lt;script&gt;alert(" in text
    page = Page(text)
    assert any(EVIL in text for text in page.texts_of("div"))
    assert any(EVIL in text for text in page.texts_of("h3"))
    assert any("<script>alert(" in text for text in page.texts_of("text"))  # in a figure


def test_the_order_of_comparisons_does_not_change_the_bytes(tmp_path):
    path = write_report(COMPARISONS[::-1], tmp_path / "new" / "folder")
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
    assert page.texts_of("code") == [COMPARISONS[0].command]
    settings = dict(zip(page.texts_of("dt"), page.texts_of("dd"), strict=True))
    assert settings == {
        "model": "fabricated/model",
        "task": "made_up",
        "shots": "0",
        "seed": "0",
        "labelled samples": "20",
        "search": "bo in head, a budget of 30 evaluations, log_probability",
        "adapter": "fab1234567890abc",
        "documents": "40, digest 7c4886fedc077b5d",
        "time": "80 s, 10 times the reference workload",
        "versions": "torch 0.0.fabricated",
    }


def test_changed_documents_are_listed_each_way():
    comparison = COMPARISONS[2]
    base, edited = comparison.arm("few-shot").predicted, comparison.arm("edited").predicted
    gained = [i for i, gold in enumerate(comparison.gold) if base[i] != gold == edited[i]]
    lost = [i for i, gold in enumerate(comparison.gold) if base[i] == gold != edited[i]]
    assert gained and lost
    page = Page(render([comparison], "f1"))
    assert page.texts_of("summary") == [
        f"Wrong with the base, right when edited: {len(gained)}",
        f"Right with the base, wrong when edited: {len(lost)}",
    ]
    shown = [text for text in page.texts_of("div") if text.startswith("Fabricated document")]
    assert shown == [comparison.texts[i] for i in gained + lost]
    i = lost[0]
    assert page.texts_of("p")[-len(lost)] == f"right {comparison.gold[i]}, base {base[i]}, edited {edited[i]}"


def test_an_answer_outside_the_choices_is_named():
    assert "edited none of the choices" in render([COMPARISONS[2]], metric="greedy_f1")


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
    assert gain.startswith("made_up, 0-shot +") and "; mean: few-shot +" in gain
    reaches = "random reaches -1.8 after 4 evaluations; bo reaches -1 after 4 evaluations"
    assert search == f"{reaches}; the identity scores -2"
    assert re.fullmatch("largest: [+]0[.][0-9]{3} radians at layer [014], head [0-4]", angles)


def test_the_forest_names_what_comparisons_differ_by():
    one, other = fabricated(task="a_name_of_some_length", shots=6), fabricated(model="wheel:a-model-of-135m")
    texts = Page(render([one, replace(other, task=one.task)])).texts_of("text")
    assert "a_name_of_some_length, 6-shot, fabricated/model" in texts
    assert "a_name_of_some_length, 0-shot, wheel:a-model-of-135m" in texts
    assert "made_up, 0-shot, seed 1" in Page(render(COMPARISONS[:2])).texts_of("text")


def test_figures_use_the_pages_colours():
    figures = "".join(re.findall("<svg.*?</svg>", page_of_comparisons(), re.DOTALL))
    assert not re.search(r"#[0-9a-f]{6}\b", figures)
    assert {"var(--gain)", "var(--loss)", "var(--muted)", "currentColor"} <= set(
        re.findall(r"(?:fill|stroke): ([^;\"]+)", figures)
    )


def test_control_characters_and_text_direction_are_removed(tmp_path):
    name = "\x1b[2J\x9b\u202e\u2066<script>\u2028"
    page = write_report([fabricated(model=name, n=4)], tmp_path).read_text()
    assert not set(page) & set("\x1b\x9b\u202e\u2066\u2028") and "<script>" not in page


def test_losses_are_marked():
    page = Page(page_of_comparisons())
    losses = [text for row in summary_rows(COMPARISONS)[1] if (text := row[7]).startswith("-")]
    assert losses
    classes = [attrs.get("class") for tag, attrs in page.elements if tag == "td"]
    assert classes.count("negative") >= len(losses)
    assert all(loss.replace("-", "\N{MINUS SIGN}") in page.texts_of("td") for loss in losses)
    assert "below zero in 1," in " ".join(page.texts_of("p")[0].split())


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
    assert not any(tag == "script" for tag, _ in page.elements)
    assert (
        "Mechanism" in page.texts_of("h2")
        and "Side effects" in page.texts_of("h2")
        and "Mechanism" not in Page(render([BARE])).texts_of("h2")
    )


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    page = tmp_path / "file" / "index.html"
    with pytest.raises(TarotError) as error:
        write_report([], tmp_path / "file")
    assert f"{page} cannot be written: File exists" in str(error.value)


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
