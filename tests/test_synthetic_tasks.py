"""Synthetic tasks: balanced splits, answers that a second program confirms, and no cue that gives them away."""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Hashable
from functools import partial
from hashlib import sha256

import numpy as np
import pytest
from datasets import DatasetDict
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from lm_eval.api.task import ConfigurableTask
from matplotlib.colors import CSS4_COLORS, to_hex, to_rgb
from task_files import import_task_module, load

splits = import_task_module("synthetic/splits")
color, implicatives = import_task_module("synthetic/color"), import_task_module("synthetic/implicatives")


SOURCES = {
    "synth_navigate": import_task_module("synthetic/navigate").Navigate,
    "synth_color": color.Color,
    "synth_implicatives": implicatives.Implicatives,
}


@pytest.fixture(scope="module")
def synthetic() -> dict[str, ConfigurableTask]:
    return load("tarot_synthetic")


@pytest.mark.parametrize("task", SOURCES)
# A seed has nothing to shrink to, and each try takes a second.
@settings(max_examples=3, deadline=None, derandomize=True, phases=[Phase.generate])
@given(seed=st.integers(0, 2**32))
def test_splits_are_balanced_without_duplicates_and_correct(task: str, seed: int) -> None:
    data = splits.splits(SOURCES[task], seed)
    documents = [document for split in ("train", "test") for document in data[split]]
    assert {split: len(data[split]) for split in data} == {"train": 200, "test": 300}
    assert len({document["text"] for document in documents}) == len(documents)
    assert len({document["id"] for document in documents}) == len(documents)
    for split in data:
        golds = data[split]["gold"]
        for rows in range(len(golds) + 1):
            # The choices alternate, so that any first rows are as balanced as their number allows.
            counts = [golds[:rows].count(gold) for gold in range(len(SOURCES[task].choices))]
            assert max(counts) - min(counts) <= 1
        assert len(set(counts)) == 1
    for document in documents:
        assert document["choices"] == list(SOURCES[task].choices)
        assert ORACLES[task](document["text"]) == document["choices"][document["gold"]], document["text"]


def test_another_seed_gives_other_documents() -> None:
    first, second = (splits.splits(SOURCES["synth_navigate"], seed)["test"]["text"] for seed in (0, 1))
    assert len(set(first) & set(second)) < len(first) / 10


@pytest.mark.parametrize(
    ("task", "digest"),
    [
        ("synth_navigate", "79e049c1384a486a"),
        ("synth_color", "667163a50eb6d76a"),
        ("synth_implicatives", "5755d49690645c44"),
    ],
)
def test_documents_are_the_same_everywhere(synthetic: dict[str, ConfigurableTask], task: str, digest: str) -> None:
    documents = [list(synthetic[task].dataset[split]) for split in ("train", "test")]
    assert sha256(json.dumps(documents, sort_keys=True).encode()).hexdigest()[:16] == digest


def walk(text: str) -> str:
    """Answer `navigate` by walking on a grid, one step at a time."""
    compass = ["north", "east", "south", "west"]
    heading, east, north, walked = 0, 0, 0, 0
    instructions = text.split("starting point? ")[1].removesuffix("\nA:").split(". ")
    for words in (instruction.rstrip(".").split() for instruction in instructions):
        if words[0] == "Turn":
            heading += {"left": 3, "right": 1, "around": 2}[words[1]]
        elif words[0] == "Take":
            assert words[2] == ("step" if words[1] == "1" else "steps")
            side = {"forward": 0, "right": 1, "backward": 2, "left": 3}[words[3]] if len(words) == 4 else 0
            for _ in range(int(words[1])):
                direction = compass[(heading + side) % 4]
                north += (direction == "north") - (direction == "south")
                east += (direction == "east") - (direction == "west")
                walked += 1
        else:
            assert words == ["Always", "face", "forward"]
    assert walked >= 2
    return str(north == east == 0)


# The primaries and the white point of sRGB as chromaticities, from which its matrix follows.
_PRIMARIES = np.array([[0.64, 0.33, 0.03], [0.30, 0.60, 0.10], [0.15, 0.06, 0.79]]).T


_WHITE = np.array([0.3127, 0.3290, 0.3583]) / 0.3290


_TO_XYZ = _PRIMARIES * np.linalg.solve(_PRIMARIES, _WHITE)


