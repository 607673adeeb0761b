"""Documents: duplicates are recognized however they are written, and each document has one right answer."""

import html
import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_eval.api.task import Task

from tarot.errors import TarotError
from tarot.objectives.tasks.documents import (
    document_key,
    normalize_text,
    question_key,
    question_part,
    right_choice,
    shot_keys,
)
from tarot.objectives.tasks.task_loading import load_task

CHOICES = ["red", "redder", "reddish blue", "blue"]
FULL_WIDTH = {code: code + 0xFEE0 for code in range(0x21, 0x7F)} | {ord(" "): 0x3000}
DISGUISES: tuple[Callable[[str], str], ...] = (
    str.upper,
    str.title,
    lambda text: unicodedata.normalize("NFD", text),
    lambda text: text.translate(FULL_WIDTH),
    lambda text: text.replace(" ", "\u00a0"),
    lambda text: text.replace(" ", " \n\t "),
    lambda text: "\u200b".join(text),
    lambda text: f"\ufeff {text} \n",
    lambda text: text.replace("'", "\u2019").replace("-", "\u2011"),
    lambda text: text.replace("'", "\u02bc").replace("-", "\ufe63"),
    lambda text: text.replace("'", "`").replace("-", "\ufe58"),
    lambda text: text.replace('"', "\u2033"),
    lambda text: re.sub('"(.*?)"', r"``\1''", text),
    lambda text: re.sub('"(.*?)"', "\u201e\\1\u201c", text),
    lambda text: text.replace("fi", "\ufb01").replace("1/2", "\u00bd"),
    lambda text: text.replace("i", "\u0130"),
    lambda text: "\0".join(text),
    html.escape,
    lambda text: f"{text}.",
    lambda text: text.replace(" ", ", "),
)
TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{train: {folder}/train.jsonl, test: {folder}/test.jsonl}}}}
training_split: train
test_split: test
{body}
"""
KINDS = {
    "plain": """output_type: multiple_choice
doc_to_text: "{{question}}\\nA:"
doc_to_choice: choices
doc_to_target: gold""",
    # as in MMLU: the choices are in the question, and the answer is a letter
    "letters": """output_type: multiple_choice
doc_to_text: "{{question}}\\nA. {{choices[0]}}\\nB. {{choices[1]}}\\nC. {{choices[2]}}\\nD. {{choices[3]}}\\nAnswer:"
doc_to_choice: ["A", "B", "C", "D"]
doc_to_target: gold""",
    "inline": """output_type: multiple_choice
doc_to_text: "{{question}} Options: (a) {{choices[0]}} (b) {{choices[1]}} (c) {{choices[2]}} (d) {{choices[3]}}. A:"
doc_to_choice: ["a", "b", "c", "d"]
doc_to_target: gold""",
    "inputs": """output_type: multiple_choice
doc_to_text: gold
doc_to_choice: choices
doc_to_target: question""",
    "written": """output_type: generate_until
generation_kwargs: {until: ["\\n"]}
doc_to_text: "{{question}}"
doc_to_target: "{{choices[gold]}}"
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]""",
    "scored": """output_type: loglikelihood
