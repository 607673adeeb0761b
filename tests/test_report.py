"""The report: it says what the cells say, runs nothing that their texts hold, and a browser shows it.

Every cell here is fabricated.
"""

import csv
import functools
import html
import http.server
import json
import math
import re
import shutil
import subprocess
import threading
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tarot.errors import TarotError, UnknownName
from tarot.evaluation.metrics import METRICS
from tarot.evaluation.results import OUTSIDE, Arm, Comparison
from tarot.evaluation.reward_results import RewardComparison
from tarot.evaluation.scored_comparison import group_by_setting, mean_gain, score_comparisons
from tarot.evaluation.statistics.gains import accuracy_gain, f1_gain, weighted_f1
from tarot.evaluation.statistics.means import Mean, difference, jackknife
from tarot.evaluation.statistics.seeds import mean_over_seeds
from tarot.evaluation.statistics.significance import holm
from tarot.objectives.text_metrics import distinct, distinct_without
from tarot.objectives.text_scores import ScoredTexts, TextScores
from tarot.report import mechanism
from tarot.report.figures import angle_map, curves, so_far
from tarot.report.folder import DARK, LIGHT, pictures, standalone, write_csv, write_svg
from tarot.report.page import render, write_report
from tarot.report.table import ARM_HEADER, arm_rows, summary_rows, with_interval

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
EVIL = "<script>alert('fabricated')</script> & \"quoted\" $\\alpha$ 漢字"


def fabricated(task="made_up", shots=0, seed=0, edited_right=0.7, n=40, draws=0, **fields):
    """A cell whose arms answer right as often as they are told to; `draws` more of them few-shot prompts."""
    generator = np.random.default_rng([seed, shots, len(task)])
    gold = generator.integers(0, 3, n)

    def arm(name, labels, right):
        greedy = np.where(generator.random(n) < right, gold, generator.integers(OUTSIDE, 3, n))
        probabilities = generator.random(n).round(3).tolist()
        return Arm(name, labels, tuple(greedy.clip(0).tolist()), tuple(greedy.tolist()), tuple(probabilities), 1.5)

    arms = (
        arm("zero-shot", 0, 0.3),
        arm("few-shot", shots or 6, 0.4),
        arm("edited", 20 + shots, edited_right),
        arm("random search", 20 + shots, 0.35),
    )
    if draws:
        tried = [arm("", shots or 6, 0.2 + 0.3 * generator.random()) for _ in range(draws)]
        ranked = sorted(tried, key=lambda arm: -np.mean(np.equal(arm.greedy, gold)))
        words = {1: " (best)", draws: " (worst)"}
        arms += tuple(
            replace(arm, name=f"few-shot {i} of {draws}{words.get(i, '')}", draw=i) for i, arm in enumerate(ranked, 1)
        )
    comparison = Comparison(
        model="fabricated/model",
        task=task,
        num_fewshot=shots,
        seed=seed,
        samples=20,
        budget=30,
        search="bo",
        space="head",
        objective="log_probability",
        command=f"tarot tune --model fabricated/model --task {task} --seed {seed}",
        keys=tuple(f"{task}{i}" for i in range(n)),
        gold=tuple(gold.tolist()),
        texts=tuple(f"Fabricated document {i} of {task}" for i in range(n)),
        arms=arms,
        seconds=80.0 + seed,
        reference_seconds=8.0,
        adapter="fab1234567890abc",
        layers=(0, 1, 4),
        head_angles=tuple(tuple(row) for row in generator.normal(0, 0.3, (3, 5)).round(3).tolist()),
        curves={"bo": (-2.0, -1.5, -1.7, -1.0), "random": (-2.0, -2.2, -1.9, -1.8)},
        versions={"torch": "0.0.fabricated"},
    )
    return replace(comparison, **fields)


CELLS = [
    fabricated(seed=0),
    fabricated(seed=1, draws=5),
    fabricated(shots=6, seed=0, edited_right=0.1),
    fabricated(
        task="other",
        model=f"fabricated/{EVIL}",
        texts=tuple(f"{EVIL} {i} " + "long " * 60 * (i % 2) for i in range(40)),
    ),
]