_CSS = {
    "white": "white whitesmoke ghostwhite floralwhite",
    "blue": "blue darkblue dodgerblue royalblue steelblue skyblue lightblue midnightblue",
    "orange": "orange darkorange",
    "black": "black",
    "red": "red crimson darkred",
    "brown": "brown sienna saddlebrown",
    "yellow": "yellow gold khaki",
    "green": "green lime darkgreen forestgreen lightgreen seagreen yellowgreen darkolivegreen",
    "gray": "gray dimgray darkgray lightgray",
    "purple": "purple indigo blueviolet mediumpurple mediumorchid plum magenta",
    "": "pink hotpink deeppink salmon coral tan cyan turquoise teal",
}


def lab_of_srgb(srgb: np.ndarray) -> np.ndarray:
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    f = np.array([math.cbrt(t) if t > 216 / 24389 else (24389 / 27 * t + 16) / 116 for t in _TO_XYZ @ linear / _WHITE])
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def name_color(text: str) -> str:
    """Answer `color` from the numbers in the text, by the nearest CSS color."""
    notation, written = re.findall(r"matching this (\w+) representation: (.*) \?", text)[0]
    numbers = [float(number) for number in re.findall(r"[\d.]+", written)]
    if notation == "HEX":
        lab = lab_of_srgb(np.array([int(written[i : i + 2], 16) / 255 for i in (1, 3, 5)]))
    elif notation == "RGB":
        lab = lab_of_srgb(np.array(numbers) / 255)
    elif notation == "HSL":
        hue, saturation, lightness = numbers[0], numbers[1] / 100, numbers[2] / 100
        k = (np.array([0, 8, 4]) + hue / 30) % 12
        chroma = saturation * min(lightness, 1 - lightness)
        lab = lab_of_srgb(lightness - chroma * np.clip(np.minimum(k - 3, 9 - k), -1, 1))
    else:
        hue, chroma, lightness = numbers
        lab = np.array([lightness, chroma * math.cos(math.radians(hue)), chroma * math.sin(math.radians(hue))])
    distances = {
        family: min(np.linalg.norm(lab - lab_of_srgb(css_color(name))) for name in names.split())
        for family, names in _CSS.items()
    }
    first, second = sorted(distances.values())[:2]
    assert second > 1.25 * first  # the answer is clear despite rounding
    return min(distances, key=lambda family: distances[family])


def css_color(name: str) -> np.ndarray:
    return np.array(to_rgb(CSS4_COLORS[name]))


# What each verb entails (affirmed, negated), written independently of the table under test.
_HAPPENED_IF_AFFIRMED = (
    "manage",
    "remember",
    "bother",
    "dare",
    "deign",
    "happen",
    "get",
    "see",
    "take",
    "find",
    "succeed",
)


_HAPPENED_IF_NEGATED = ("forget", "fail", "neglect", "omit", "avoid", "refrain", "miss", "pass")


_ENTAILS = (
    {verb: ("yes", "no") for verb in _HAPPENED_IF_AFFIRMED}
    | {verb: ("no", "yes") for verb in _HAPPENED_IF_NEGATED}
    | {verb: ("yes", None) for verb in ("force", "compel", "cause", "make")}
    | {verb: ("no", None) for verb in ("refuse", "decline", "prevent", "keep")}
    | {verb: (None, "no") for verb in ("try", "attempt", "allow", "permit")}
    | {verb: (None, "yes") for verb in ("hesitate", "think")}
)


_IRREGULAR = dict(
    got="get", saw="see", took="take", found="find", forgot="forget", made="make", kept="keep", thought="think"
)


def first_verb(fact: str) -> tuple[str, bool]:
    """Return the verb in its base form, and whether it is negated."""
    words = re.sub(r"^(Yesterday|In the end|Last week) ", "", fact).split()
    if words[1] == "didn't":
        return words[2], True
    past = words[1]
    stems = [_IRREGULAR.get(past, past), past[:-1], past[:-2], past[:-3] + "y", past[:-3]]
    (base,) = {stem for stem in stems if stem in _ENTAILS}
    return base, False


def entail(text: str) -> str | None:
    ((fact, question),) = re.findall(r"^Fact: (.*)\. Q: Did (.*)\?\nA:$", text)
    verb, negated = first_verb(fact)
    assert question.split()[0] in fact.split()  # the question is about somebody in the fact
    return _ENTAILS[verb][negated]


ORACLES = {"synth_navigate": walk, "synth_color": name_color, "synth_implicatives": entail}