doc_to_text: ""
doc_to_target: "{{question}} is asked" """,
}


def row(question: str, gold: int = 0, choices: Sequence[str] = CHOICES) -> dict[str, object]:
    return {"question": question, "choices": list(choices), "gold": gold}


def write(folder: Path, name: str, body: str, test: Sequence[dict[str, object]]) -> Task:
    (folder / f"{name}.yaml").write_text(TASK.format(name=name, folder=folder, body=body))
    for split, rows in (("train", [row(f"item {i}") for i in range(9)]), ("test", test)):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    return load_task(name, folder)


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Task]:
    folder = tmp_path_factory.mktemp("kinds")
    return {name: write(folder, name, body, [row("item 1000")]) for name, body in KINDS.items()}


words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cn", "Co"]), min_size=1, max_size=8)
words |= st.text(st.sampled_from("&;#39ampx'`. \u200b"), max_size=12)


@given(st.lists(words, min_size=1, max_size=5), st.lists(st.sampled_from(DISGUISES), max_size=3))
def test_normalizing_undoes_every_disguise(text: list[str], disguises: list[Callable[[str], str]]) -> None:
    plain = 'caf\u00e9 it\'s well-known & "fine" 1/2 ' + " ".join(
        word for word in text if word.isalnum() and word.isascii()
    )
    written = plain
    for disguise in disguises:
        written = disguise(written)
    assert normalize_text(written) == normalize_text(plain)


@given(words)
def test_normalizing_twice_changes_nothing(text: str) -> None:
    assert normalize_text(normalize_text(text)) == normalize_text(text)


@pytest.mark.parametrize("kind", KINDS)
@given(number=st.integers(0, 10**6), disguise=st.sampled_from(DISGUISES), order=st.permutations(range(4)))
@settings(max_examples=25)
def test_the_same_question_has_the_same_key(
    kinds: dict[str, Task], kind: str, number: int, disguise: Callable[[str], str], order: list[int]
) -> None:
    task, plain = kinds[kind], row(f"Which item is {number}?", 2)
    turned = row(f"Which item is {number}?", order.index(2), [CHOICES[i] for i in order])
    assert question_key(task, turned) == question_key(task, plain)
    written = row(disguise(str(plain["question"])), 2, [disguise(choice) for choice in CHOICES])
    if kind != "inline":  # some disguises change the frame of a question that lists its choices in one line
        assert question_key(task, written) == question_key(task, plain)
    assert question_key(task, plain) in shot_keys(task, turned)
    assert question_part(document_key(task, turned)) == question_key(task, plain)


@pytest.mark.parametrize("kind", KINDS)
def test_other_questions_have_other_keys(kinds: dict[str, Task], kind: str) -> None:
    task = kinds[kind]
    texts = ["item 1", "item 2", "item 12", "item -1", "item 1 2", "a item", "item 1.2", "\u00edtem 1", "1 item"]
    assert len({question_key(task, row(text)) for text in texts}) == len(texts)
    if kind not in ("written", "scored"):  # which show no choices
        others = [CHOICES, ["red", "redder", "green", "blue"]]
        assert len({question_key(task, row("item", 0, choices)) for choices in others}) == 2


def test_a_number_in_the_question_is_not_a_listed_answer(kinds: dict[str, Task]) -> None:
    choices = ["1", "2", "3", "4"]
    sums = [row(f"What is 1 + {i}?", 0, choices) for i in (1, 2, 3)]
    for kind in ("letters", "inline"):
        assert len({question_key(kinds[kind], each) for each in sums}) == 3


@pytest.mark.parametrize(
    "gold, choices, keyword",
    [
        (4, CHOICES, "got 4 in here of plain"),
        (-1, CHOICES, "got -1"),
        (-100, CHOICES, "got -100"),
        (None, CHOICES, "got None"),
        (1.0, CHOICES, "got 1.0"),
        (1.5, CHOICES, "got 1.5"),
        ("green", CHOICES, "got 'green'"),
        ("", CHOICES, "got ''"),
        ([], CHOICES, r"got \[\]"),
        ([0, 1], CHOICES, "one right answer"),
        (0, [], "non-empty choices"),
        (0, ["red", " "], "non-empty choices"),
        (0, ["red", "blue", "red"], "twice"),
    ],
)
def test_answers_that_are_not_one_choice(
    kinds: dict[str, Task], gold: object, choices: list[str], keyword: str
) -> None:
    with pytest.raises(TarotError, match=keyword):
        right_choice(kinds["plain"], "here", {"question": "item", "choices": choices, "gold": gold})


@given(gold=st.integers(0, 3))
def test_indices_and_texts_are_answers(kinds: dict[str, Task], gold: int) -> None:
    for target in (gold, CHOICES[gold], [gold]):
        assert right_choice(kinds["plain"], "here", {"question": "", "choices": CHOICES, "gold": target}) == gold
