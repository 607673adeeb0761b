"""Fabricated results for tests of tables and pages, and a parser of pages."""

import functools
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
from hypothesis import strategies as st

from tarot.analysis.results import Flip, FlipsResult, LayerEffects, LensResult, TokenChange
from tarot.evaluation.results.comparison import OUTSIDE, Arm, Comparison
from tarot.evaluation.results.reward_comparison import RewardComparison
from tarot.evaluation.statistics.gains import accuracy_gain
from tarot.evaluation.statistics.means import Mean, difference
from tarot.objectives.rewards.text_scores import ScoredTexts, TextScores
from tarot.report import page
from tarot.report.figures import mechanism as mechanism_figures
from tarot.report.figures import side_effects as side_effect_figures
from tarot.report.figures.mechanism import AttentionMap

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


EVIL = "<script>alert('fabricated')</script> & \"quoted\" $\\alpha$ 漢字"


def fabricated(task="made_up", shots=0, seed=0, edited_right=0.7, n=40, draws=0, **fields):
    """Return a comparison whose arms answer right with given probabilities, with `draws` more few-shot arms."""
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
        ranks = {1: " (best)", draws: " (worst)"}
        arms += tuple(
            replace(arm, name=f"few-shot {i} of {draws}{ranks.get(i, '')}", draw=i) for i, arm in enumerate(ranked, 1)
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
        command=f"tarot tune --model fabricated/model --tasks {task} --seed {seed}",
        keys=tuple(f"{task}{i}" for i in range(n)),
        gold=tuple(gold.tolist()),
        texts=tuple(f"Fabricated document {i} of {task}" for i in range(n)),
        arms=arms,
        seconds=80.0 + seed,
        reference_seconds=8.0,
        adapter="fab1234567890abc",
        layers=(0, 1, 4),
        head_angles=tuple(tuple(row) for row in abs(generator.normal(0, 0.3, (3, 5))).round(3).tolist()),
        curves={"bo": (-2.0, -1.5, -1.7, -1.0), "random": (-2.0, -2.2, -1.9, -1.8)},
        versions={"torch": "0.0.fabricated"},
    )
    return replace(comparison, **fields)


COMPARISONS = [
    fabricated(seed=0),
    fabricated(seed=1, draws=5),
    fabricated(shots=6, seed=0, edited_right=0.1),
    fabricated(
        task="other",
        model=f"fabricated/{EVIL}",
        texts=tuple(f"{EVIL} {i} " + "long " * 60 * (i % 2) for i in range(40)),
    ),
]


def reward_comparison(n=12, lift=0.3, **fields):
    """Return a comparison of texts; the reward of every third text falls."""
    generator = np.random.default_rng(n)

    def arm(word, shift):
        texts = tuple(f"{word} text {i} with {word} " + EVIL * (i == 2) for i in range(n))
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
        command="tarot tune --model fabricated/model --tasks made_up_texts",
    )
    return replace(compared, **fields)


BARE = fabricated(n=4, curves={}, head_angles=(), layers=())


def render(*args, **options):
    """Return the page of a report as text."""
    return page.render(*args, **options)[0]


@functools.cache
def page_of_comparisons():
    return render(COMPARISONS)


class Page(HTMLParser):
    """The elements of a page; raises AssertionError if they are not nested correctly."""

    VOID = frozenset({"meta", "link", "br", "img", "input"})

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

    def facts(self):
        """Return the terms of lists with their texts."""
        return list(zip(self.texts_of("dt"), self.texts_of("dd"), strict=True))

    def texts_of(self, tag):
        return [text for name, text in self.elements if name == f"text of {tag}"]


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


ALLOWED_TAGS = frozenset(
    {"html", "head", "meta", "link", "title", "style", "body", "header", "nav", "main", "section", "article"}
    | {"h1", "h2", "h3", "h4", "p", "br", "span", "a", "ul", "ol", "li", "dl", "dt", "dd", "pre", "code", "div"}
    | {"script", "button", "label", "input", "output", "bdi"}
    | {"details", "summary", "table", "thead", "tbody", "tr", "th", "td", "figure", "figcaption"}
    | {"svg", "desc", "g", "defs", "path", "use", "text", "clippath", "rect"}
)


def all_figures():
    """Return one figure of each kind that stands alone, by name."""
    gain = accuracy_gain([0] * 9, [0] * 5 + [1] * 4, [0] * 8 + [1])
    half = np.tri(4) / np.arange(1, 5)[:, None]
    means = tuple(Mean(0.1 * i, 0.1 * i - 0.05, 0.1 * i + 0.05) for i in range(4))
    lens = LensResult((0, 1), 9, (0.1,) * 4, tuple(0.1 + 0.1 * i for i in range(4)), means)
    yes, evil = TokenChange(1, "yes\n\x00", -9.0, -0.5), TokenChange(2, EVIL, -1.0, -7.5)
    flips = [Flip(i, f"test/{i}", "prompt", True, 0, 1, 0, (yes, evil) if i else (yes,)) for i in range(3)]
    maps = [AttentionMap(f"layer {i}", half, half) for i in range(5)]
    return {
        "lens": mechanism_figures.lens_curves("lens", lens),
        "attention": mechanism_figures.attention_maps("attention", maps),
        "flips": mechanism_figures.moved_tokens("flips", FlipsResult(tuple(flips))),
        "effects": side_effect_figures.effect_matrix("effects", {"a": {"t_1": gain}, "b": {"t_1": gain}}, {"a": "t_1"}),
        "layers": mechanism_figures.layer_effects(
            "layers", LayerEffects("sentiment", (4, 6), (2, 3), (0.1, -0.1), (0.2, 0.0))
        ),
        "tradeoff": side_effect_figures.strength_curves(
            "tradeoff", {"a": [(0.0, gain, Mean(0, 0, 0)), (1.0, gain, Mean(0.1, 0, 1))]}
        ),
    }