def test_oracles_can_fail() -> None:
    walked = "do you return to the starting point? Take 2 steps. Turn {}. Take 2 steps.\nA:"
    assert walk(walked.format("around")) == "True"
    assert walk(walked.format("left")) == "False"
    assert name_color("matching this HEX representation: #0000ff ?") == "blue"
    assert name_color("matching this HSL representation: hsl(0.0, 100.0%, 50.0%) ?") == "red"
    assert entail("Fact: Ed forgot to leave. Q: Did Ed leave?\nA:") == "no"
    assert entail("Fact: Ed didn't forget to leave. Q: Did Ed leave?\nA:") == "yes"


@settings(deadline=None, derandomize=True)
@given(rgb=st.tuples(*[st.integers(0, 255)] * 3))
def test_lab_agrees_with_the_oracle(rgb: tuple[int, int, int]) -> None:
    # The matrices differ in the seventh digit: one is the standard's rounded one, the other follows from the primaries.
    np.testing.assert_allclose(color.lab(rgb), lab_of_srgb(np.array(rgb) / 255), atol=0.02)


def test_color_families_are_css_colors_and_every_notation_occurs(synthetic: dict[str, ConfigurableTask]) -> None:
    ours = color.FAMILIES | {"": color.OTHERS}
    css = {family: [to_hex(CSS4_COLORS[name]) for name in names.split()] for family, names in _CSS.items()}
    assert {family: [f"#{code}" for code in codes.split()] for family, codes in ours.items()} == css
    texts = synthetic["synth_color"].dataset["test"]["text"]
    counts = Counter(re.findall(r"this (\w+) representation", text)[0] for text in texts)
    assert set(counts) == {"RGB", "HSL", "HCL", "HEX"}
    assert min(counts.values()) >= 50


def test_signature_table_is_consistent() -> None:
    verbs = implicatives.VERBS
    assert {verb.signature for verb in verbs} == {"+-", "-+", "+.", "-.", ".-", ".+"}
    assert len({verb.base for verb in verbs}) == len({verb.past for verb in verbs}) == len(verbs)
    for verb in verbs:
        holes = re.findall(r"{\w+}", verb.past)
        assert holes == re.findall(r"{\w+}", verb.base)
        assert holes in (["{do}"], ["{doing}"], ["{other}", "{do}"], ["{other}", "{doing}"])
        assert verb.past.split()[1:] == verb.base.split()[1:]  # only the first word is inflected
        assert first_verb(f"Ed {verb.past}") == (verb.base.split()[0], False)
        sign = {"yes": "+", "no": "-", None: "."}
        assert "".join(sign[answer] for answer in _ENTAILS[verb.base.split()[0]]) == verb.signature
    for do, doing in implicatives.DEEDS.items():
        assert doing.split()[0].endswith("ing")
        assert do.split()[1:] == doing.split()[1:]


def accuracy(rule: dict, features: list, golds: list) -> float:
    return sum(rule.get(feature) == gold for feature, gold in zip(features, golds, strict=True)) / len(golds)


def majority(features: list, golds: list) -> dict:
    """Return the most frequent answer for each feature."""
    pairs = Counter(zip(features, golds, strict=True))
    return {f: max((count, gold) for (g, gold), count in pairs.items() if g == f)[1] for f in set(features)}


def learned(feature: Callable[[str], Hashable], data: DatasetDict) -> float:
    """Return the test accuracy of answering by the majority of `feature` in the training split."""
    rule = majority([feature(text) for text in data["train"]["text"]], data["train"]["gold"])
    return accuracy(rule, [feature(text) for text in data["test"]["text"]], data["test"]["gold"])


def contains(word: str, text: str) -> bool:
    return word in text.split()


@pytest.mark.parametrize("seed", range(3))
def test_surface_cues_of_implicatives_do_not_give_the_answer_away(seed: int) -> None:
    data = splits.splits(implicatives.Implicatives, seed)
    assert 0.4 < learned(lambda text: "didn't" in text, data) < 0.6
    assert learned(lambda text: first_verb(text[6:])[0], data) < 0.7  # one-way verbs always answer alike; they are few
    for word in {word for text in data["train"]["text"] for word in text.split()}:
        assert learned(partial(contains, word), data) < 0.62
    # Verb and negation together determine the answer, so the check can succeed.
    assert learned(lambda text: first_verb(text[6:]), data) > 0.95


def test_style_and_length_of_a_walk_do_not_give_the_answer_away(synthetic: dict[str, ConfigurableTask]) -> None:
    data = synthetic["synth_navigate"].dataset
    assert 0.4 < learned(lambda text: ("Always" in text, text.count(".")), data) < 0.6
