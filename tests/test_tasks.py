"""The task files: what they generate or read, what the model is shown, how its answers are judged."""

import importlib.util
import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Hashable
from functools import partial
from hashlib import sha256
from pathlib import Path
from random import Random
from types import ModuleType

import numpy as np
import pytest
import torch
from datasets import DatasetDict
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from lm_eval import simple_evaluate
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from lm_eval.utils import handle_non_serializable
from matplotlib.colors import CSS4_COLORS, to_hex, to_rgb
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TASKS = Path(__file__).parents[1] / "tasks"
# tested in test_task_families.py
GENERATING = ("imdb", "openings", "toxicity")
PUBLISHED = (
    *("tarot_arithmetic", "tarot_causal_judgment", "tarot_elementary_math_qa", "tarot_modified_arithmetic"),
    *("tarot_object_counting", "tarot_operators", "tarot_snli"),
)
METRICS = {"acc", "f1", "greedy_acc", "greedy_f1", "gold_prob"}
COLORS = ("white", "blue", "orange", "black", "red", "brown", "yellow", "green", "gray", "purple")


def module(name: str) -> ModuleType:
    """A file of `tasks/`, imported by its path as lm-eval does."""
    spec = importlib.util.spec_from_file_location(f"tasks.{name}", TASKS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    imported = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(imported)
    return imported


metrics, loaders, splits = module("metrics"), module("loaders"), module("synthetic/splits")
color, implicatives = module("synthetic/color"), module("synthetic/implicatives")
SOURCES = {
    "synth_navigate": module("synthetic/navigate").Navigate,
    "synth_color": color.Color,
    "synth_implicatives": implicatives.Implicatives,
}


def load(*names: str) -> dict[str, ConfigurableTask]:
    return TaskManager(include_path=str(TASKS), include_defaults=False).load(list(names))["tasks"]


@pytest.fixture(scope="module")
def synthetic() -> dict[str, ConfigurableTask]:
    return load("tarot_synthetic")


# Synthetic: properties


@pytest.mark.parametrize("task", SOURCES)
# A seed has nothing to shrink to, and each try takes a second.
@settings(max_examples=3, deadline=None, derandomize=True, phases=[Phase.generate])
@given(seed=st.integers(0, 2**32))
def test_splits_are_balanced_without_duplicates_and_answered_rightly(task: str, seed: int) -> None:
    data = splits.splits(SOURCES[task], seed)
    documents = [document for split in ("train", "test") for document in data[split]]
    assert {split: len(data[split]) for split in data} == {"train": 200, "test": 300}
    assert len({document["text"] for document in documents}) == len(documents)
    assert len({document["id"] for document in documents}) == len(documents)
    for split in data:
        golds = data[split]["gold"]
        for rows in range(len(golds) + 1):
            # The choices take turns, so that any first rows are as balanced as their number allows.
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


# Synthetic: slow oracles, which read nothing but the text


def walk(text: str) -> str:
    """Walks on a grid, one step at a time, turning through the points of the compass."""
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
    """Reads the numbers back, HCL straight as polar L*a*b*, and looks through every CSS color."""
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
    far = {
        family: min(np.linalg.norm(lab - lab_of_srgb(css_color(name))) for name in names.split())
        for family, names in _CSS.items()
    }
    first, second = sorted(far.values())[:2]
    assert second > 1.25 * first  # nothing here is disputable, whatever the rounding
    return min(far, key=lambda family: far[family])


def css_color(name: str) -> np.ndarray:
    return np.array(to_rgb(CSS4_COLORS[name]))


# What each verb entails (affirmed, negated), read off English once more, apart from the table under test.
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
    """The verb, in its base form, and whether it is negated."""
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
    assert question.split()[0] in fact.split()  # it is asked about somebody the fact speaks of
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


def test_color_families_are_css_colors_and_every_notation_comes_up(synthetic: dict[str, ConfigurableTask]) -> None:
    ours = color.FAMILIES | {"": color.OTHERS}
    css = {family: [to_hex(CSS4_COLORS[name]) for name in names.split()] for family, names in _CSS.items()}
    assert {family: [f"#{code}" for code in codes.split()] for family, codes in ours.items()} == css
    texts = synthetic["synth_color"].dataset["test"]["text"]
    counts = Counter(re.findall(r"this (\w+) representation", text)[0] for text in texts)
    assert set(counts) == {"RGB", "HSL", "HCL", "HEX"}
    assert min(counts.values()) >= 50


# Synthetic: implicatives give nothing away


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
    """For each feature the answer it came with most often."""
    pairs = Counter(zip(features, golds, strict=True))
    return {f: max((count, gold) for (g, gold), count in pairs.items() if g == f)[1] for f in set(features)}


def learned(feature: Callable[[str], Hashable], data: DatasetDict) -> float:
    """How often the majority's answer for `feature`, learned on the training split, is right on the test split."""
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
    # Whoever knows both and puts them together is always right: the rule can succeed.
    assert learned(lambda text: first_verb(text[6:]), data) > 0.95


def test_style_and_length_of_a_walk_do_not_give_the_answer_away(synthetic: dict[str, ConfigurableTask]) -> None:
    data = synthetic["synth_navigate"].dataset
    assert 0.4 < learned(lambda text: ("Always" in text, text.count(".")), data) < 0.6


# Paper: a small folder of the hub's form


INSTRUCTIONS = {
    "entailed_polarity": "Given a fact, answer the following question with a yes or a no.\n",
    "winowhy": "Please answer the following questions about which words certain pronouns refer to.\n\n",
}
TEXTS = {
    "navigate": (
        "Q: If you follow these instructions, do you return to the starting point? Take {} steps.\nA:",
        "True",
        "False",
    ),
    "color": (
        "Q: What is the color most closely matching this RGB representation: rgb(0, 0, {}) ?\nA:",
        "blue",
        "black",
    ),
    "entailed_polarity": ("Fact: Ed managed to leave {} times. Q: Did Ed leave?\nA:", "yes", "no"),
    "winowhy": (
        "Ann saw {} cats. The 'she' refers to ann because cats.\nThe above reasoning is",
        "correct",
        "incorrect",
    ),
}


def write(path: Path, records: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def small_folder(root: Path) -> Path:
    """Sorted by label, the worst case for shots: four records of the one, then four of the other."""
    for name, (text, *answers) in TEXTS.items():
        for split, start in (("train", 0), ("validation", 100)):
            records = [
                {
                    "idx": 7,
                    "inputs": INSTRUCTIONS.get(name, "") + text.format(start + row),
                    "targets": [answers[row // 4]],
                    "multiple_choice_targets": answers,
                    "multiple_choice_scores": [1 - row // 4, row // 4],
                }
                for row in range(8)
            ]
            write(root / "bigbench" / name / f"{split}.jsonl", records)
    for split in ("train", "test"):
        records = [{"text": f"The {split} news of day {row}. ", "label": row // 2} for row in range(8)]
        write(root / "ag_news" / f"{split}.jsonl", records)
    return root


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ConfigurableTask]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TAROT_DATA", str(small_folder(tmp_path_factory.mktemp("data"))))
        return load("tarot_paper")


@pytest.fixture(scope="module")
def tasks(synthetic: dict[str, ConfigurableTask], paper: dict[str, ConfigurableTask]) -> dict[str, ConfigurableTask]:
    return synthetic | paper


ALL = (
    *("synth_color", "synth_implicatives", "synth_navigate", "tarot_ag_news", "tarot_color"),
    *("tarot_entailed_polarity", "tarot_navigate", "tarot_winowhy"),
)


def test_folder_holds_exactly_these_tasks_and_groups(tasks: dict[str, ConfigurableTask]) -> None:
    manager = TaskManager(include_path=str(TASKS), include_defaults=False)
    assert sorted(ALL) == sorted(tasks)
    assert manager.all_subtasks == sorted((*ALL, *GENERATING, *PUBLISHED))
    assert manager.all_groups == ["tarot_paper", "tarot_synthetic"]
    for folder in ("paper", "synthetic"):
        readme = (TASKS / folder / "README.md").read_text()
        for heading in ("### Paper", "### Citation", "#### Groups", "#### Tags", "#### Tasks", "### Checklist"):
            assert f"\n{heading}\n" in readme
        for name in (*manager.all_groups, *ALL):
            assert (f"`{name}`" in readme) or ("tarot" if folder == "synthetic" else "synth") in name


@pytest.mark.parametrize("name", ALL)
def test_every_task_is_of_one_form(tasks: dict[str, ConfigurableTask], name: str) -> None:
    task = tasks[name]
    evaluated = "validation" if name.startswith("tarot_") and name != "tarot_ag_news" else "test"
    assert task.config.output_type == "multiple_choice"
    assert task.config.num_fewshot is None  # 0 could not be overridden
    assert (task.config.training_split, task.config.fewshot_split) == ("train", "train")
    assert (task.config.test_split or task.config.validation_split) == evaluated
    assert task.config.target_delimiter == " "
    assert set(task.aggregation()) == set(task.higher_is_better()) == METRICS
    assert task.config.description.endswith("\n\n") and task.config.description.strip()
    for document in (*task.training_docs(), *task.eval_docs):
        choices = task.doc_to_choice(document)
        assert all(choice == choice.strip() for choice in choices)
        assert 0 <= task.doc_to_target(document) < len(choices)
    assert all(choice in task.config.description for choice in choices if choice not in ("yes", "no"))
    everything = [*task.training_docs(), *task.eval_docs]
    assert len({document["id"] for document in everything}) == len(everything)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("shots", [0, 1, 6])
def test_every_document_has_the_same_shots(tasks: dict[str, ConfigurableTask], name: str, shots: int) -> None:
    task = tasks[name]
    training = list(task.training_docs())[:shots]
    shown = "".join(f"{d['text']} {d['choices'][d['gold']]}\n\n" for d in training)
    for document in list(task.eval_docs)[:5]:
        assert task.fewshot_context(document, shots) == task.config.description + shown + document["text"]
    counts = Counter(document["gold"] for document in training)
    choices = min(len({document["gold"] for document in task.training_docs()}), shots)
    assert len(counts) == choices and max(counts.values(), default=0) - min(counts.values(), default=0) <= 1


def test_description_is_the_system_text_of_a_chat(tasks: dict[str, ConfigurableTask]) -> None:
    def template(messages: list[dict], add_generation_prompt: bool) -> str:
        assert add_generation_prompt
        return "".join(f"<{message['role']}>{message['content']}" for message in messages)

    task = tasks["tarot_entailed_polarity"]
    chat = dict(apply_chat_template=True, fewshot_as_multiturn=True, chat_template=template)
    assert task.fewshot_context(task.eval_docs[0], 1, **chat) == (
        "<system>Given a fact, answer the following question with a yes or a no.\n\n"
        "<user>Fact: Ed managed to leave 4 times. Q: Did Ed leave?\nA:<assistant>no"
        "<user>Fact: Ed managed to leave 100 times. Q: Did Ed leave?\nA:"
    )


NAVIGATE = "Q: If you follow these instructions, do you return to the starting point?"
LISTED = " ?" + "".join(f"\n  choice: {name}" for name in COLORS) + "\nA:"
CLOSEST = "Q: What is the color most closely matching this"
PROMPTS = {  # description, six shots with their answers, the first document
    "synth_navigate": (
        "Follow the instructions and say whether they lead back to the starting point. Answer True or False.\n\n",
        [
            f"{NAVIGATE} Take 6 steps. Turn right. Turn left. Take 1 step. Take 1 step. Take 6 steps. "
            "Take 1 step.\nA: False",
            f"{NAVIGATE} Always face forward. Take 4 steps left. Take 2 steps forward. Take 4 steps right. "
            "Take 6 steps backward. Take 1 step backward. Take 3 steps forward. Take 9 steps forward. "
            "Take 7 steps backward.\nA: True",
            f"{NAVIGATE} Turn right. Take 1 step. Take 7 steps. Turn left.\nA: False",
            f"{NAVIGATE} Always face forward. Take 2 steps left. Take 4 steps backward. Take 4 steps forward. "
            "Take 5 steps left. Take 7 steps right.\nA: True",
            f"{NAVIGATE} Always face forward. Take 4 steps backward. Take 6 steps forward. Take 2 steps left. "
            "Take 5 steps left. Take 1 step backward. Take 7 steps right. Take 7 steps backward. "
            "Take 6 steps forward.\nA: True",
            f"{NAVIGATE} Take 5 steps. Turn left. Turn right. Turn around. Take 9 steps. Turn around. "
            "Turn left.\nA: False",
        ],
        f"{NAVIGATE} Always face forward. Take 2 steps backward. Take 7 steps right. Take 7 steps forward. "
        "Take 3 steps forward.\nA:",
    ),
    "synth_color": (
        "Say which of the listed colors is nearest to the given one. "
        "Answer with one of: white, blue, orange, black, red, brown, yellow, green, gray, purple.\n\n",
        [
            f"{CLOSEST} HCL representation: hcl(26.78, 53.23, 44.44){LISTED} brown",
            f"{CLOSEST} RGB representation: rgb(145, 183, 25){LISTED} green",
            f"{CLOSEST} HEX representation: #c6c77f{LISTED} yellow",
            f"{CLOSEST} HCL representation: hcl(302.78, 44.83, 50.63){LISTED} purple",
            f"{CLOSEST} HCL representation: hcl(39.45, 84.67, 46.46){LISTED} red",
            f"{CLOSEST} HSL representation: hsl(39.67, 87.56%, 40.98%){LISTED} orange",
        ],
        f"{CLOSEST} RGB representation: rgb(34, 26, 165){LISTED}",
    ),
    "synth_implicatives": (
        "Given a fact, answer the question with yes or no.\n\n",
        [
            "Fact: Ed missed the chance to vote. Q: Did Ed vote?\nA: no",
            "Fact: Tom didn't refrain from speaking. Q: Did Tom speak?\nA: yes",
            "Fact: Yesterday Ed refrained from voting. Q: Did Ed vote?\nA: no",
            "Fact: Ed didn't omit to finish the book. Q: Did Ed finish the book?\nA: yes",
            "Fact: Last week Kate didn't think twice about selling the boat. Q: Did Kate sell the boat?\nA: yes",
            "Fact: Yesterday Ed didn't find the courage to tell the truth. Q: Did Ed tell the truth?\nA: no",
        ],
        "Fact: In the end Bill didn't deign to buy the tickets. Q: Did Bill buy the tickets?\nA:",
    ),
    "tarot_ag_news": (
        "Say what the news article is about. Answer World, Sports, Business or Technology.\n\n",
        [
            f"Article: The train news of day {day}.\nTopic: {topic}"
            for day, topic in [
                (6, "Technology"),
                (2, "Sports"),
                (0, "World"),
                (4, "Business"),
                (7, "Technology"),
                (3, "Sports"),
            ]
        ],
        "Article: The test news of day 0.\nTopic:",
    ),
    "tarot_color": (
        "Say which of the listed colors is nearest to the given one. "
        "Answer with one of: white, blue, orange, black, red, brown, yellow, green, gray, purple.\n\n",
        [
            f"{CLOSEST} RGB representation: rgb(0, 0, {blue}) ?\nA: {name}"
            for blue, name in [(4, "black"), (0, "blue"), (1, "blue"), (5, "black"), (6, "black"), (2, "blue")]
        ],
        f"{CLOSEST} RGB representation: rgb(0, 0, 100) ?\nA:",
    ),
    "tarot_entailed_polarity": (
        "Given a fact, answer the following question with a yes or a no.\n\n",
        [
            f"Fact: Ed managed to leave {times} times. Q: Did Ed leave?\nA: {answer}"
            for times, answer in [(4, "no"), (0, "yes"), (1, "yes"), (5, "no"), (6, "no"), (2, "yes")]
        ],
        "Fact: Ed managed to leave 100 times. Q: Did Ed leave?\nA:",
    ),
    "tarot_navigate": (
        "Follow the instructions and say whether they lead back to the starting point. Answer True or False.\n\n",
        [
            f"{NAVIGATE} Take {steps} steps.\nA: {answer}"
            for steps, answer in [(4, "False"), (0, "True"), (1, "True"), (5, "False"), (6, "False"), (2, "True")]
        ],
        f"{NAVIGATE} Take 100 steps.\nA:",
    ),
    "tarot_winowhy": (
        "Please answer the following questions about which words certain pronouns refer to. "
        "Answer correct or incorrect.\n\n",
        [
            f"Ann saw {cats} cats. The 'she' refers to ann because cats.\nThe above reasoning is {answer}"
            for cats, answer in [
                (4, "incorrect"),
                (0, "correct"),
                (1, "correct"),
                (5, "incorrect"),
                (6, "incorrect"),
                (2, "correct"),
            ]
        ],
        "Ann saw 100 cats. The 'she' refers to ann because cats.\nThe above reasoning is",
    ),
}


@pytest.mark.parametrize("name", ALL)
def test_prompts_read_as_written_here(tasks: dict[str, ConfigurableTask], name: str) -> None:
    description, shots, question = PROMPTS[name]
    document = tasks[name].eval_docs[0]
    assert tasks[name].fewshot_context(document, 0) == description + question
    assert tasks[name].fewshot_context(document, 6) == description + "\n\n".join([*shots, question])


# Paper: order and bad data


@given(golds=st.lists(st.integers(0, 4), min_size=1, max_size=40), seed=st.integers(0, 9))
def test_labels_take_turns(golds: list[int], seed: int) -> None:
    documents = [{"id": row, "gold": gold} for row, gold in enumerate(golds)]
    ordered = loaders.in_turn(documents, seed)
    assert sorted(ordered, key=lambda document: document["id"]) == documents
    left = Counter(golds)
    while ordered:
        # Each round takes one of every label that is left; within a label, documents keep their order.
        one_round, ordered = ordered[: len(left)], ordered[len(left) :]
        assert {document["gold"] for document in one_round} == set(left)
        left = Counter({gold: count - 1 for gold, count in left.items() if count > 1})
    for gold in set(golds):
        ids = [document["id"] for document in loaders.in_turn(documents, seed) if document["gold"] == gold]
        assert ids == sorted(ids)
    assert loaders.in_turn(documents, seed) == loaders.in_turn(documents, seed)


RECORD = {"idx": 0, "inputs": "Take 1 step.\nA:", "targets": ["False"]}


@pytest.mark.parametrize(
    ("third_line", "message"),
    [
        (
            '{"inputs": "Take',
            "expected a JSON object on every line, got 'Unterminated string starting at: line 1 column 12 (char 11)'; "
            "see {path}:3",
        ),
        (
            json.dumps({"inputs": "Take"}),
            "expected a record in the hub's own fields, got \"KeyError: 'targets'\"; see {path}:3",
        ),
        ("[1]", "expected a record in the hub's own fields, got {error}; see {path}:3"),
        (
            json.dumps(RECORD | {"inputs": None}),
            "expected a record in the hub's own fields, got {error}; see {path}:3",
        ),
        (
            json.dumps(RECORD | {"targets": "False"}),
            "expected a record in the hub's own fields, got {error}; see {path}:3",
        ),
        (
            json.dumps(RECORD | {"targets": ["Maybe"]}),
            "expected an answer among True, False, got 'Maybe'; see {path}:3",
        ),
        (
            json.dumps(RECORD | {"targets": [["True"]]}),
            "expected an answer among True, False, got ['True']; see {path}:3",
        ),
    ],
)
def test_bad_line_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, third_line: str, message: str) -> None:
    path = small_folder(tmp_path) / "bigbench" / "navigate" / "validation.jsonl"
    path.write_text(f"{json.dumps(RECORD)}\n{json.dumps(RECORD)}\n{third_line}\n{json.dumps(RECORD)}\n")
    monkeypatch.setenv("TAROT_DATA", str(tmp_path))
    with pytest.raises(ValueError) as caught:
        load("tarot_navigate")
    pattern = re.escape(message.format(path=path, error="ERROR")).replace(
        "ERROR", "[\"'](Type|Attribute|Value)Error: .*"
    )
    assert re.fullmatch(pattern, str(caught.value))


@pytest.mark.parametrize("label", [4, -1, None])
def test_label_outside_the_topics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, label: object) -> None:
    write(small_folder(tmp_path) / "ag_news" / "train.jsonl", [{"text": "News.", "label": label}])
    monkeypatch.setenv("TAROT_DATA", str(tmp_path))
    expected = "expected an answer among World, Sports, Business, Technology, got {!r}; see {}:1"
    with pytest.raises(ValueError) as caught:
        load("tarot_ag_news")
    assert str(caught.value) == expected.format(label, tmp_path / "ag_news" / "train.jsonl")


def test_missing_folder_missing_file_and_empty_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def said(task: str) -> str:
        with pytest.raises(ValueError) as caught:
            load(task)
        return str(caught.value)

    monkeypatch.setenv("TAROT_DATA", str(tmp_path / "nowhere"))
    nowhere = f"expected TAROT_DATA to name a folder, got '{tmp_path / 'nowhere'}'; unset it to read from the hub"
    assert said("tarot_color") == nowhere
    small_folder(tmp_path)
    monkeypatch.setenv("TAROT_DATA", str(tmp_path))
    missing = tmp_path / "bigbench" / "color" / "validation.jsonl"
    missing.unlink()
    assert said("tarot_color") == (
        f"expected the file {missing}, got 'No such file or directory'; TAROT_DATA must hold it"
    )
    missing.write_text("")
    assert (
        said("tarot_color") == "expected at least one record in the split 'validation', got none; the data is cut off"
    )


def test_without_the_folder_the_hub_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(*source: str, split: str) -> list[dict]:
        asked.append((*source, split))
        return [{"text": f"{split}.", "label": 2}] if "ag_news" in source[0] else [RECORD | {"inputs": split}]

    monkeypatch.delenv("TAROT_DATA", raising=False)
    monkeypatch.setattr(loaders, "load_dataset", load_dataset)
    data = loaders.bigbench(name="navigate", choices=["True", "False"], pretrained="any", version=1.0)
    expected = {"id": "validation-0", "text": "validation", "choices": ["True", "False"], "gold": 1}
    assert list(data["validation"]) == [expected]
    assert loaders.ag_news(choices=["World", "Sports", "Business", "Technology"])["test"]["gold"] == [2]
    assert asked == [
        ("tasksource/bigbench", "navigate", "train"),
        ("tasksource/bigbench", "navigate", "validation"),
        ("fancyzhx/ag_news", "train"),
        ("fancyzhx/ag_news", "test"),
    ]

    def unreachable(*source: str, split: str) -> None:
        raise ConnectionError("Couldn't reach it\non line two")

    monkeypatch.setattr(loaders, "load_dataset", unreachable)
    with pytest.raises(ValueError) as caught:
        loaders.bigbench(name="navigate", choices=["True", "False"])
    assert str(caught.value) == (
        'expected the data set tasksource/bigbench/navigate from the hub, got "ConnectionError: Couldn\'t reach it"; '
        "set TAROT_DATA to a folder that holds it"
    )


@pytest.fixture
def real_data() -> Path:
    if "TAROT_DATA" in os.environ:
        return Path(os.environ["TAROT_DATA"])
    if os.environ.get("CI") == "true":
        pytest.fail("TAROT_DATA is not set: in CI the paper's data must be there")
    pytest.skip("TAROT_DATA is not set: it names a folder of the paper's data, which cannot be shipped")


def test_paper_tasks_on_the_papers_data(real_data: Path) -> None:
    for name, task in load("tarot_paper").items():
        training, evaluated = list(task.training_docs()), list(task.eval_docs)
        assert not {document["text"] for document in training} & {document["text"] for document in evaluated}
        assert len(training) > 40 and len(evaluated) > 40
        for document in (*training, *evaluated):
            assert document["text"] == document["text"].strip()
            assert document["text"].endswith({"tarot_ag_news": "\nTopic:", "tarot_winowhy": " is"}.get(name, "\nA:"))
            assert not document["text"].startswith(("Given a fact", "Please answer"))
        folder = real_data / (f"bigbench/{name[6:]}" if name != "tarot_ag_news" else "ag_news")
        last = folder / ("validation.jsonl" if name != "tarot_ag_news" else "test.jsonl")
        for document, line in zip(evaluated, last.read_text().splitlines(), strict=True):
            record = json.loads(line)
            answer = document["choices"][document["gold"]]
            assert [answer] == record.get("targets", [document["choices"][record.get("label", 0)]])
        assert len({document["gold"] for document in training[:6]}) == min(6, len(training[0]["choices"]))


# Metrics


def slow_weighted_f1(pairs: list[tuple[int, int]]) -> float:
    total = 0.0
    for label in {gold for gold, _ in pairs}:
        right = sum(gold == predicted == label for gold, predicted in pairs)
        said = sum(predicted == label for _, predicted in pairs)
        there = sum(gold == label for gold, _ in pairs)
        total += there * 2 * right / (said + there)  # F1 = 2 tp / (2 tp + fp + fn)
    return total / len(pairs)


@settings(deadline=None)
@given(pairs=st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 3)), min_size=1, max_size=30))
def test_weighted_f1_agrees_with_counting(pairs: list[tuple[int, int]]) -> None:
    assert metrics.weighted_f1(pairs) == pytest.approx(slow_weighted_f1(pairs), abs=1e-12)


@given(
    results=st.lists(st.tuples(st.floats(-50, 0), st.booleans()), min_size=2, max_size=6),
    data=st.data(),
)
def test_process_results_agrees_with_its_definition(results: list[tuple[float, bool]], data: st.DataObject) -> None:
    gold = data.draw(st.integers(0, len(results) - 1))
    words = ["a" * (1 + place) for place in range(len(results))]
    choices = Random(data.draw(st.integers(0, 9))).sample(words, len(words))
    scored_texts = metrics.process_results({"choices": choices, "gold": gold}, results)
    assert set(scored_texts) == METRICS
    likeliest, said = scored_texts["f1"][1], scored_texts["greedy_f1"][1]
    assert all(results[likeliest][0] >= log_probability for log_probability, _ in results)
    assert scored_texts["acc"] == (likeliest == gold)
    greedy = {choice: place for place, choice in enumerate(choices) if results[place][1]}
    assert said == (greedy[max(greedy, key=len)] if greedy else -1)
    assert scored_texts["greedy_acc"] == (said == gold)
    assert scored_texts["gold_prob"] == pytest.approx(math.exp(results[gold][0]))
    assert scored_texts["f1"][0] == scored_texts["greedy_f1"][0] == gold


def test_greedy_outside_the_choices_is_wrong_and_a_class_of_its_own() -> None:
    document = {"choices": ["yes", "no"], "gold": 0}
    outside = metrics.process_results(document, [(-1.0, False), (-2.0, False)])
    assert (outside["acc"], outside["greedy_acc"], outside["greedy_f1"]) == (1.0, 0.0, (0, -1))
    assert metrics.weighted_f1([(0, -1), (1, -1)]) == 0.0
    # It takes away recall and no precision: F1 of "yes" is 2/3, not 1.
    assert metrics.weighted_f1([(0, 0), (0, -1)]) == pytest.approx(2 / 3)


def test_longer_of_two_greedy_choices_is_what_was_said() -> None:
    document = {"choices": ["black", "blackish", "blue"], "gold": 1}
    scored_texts = metrics.process_results(document, [(-0.1, True), (-0.2, True), (-9.0, False)])
    assert (scored_texts["greedy_f1"], scored_texts["f1"]) == ((1, 1), (1, 0))


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_what_is_no_number_chooses_nothing(broken: int) -> None:
    document = {"choices": ["black", "blackish", "blue"], "gold": 0}
    scored_texts = metrics.process_results(document, [(math.nan if i == broken else -1.0, False) for i in range(3)])
    assert scored_texts == {"acc": 0.0, "f1": (0, -1), "greedy_acc": 0.0, "greedy_f1": (0, -1), "gold_prob": 0.0}


def byte_model() -> HFLM:
    """A random Llama of two layers that reads bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: number for number, symbol in enumerate(["<pad>", "<s>", "</s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = dict(pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=4096,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval()
    return HFLM(
        pretrained=model, tokenizer=PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special), batch_size=16
    )


def test_a_real_evaluation_agrees_with_its_own_samples(paper: dict[str, ConfigurableTask]) -> None:
    torch.set_num_threads(1)
    results = simple_evaluate(
        model=byte_model(),
        tasks=["tarot_synthetic", paper["tarot_ag_news"]],
        task_manager=TaskManager(include_path=str(TASKS), include_defaults=False),
        num_fewshot=1,
        limit=6,
        bootstrap_iters=10,
        log_samples=True,
    )
    results = json.loads(json.dumps(results, default=handle_non_serializable))  # as lm-eval writes it
    assert results["n-shot"]["synth_color"] == 1
    for name in (*SOURCES, "tarot_ag_news"):
        samples, scores = results["samples"][name], results["results"][name]
        assert len(samples) == 6
        expected: dict[str, list] = {metric: [] for metric in METRICS}
        for sample in samples:
            document = sample["doc"]
            scored_texts = metrics.process_results(document, [(lp, greedy) for lp, greedy in sample["filtered_resps"]])
            for metric in METRICS:
                expected[metric].append(scored_texts[metric])
                assert sample[metric] == pytest.approx(scored_texts[metric])
            assert len(sample["arguments"]) == len(document["choices"])
            assert [c for _, c in sample["arguments"]] == [f" {choice}" for choice in document["choices"]]
        for metric in ("acc", "greedy_acc", "gold_prob"):
            assert scores[f"{metric},none"] == pytest.approx(np.mean(expected[metric]))
            assert scores[f"{metric}_stderr,none"] == pytest.approx(np.std(expected[metric], ddof=1) / math.sqrt(6))
        for metric in ("f1", "greedy_f1"):
            assert scores[f"{metric},none"] == pytest.approx(slow_weighted_f1(expected[metric]))
            assert scores[f"{metric}_stderr,none"] == "N/A"
    for metric in METRICS:
        group = results["groups"]["tarot_synthetic"][f"{metric},none"]
        assert group == pytest.approx(np.mean([results["results"][name][f"{metric},none"] for name in SOURCES]))