def rewarded(n=12, lift=0.3, **fields):
    """A fabricated comparison of texts: every third is worth less after the edit."""
    generator = np.random.default_rng(n)

    def arm(word, shift):
        texts = tuple(f"{word} text {i} said {word} " + EVIL * (i == 2) for i in range(n))
        rewards = tuple(generator.normal(shift, 0.1, n).round(3) - np.arange(n) % 3 // 2 * 4 * shift)
        return ScoredTexts(texts, rewards, tuple(generator.normal(-2, 0.3, n).round(3).tolist()))

    base, edited = arm("before", 0.0), arm("after", lift)
    outcomes = {i: TextScores(0.1 * i, -1.0 - 0.1 * i**2, 0.5, 0.1, refused=i == 4) for i in range(5)}
    compared = RewardComparison(
        model="fabricated/model",
        task="made_up_texts",
        reward="sentiment:positive",
        seed=0,
        adapter="fab1234567890abc",
        prompts=tuple(f"Fabricated opening {i} {EVIL * (i == 2)}" for i in range(n)),
        base=base,
        edited=edited,
        gain=difference(base.rewards, edited.rewards),
        fluency_gain=difference(base.fluencies, edited.fluencies),
        outcomes=outcomes,
        front=(4, 3, 2, 1, 0),
        command="tarot tune --model fabricated/model --task made_up_texts",
    )
    return replace(compared, **fields)


def test_another_edit_of_a_seed_is_no_further_seed():
    """What is given twice counts once, and neither another edit nor other documents narrow an interval over seeds."""
    seeds = [fabricated(seed=0), fabricated(seed=1)]
    once = mean_gain(score_comparisons(seeds), lambda scored: scored.gain)
    assert mean_gain(score_comparisons(seeds * 3), lambda scored: scored.gain) == once
    timed = [replace(comparison, seconds=1.0) for comparison in seeds]
    assert mean_gain(score_comparisons(seeds + timed), lambda scored: scored.gain) == once
    others = [fabricated(seed=0, adapter="another"), fabricated(seed=0, n=20), fabricated(seed=0, layers=(1,))]
    groups = group_by_setting(score_comparisons([*seeds, *others]))
    assert sorted(len(group) for group in groups) == [1, 1, 1, 2]
    assert all(len({scored.comparison.seed for scored in group}) == len(group) for group in groups)


BARE = fabricated(n=4, curves={}, head_angles=(), layers=())


@functools.cache
def page_of_cells():
    return render(CELLS)


class Page(HTMLParser):
    """Elements of a page, and whether they are nested well."""

    VOID = frozenset({"meta", "link", "br", "img"})

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
            self.texts.append([])

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.elements.append((f"text of {tag}", "".join(self.texts.pop())))

    def handle_data(self, data):
        for texts in self.texts:
            texts.append(data)

    def values(self, attribute):
        return [attrs[attribute] for _, attrs in self.elements if isinstance(attrs, dict) and attribute in attrs]

    def texts_of(self, tag):
        return [text for name, text in self.elements if name == f"text of {tag}"]


# What a page may hold

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@settings(max_examples=12)
@given(st.lists(st.text(max_size=300), min_size=4, max_size=4), names, names, names)
def test_whatever_texts_say_stays_text(texts, model, task, arm):
    renamed = (*BARE.arms[:3], replace(BARE.arms[3], name=arm + "!"))
    flipped = replace(renamed[2], predicted=BARE.gold)  # all right
    wrong = replace(renamed[0], predicted=tuple((answer + 1) % 3 for answer in BARE.gold))
    comparison = replace(
        BARE, texts=tuple(texts), model=model, task=task, command=task, arms=(wrong, renamed[1], flipped, renamed[3])
    )
    page = Page(render([comparison], "f1"))
    assert {tag for tag, _ in page.elements if not tag.startswith("text of")} <= ALLOWED
    shown = page.texts_of("div")
    assert all(text in shown for text in texts)
    assert page.texts_of("code") == [task]
    assert {model, task} <= set(page.texts_of("dd"))


ALLOWED = frozenset(
    {"html", "head", "meta", "link", "title", "style", "body", "header", "nav", "main", "section", "article"}
    | {"h1", "h2", "h3", "h4", "p", "br", "span", "a", "ul", "ol", "li", "dl", "dt", "dd", "pre", "code", "div"}
    | {"details", "summary", "table", "thead", "tbody", "tr", "th", "td", "figure", "figcaption"}
    | {"svg", "desc", "g", "defs", "path", "use", "text", "clippath", "rect"}
)


def test_the_page_is_nested_well_and_every_reference_is_inside_it():
    page = Page(page_of_cells())
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    for reference in page.values("href"):
        assert reference == "data:," or reference[1:] in ids
    assert set(" ".join(page.values("aria-labelledby")).split()) <= set(ids)
    assert not page.values("src")
    assert {tag for tag, _ in page.elements if not tag.startswith("text of")} <= ALLOWED
    assert not [
        name for _, attrs in page.elements if isinstance(attrs, dict) for name in attrs if name.startswith("on")
    ]


def test_nothing_is_asked_of_a_network():
    text = page_of_cells()
    assert not re.search(r"https?:|//[a-z]|@import|\burl\((?!#)", text)
    assert "default-src 'none'" in text


def test_markup_in_a_document_and_in_a_name_is_shown_as_text():
    text = page_of_cells()
    assert "<script" not in text
    assert "&lt;script&gt;alert(" in text
    page = Page(text)
    assert any(EVIL in text for text in page.texts_of("div"))
    assert any(EVIL in text for text in page.texts_of("h3"))
    assert any("<script>alert(" in text for text in page.texts_of("text"))  # in a figure


def test_the_same_cells_give_the_same_bytes_in_any_order(tmp_path):
    path = write_report(CELLS[::-1], tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "index.html"
    assert path.read_bytes() == page_of_cells().encode()


def test_settings_of_the_users_matplotlib_do_not_show():
    with matplotlib.rc_context({"axes.facecolor": "red", "svg.fonttype": "path", "font.size": 30}):
        styled = render([CELLS[0]])
    assert styled == render([CELLS[0]])


def test_no_cell_is_said_so(tmp_path):
    text = write_report([], tmp_path).read_text()
    assert Page(text).texts_of("p") == ["No cell was measured."]
    assert "<table" not in text and "<svg" not in text
    assert summary_rows([])[1] == []


def test_everything_needed_to_repeat_a_cell_stands_there():
    page = Page(render([CELLS[0]]))
    assert page.texts_of("code") == [CELLS[0].command]
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


def test_the_documents_that_flipped_are_there_each_way():
    comparison = CELLS[2]
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


def test_an_answer_outside_the_choices_is_called_that():
    assert "edited none of the choices" in render([CELLS[2]], metric="greedy_f1")


# Figures


def test_figures_have_titles_and_describe_what_they_show():
    page = Page(render([CELLS[0]]))
    roles = [attrs.get("role") for tag, attrs in page.elements if tag == "svg"]
    assert roles == ["img"] * 3
    assert page.texts_of("title") == [
        "tarot report",
        "Gains with their intervals",
        "Best score so far of each search",
        "Mean angle of each head, layer by layer",
    ]
    gain, search, angles = page.texts_of("desc")
    assert gain.startswith("mean: edited +")
    reaches = "random reaches -1.8 after 4 evaluations; bo reaches -1 after 4 evaluations"
    assert search == f"{reaches}; the identity scores -2"
    assert re.fullmatch("largest: [+\N{MINUS SIGN}]0[.][0-9]{3} radians at layer [014], head [0-4]", angles)


def test_a_forest_names_what_its_cells_differ_by():
    one, other = fabricated(task="a_name_of_some_length", shots=6), fabricated(model="wheel:a-model-of-135m")
    texts = Page(render([one, replace(other, task=one.task)])).texts_of("text")
    assert "a_name_of_some_length, 6-shot, fabricated/model" in texts
    assert "a_name_of_some_length, 0-shot, wheel:a-model-of-135m" in texts
    assert "made_up, 0-shot, seed 1" in Page(render(CELLS[:2])).texts_of("text")


def test_colours_are_the_pages():
    figures = "".join(re.findall("<svg.*?</svg>", page_of_cells(), re.DOTALL))
    assert not re.search(r"#[0-9a-f]{6}\b", figures)
    assert {"var(--gain)", "var(--loss)", "var(--muted)", "currentColor"} <= set(
        re.findall(r"(?:fill|stroke): ([^;\"]+)", figures)
    )


@given(st.lists(st.floats() | st.none(), max_size=20))
def test_the_best_so_far_is_the_largest_finite_score_up_to_there(scores):
    for i, best in enumerate(so_far(scores)):
        finite = [score for score in scores[: i + 1] if score is not None and np.isfinite(score)]
        assert best == max(finite) if finite else np.isnan(best)


def test_figures_of_little_are_drawn():
    assert "all are zero: the identity" in angle_map("zero", [[0.0, 0.0]], [3])
    assert "<svg" in angle_map("ragged", [[0.1], [0.2, -0.3, 0.0]], [3, 4])
    assert "reaches nan" in curves("failed", {"bo": (float("nan"),)}, "bo", "probability")
    assert "<svg" in curves("none", {"bo": ()}, "bo", "probability")
    assert "<svg" in mechanism.by_layer("one", [0.1], [0.2], [Mean(0.1, -math.inf, math.inf)], [0], 1)


# Figures that stand alone


def mechanism_figures():
    gain = accuracy_gain([0] * 9, [0] * 5 + [1] * 4, [0] * 8 + [1])
    half = np.tri(4) / np.arange(1, 5)[:, None]
    means = [Mean(0.1 * i, 0.1 * i - 0.05, 0.1 * i + 0.05) for i in range(4)]
    probabilities = ([0.1] * 4, [0.1 + 0.1 * i for i in range(4)])
    return {
        "lens": mechanism.by_layer("lens", *probabilities, means, [0, 1], 9),
        "attention": mechanism.heat_maps("attention", [(f"layer {i}", half, half) for i in range(5)]),
        "flips": mechanism.moved_tokens("flips", [("yes\n\x00", -9.0, -0.5, 3), (EVIL, -1.0, -7.5, 1)], 3),
        "effects": mechanism.effect_matrix("effects", {"a": {"t_1": gain}, "b": {"t_1": gain}}, {"a": "t_1"}),
        "layers": mechanism.layers_alone_and_missed("layers", [4, 6], [(0.1, 0.2), (-0.1, 0.0)], "sentiment"),
        "tradeoff": mechanism.trade_off("tradeoff", {"a": [(0.0, gain, Mean(0, 0, 0)), (1.0, gain, Mean(0.1, 0, 1))]}),
    }


def test_a_figure_stands_alone_in_light_and_dark():
    for figure in mechanism_figures().values():
        text = standalone(figure)
        root = ElementTree.fromstring(text)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert root.find("{*}title").text and root.find("{*}desc").text
        assert "var(" not in text and "currentColor" not in text
        assert "prefers-color-scheme: dark" in text and DARK["gain"] in text
        assert not re.search("#00000[1-5]", text)
        assert "mathdefault" not in text  # TeX, which nothing parses


def test_figures_of_the_mechanism_say_what_they_show():
    described = {name: Page(str(figure)).texts_of("desc")[0] for name, figure in mechanism_figures().items()}
    assert described["lens"] == (
        "mean over 9 documents; after the last layer +0.300, from +0.250 to +0.350; the largest change is after layer 3"
    )
    assert "“yes\\n\\x00” from \N{MINUS SIGN}9.00 to \N{MINUS SIGN}0.50" in described["flips"]
    assert described["effects"] == "a on t_1 +0.333; b on t_1 +0.333"
    assert described["tradeoff"] == "a at 0: gain +0.333, KL 0.000; a at 1: gain +0.333, KL 0.100"
    assert described["attention"].count("layer") == 5
    assert described["layers"].startswith("layer 4: alone +0.100, missed +0.200; layer 6: alone")


def test_a_figure_alone_has_the_pages_colours():
    page = render([])
    light, dark = re.findall(r":root \{(.*?)\}", page, re.DOTALL)
    for block, colours in ((light, LIGHT), (dark, DARK)):
        assert {name: re.search(rf"--{name}: (#\w+);", block)[1] for name in colours} == colours


def test_an_analysis_is_shown_as_images_and_does_nothing(tmp_path):
    for name, figure in mechanism_figures().items():
        write_svg(tmp_path / f"{name}.svg", figure)
    evil = f"<svg><title>{html.escape(EVIL)}</title><script>alert(1)</script></svg>"
    (tmp_path / "evil.svg").write_text(evil, encoding="utf-8")
    shown = pictures(tmp_path)
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
    assert images[2]["alt"].startswith(EVIL)
    assert images[5]["alt"].startswith("The answer's probability after each layer, edited minus base: mean over 9")
    assert not any(tag == "script" for tag, _ in page.elements)
    assert "Mechanism" in page.texts_of("h2") and "Mechanism" not in Page(render([BARE])).texts_of("h2")


def test_a_folder_without_pictures_is_an_error(tmp_path):
    with pytest.raises(TarotError) as error:
        pictures(tmp_path)
    hint = "run tarot analysis or tarot effects first"
    assert str(error.value) == f"expected a folder with SVG files, got {tmp_path}; {hint}"


def test_numbers_are_written_to_six_digits_and_texts_as_they_are(tmp_path):
    write_csv(tmp_path / "a.csv", ("a", "b"), [(1 / 3, EVIL), (0.0, "x\ny")])
    with (tmp_path / "a.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["a", "b"], ["0.333333", EVIL], ["0", "x\ny"]]


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+1",
        "-1+cmd|x",
        "@SUM(1)",
        "\t=1",
        "\r=1",
        "\n=1",
        " =1",
        "\ufeff=1",
        "\uff1d1",
        '=HYPERLINK("http://x","y")',
    ],
)
def test_a_text_is_no_formula_in_a_spreadsheet(text, tmp_path):
    write_csv(tmp_path / "a.csv", ("a", "b", "c"), [(text, -0.5, -3), ("x=1", True, "'=1")])
    with (tmp_path / "a.csv").open(newline="") as file:
        shown = text.replace("\r", r"\r")
        assert list(csv.reader(file))[1:] == [[f"'{shown}", "-0.5", "-3"], ["x=1", "True", "'=1"]]


def test_a_page_has_no_control_characters_and_no_text_direction(tmp_path):
    name = "\x1b[2J\x9b\u202e\u2066<script>\u2028"
    page = write_report([fabricated(model=name, n=4)], tmp_path).read_text()
    assert not set(page) & set("\x1b\x9b\u202e\u2066\u2028") and "<script>" not in page


# Rewarded texts


@settings(max_examples=12)
@given(st.lists(st.text(max_size=300), min_size=6, max_size=6), names, names, names)
def test_whatever_rewarded_texts_say_stays_text(texts, model, task, reward):
    prompts, base, edited = texts[:2], texts[2:4], texts[4:]
    compared = rewarded(n=2)
    compared = replace(
        compared,
        model=model,
        task=task,
        reward=reward,
        prompts=tuple(prompts),
        base=replace(compared.base, texts=tuple(base), rewards=(0.0, 0.0)),
        edited=replace(compared.edited, texts=tuple(edited), rewards=(1.0, -1.0)),
    )
    page = Page(render([], rewarded=[compared]))
    assert {tag for tag, _ in page.elements if not tag.startswith("text of")} <= ALLOWED
    assert set(texts) <= set(page.texts_of("div"))
    assert {model, task, reward} <= set(page.texts_of("dd"))


def test_rewarded_texts_stand_on_a_page_of_their_own_or_beside_cells():
    alone, beside = Page(render([], rewarded=[rewarded()])), Page(render(CELLS[:1], rewarded=[rewarded()]))
    assert alone.texts_of("h2") == ["RewardComparison texts"]
    assert [" ".join(text.split()) for text in alone.texts_of("p")[:1]] == [
        "1 rewarded comparison. The 95% interval of the gain in reward lies above zero in 0, below zero in 0, "
        "and spans zero in 1."
    ]
    assert {"RewardComparison texts", "Summary", "Gains", "Cells"} <= set(beside.texts_of("h2"))
    for page in (alone, beside):
        ids = page.values("id")
        assert len(ids) == len(set(ids))
        assert all(reference == "data:," or reference[1:] in ids for reference in page.values("href"))
        assert set(" ".join(page.values("aria-labelledby")).split()) <= set(ids)


def test_reward_fluency_and_variety_have_intervals():
    compared = rewarded()
    comparisons = [text.replace("\N{MINUS SIGN}", "-") for text in Page(render([], rewarded=[compared])).texts_of("td")]
    rows = dict(zip(("base", "edited", "difference"), (comparisons[i : i + 5] for i in (0, 5, 10)), strict=True))
    for name, arm in (("base", compared.base), ("edited", compared.edited)):
        outcome = arm.summary
        values = (outcome.reward, outcome.fluency, outcome.distinct_2, outcome.repetition)
        assert [text.split()[0] for text in rows[name]] == [*(f"{value:.3f}" for value in values), "12"]
        variety = jackknife(distinct(arm.texts), distinct_without(arm.texts))
        assert rows[name][2].endswith(f" [{variety.low:.3f}, {variety.high:.3f}]")
    assert rows["difference"][:2] == [with_interval(compared.gain), with_interval(compared.fluency_gain)]


def test_the_texts_whose_reward_moved_furthest_are_there_each_way():
    compared = rewarded()
    moved = np.subtract(compared.edited.rewards, compared.base.rewards)
    order = [int(i) for i in np.argsort(-moved)]
    page = Page(render([], rewarded=[compared]))
    assert page.texts_of("summary") == ["Reward rose furthest: 3", "Reward fell furthest: 3"]
    shown = [int(text.split()[2]) for text in page.texts_of("div") if text.startswith("Fabricated opening")]
    assert shown == order[:3] + order[:-4:-1] and moved[order[2]] > 0 > moved[order[-3]]
    nothing = replace(compared, edited=compared.base)
    assert Page(render([], rewarded=[nothing])).texts_of("summary") == [
        "Reward rose furthest: 0",
        "Reward fell furthest: 0",
    ]


def test_reward_against_fluency_is_drawn_of_many_trials_and_of_none():
    page = Page(render([], rewarded=[rewarded(), rewarded(outcomes={}, front=(), seed=1)]))
    assert page.texts_of("title") == ["tarot report", "Reward against fluency", "Reward against fluency"]
    first, second = page.texts_of("desc")
    assert "trials that no other beats in both: 4, 3, 2, 1, 0" in first and "trials" not in second
    drawn = page.texts_of("text")
    assert drawn.count("identity") == drawn.count("refused trial") == 1 and drawn.count("edited, on documents") == 2


# The table


def test_the_rows_are_the_cells_in_order_and_then_the_means():
    header, rows = summary_rows(CELLS)
    assert header[:8] == ("model", "task", "shots", "seed", "base", "few-shot", "edited", "gain")
    assert all(len(row) == len(header) for row in rows)
    assert [row[:4] for row in rows] == [
        (f"fabricated/{EVIL}", "other", "0", "0"),
        ("fabricated/model", "made_up", "0", "0"),
        ("fabricated/model", "made_up", "0", "1"),
        ("fabricated/model", "made_up", "6", "0"),
        ("mean", "edited", "", "4 cells"),
        ("mean", "few-shot", "", "3 cells"),
        ("mean", "random search", "", "4 cells"),
        ("mean", "few-shot, mean of 5 draws", "", "1 cell"),
        ("mean", "few-shot 1 of 5 (best)", "", "1 cell"),
        ("mean", "few-shot 5 of 5 (worst)", "", "1 cell"),
    ]


def test_searches_side_by_side_are_told_apart_and_have_means_of_their_own():
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
    means = [(row[3], row[4]) for row in rows if row[:2] == ("mean", "edited")]
    assert sorted(means) == [("2 cells", "bo, in full"), ("2 cells", "bo, in head"), ("3 cells", "adam, in full")]
    page = Page(render(comparisons))
    headings = page.texts_of("h3")
    assert len(set(headings)) == len(comparisons) and any(name.endswith("seed 1, bo, in head") for name in headings)
    drawn = page.texts_of("text")
    assert {"made_up, 0-shot, seed 1, bo, in head", "mean: edited, bo, in head"} <= set(drawn)


@pytest.mark.parametrize("metric", METRICS)
def test_a_row_says_what_the_arms_did(metric):
    comparison = CELLS[2]
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
    for scored in score_comparisons(CELLS, "f1"):
        comparison = scored.comparison
        assert scored.base == ("few-shot" if comparison.num_fewshot else "zero-shot")
        assert scored.scores["edited"] == weighted_f1(comparison.gold, comparison.arm("edited").predicted)
        base, few_shot, edited = (comparison.arm(name).predicted for name in (scored.base, "few-shot", "edited"))
        assert scored.gains["edited"] == f1_gain(comparison.gold, base, edited)
        assert scored.over_few_shot == f1_gain(comparison.gold, few_shot, edited)


def test_a_mean_counts_each_setting_once():
    header, rows = summary_rows(CELLS)
    means = [
        mean_over_seeds([scored.gains["random search"] for scored in group]).value
        for group in group_by_setting(score_comparisons(CELLS))
    ]
    assert len(means) == 3
    (row,) = [row for row in rows if row[1] == "random search"]
    assert row[header.index("gain")].startswith(f"{np.mean(means):+.3f} [")


DRAWN = fabricated(draws=5)


def test_draws_of_shots_have_a_mean_among_the_arms_with_its_best_and_worst():
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
    assert rows[name]["p"] == "-" and rows[name]["labels"] == "6"
    best, worst = (float(rows[f"few-shot {rank}"]["score"]) for rank in ("1 of 5 (best)", "5 of 5 (worst)"))
    assert worst <= float(rows[name]["score"]) <= best
    _, means = summary_rows([DRAWN])
    assert [row[1] for row in means[1:]] == [
        *("edited", "few-shot", "random search", name),
        *("few-shot 1 of 5 (best)", "few-shot 5 of 5 (worst)"),  # those between them are in the mean
    ]
    page = Page(render([DRAWN]))
    assert {name, "few-shot 3 of 5"} <= set(page.texts_of("th"))
    assert any(text.startswith(f"mean: {name}") for text in page.texts_of("th"))
    over = with_interval(scored.over_draws).replace("-", "\N{MINUS SIGN}")
    assert any(f"mean of the draws: {over}." in text for text in page.texts_of("p"))


def test_the_interval_of_a_mean_over_draws_knows_what_they_differ_by():
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


def test_p_is_corrected_for_the_number_of_cells():
    p_values = [scored.gains["edited"].p for scored in score_comparisons(CELLS)]
    header, rows = summary_rows(CELLS)
    for p, row in zip(holm(p_values), rows, strict=False):
        assert row[header.index("p")] == ("<0.001" if p < 0.001 else f"{p:.3f}")


def test_a_loss_stands_out():
    page = Page(page_of_cells())
    losses = [text for row in summary_rows(CELLS)[1] if (text := row[7]).startswith("-")]
    assert losses
    classes = [attrs.get("class") for tag, attrs in page.elements if tag == "td"]
    assert classes.count("negative") >= len(losses)
    assert all(loss.replace("-", "\N{MINUS SIGN}") in page.texts_of("td") for loss in losses)
    assert "below zero in 1," in " ".join(page.texts_of("p")[0].split())


def test_an_arm_that_a_cell_lacks_leaves_its_place_empty():
    comparison = replace(BARE, arms=(BARE.arms[0], BARE.arms[2]))
    header, rows = summary_rows([comparison])
    row = dict(zip(header, rows[0], strict=True))
    assert (row["few-shot"], row["over few-shot"], row["labels"]) == ("-", "-", "0/-/20")
    assert len(rows) == 2


def test_seeds_have_a_table_of_their_own_where_there_are_several():
    assert 'id="seeds"' in page_of_cells()
    assert 'id="seeds"' not in render(CELLS[1:])


# Bad input


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    page = tmp_path / "file" / "index.html"
    with pytest.raises(TarotError) as error:
        write_report([], tmp_path / "file")
    assert str(error.value) == f"expected to write {page}, got File exists; free space or choose another place"


def test_a_report_that_cannot_be_finished_leaves_the_old_one(tmp_path):
    folder = tmp_path / "report"
    (folder / "index.html").mkdir(parents=True)
    with pytest.raises(TarotError, match="got Is a directory; free space or choose another place"):
        write_report([], folder)
    assert [path.name for path in folder.iterdir()] == ["index.html"]


def test_an_unknown_metric_and_a_cell_without_its_base(tmp_path):
    with pytest.raises(UnknownName, match="expected a known metric, got 'f2'; did you mean 'f1'\\?"):
        write_report(CELLS, tmp_path, metric="f2")
    with pytest.raises(TarotError, match="expected an arm among edited, got 'zero-shot'"):
        write_report([replace(BARE, arms=BARE.arms[2:3])], tmp_path)
    assert list(tmp_path.iterdir()) == []


# In a browser

FRAME = """<!DOCTYPE html><link rel="icon" href="data:,">
<iframe src="index.html" style="width:WIDTHpx;height:900px;border:0"></iframe>
<pre id="seen"></pre><script>
document.querySelector("iframe").onload = event => {
  const page = event.target.contentDocument, root = page.documentElement, style = getComputedStyle(page.body);
  const box = svg => { const {width, height} = svg.getBBox(); return [Math.round(width), Math.round(height)]; };
  document.getElementById("seen").textContent = JSON.stringify({
    scroll: root.scrollWidth, client: root.clientWidth, colors: [style.color, style.backgroundColor],
    pictures: [...page.querySelectorAll("svg")].map(svg => [...box(svg), svg.querySelectorAll("path, use").length]),
    lines: [...new Set([...page.querySelectorAll("svg *")].map(e => getComputedStyle(e).stroke))],
    fetched: event.target.contentWindow.performance.getEntriesByType("resource").length,
    text: page.body.textContent, scripts: page.scripts.length,
  });
};
</script>"""


class Browser:
    """Chromium on a folder served from this machine: what a page of 400 pixels looks like, and what went wrong."""

    def __init__(self, folder):
        self.folder, self.requests = folder, []

    def look(self, width=400, dark=False):
        (self.folder / "frame.html").write_text(FRAME.replace("WIDTH", str(width)))
        browser = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, format, *values):
                browser.requests.append(self.path)

        handler = functools.partial(Handler, directory=str(self.folder))
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever).start()
            try:
                return self._run(f"http://127.0.0.1:{server.server_port}/frame.html", dark)
            finally:
                server.shutdown()

    def _run(self, address, dark):
        quiet = ("gpu", "quic", "background-networking", "component-update", "sync", "extensions")
        run = subprocess.run(
            [
                CHROMIUM,
                "--headless",
                "--no-sandbox",
                "--no-first-run",
                "--hide-scrollbars",
                *(f"--disable-{feature}" for feature in quiet),
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
                f"--user-data-dir={self.folder / 'profile'}",
                f"--blink-settings=preferredColorScheme={0 if dark else 1}",
                "--enable-logging=stderr",
                "--window-size=1300,1000",
                "--dump-dom",
                address,
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        shutil.rmtree(self.folder / "profile", ignore_errors=True)
        seen = json.loads(Page(run.stdout).texts_of("pre")[0])
        return seen, [line for line in run.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.skipif(not CHROMIUM, reason="needs Debian's package chromium")
@pytest.mark.parametrize(("width", "dark"), [(400, False), (1200, True)])
def test_a_browser_shows_it(tmp_path, width, dark):
    (tmp_path / "index.html").write_text(render(CELLS, rewarded=[rewarded()]), encoding="utf-8")
    browser = Browser(tmp_path)
    seen, complaints = browser.look(width, dark)
    assert complaints == []
    assert (sorted(browser.requests), seen["fetched"]) == (["/frame.html", "/index.html"], 0)
    assert seen["client"] == width and seen["scroll"] <= width
    assert seen["scripts"] == 0 and EVIL in seen["text"]
    assert len(seen["pictures"]) == 1 + 2 * len(CELLS) + 1
    assert all(wide > 100 and high > 80 and marks > 5 for wide, high, marks in seen["pictures"])
    ink, paper = (sum(map(int, re.findall(r"\d+", color)[:3])) for color in seen["colors"])
    assert ink > paper + 400 if dark else paper > ink + 400
    assert ("rgb(107, 180, 240)" if dark else "rgb(10, 99, 165)") in seen["lines"]  # --gain


@pytest.mark.skipif(not CHROMIUM, reason="needs Debian's package chromium")
def test_the_browser_would_tell(tmp_path):
    (tmp_path / "index.html").write_text(
        '<body><div style="width:900px">wide</div><img src="missing.png"><script>console.error("oh")</script>'
    )
    browser = Browser(tmp_path)
    seen, complaints = browser.look()
    assert seen["scroll"] > seen["client"]
    assert seen["scripts"] == 1 and seen["fetched"] == 1 and "/missing.png" in browser.requests
    assert len(complaints) == 1 and "oh" in complaints[0]
