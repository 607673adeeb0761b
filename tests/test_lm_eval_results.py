"""Reading documents and answers from lm-eval's results."""

import math
from pathlib import Path

import pytest
from checkpoint import write_tasks
from test_compare import folder, loaded, tuned

from tarot.errors import TarotError
from tarot.evaluation.compare import compare
from tarot.evaluation.evaluate import evaluate
from tarot.evaluation.lm_eval_results import logged_documents, read_answers
from tarot.models.loaded_model import LoadedModel
from tarot.objectives.tasks.task_loading import load_task

__all__ = ["folder", "loaded"]  # fixtures


def test_right_answers_in_every_form(folder: Path) -> None:
    task = load_task("own_choice", folder)

    def document(
        gold: object, flags: tuple[bool, ...] = (False, True, True), metrics: tuple[str, ...] = ("acc",)
    ) -> dict:
        doc = {"question": "item 1", "choices": ["red", "redder", "tan"], "gold": gold}
        scored = [(math.log(p), flag) for p, flag in zip((0.1, 0.2, 0.7), flags, strict=True)]
        arguments = [("item 1", f" {choice}") for choice in doc["choices"]]
        if "acc_mutual_info" in metrics:
            scored, arguments = scored + [(0.0, True)] * 3, arguments + [("", "")] * 3
        return {"doc_id": 5, "doc": doc, "filtered_resps": scored, "arguments": arguments, "metrics": metrics}

    gold, arm = read_answers(
        task, [document(1), document("redder"), document(0, (False,) * 3), document(1, metrics=("acc_mutual_info",))]
    )
    assert gold == (1, 1, 0, 1)
    assert arm.predicted == (2, 2, 2, 2)
    assert arm.greedy == (1, 1, -1, 1)  # of two greedy answers the longer
    assert arm.gold_probability == pytest.approx((0.2, 0.2, 0.1, 0.2))
    broken = document(0, (False,) * 3) | {"filtered_resps": [(math.nan, False)] * 3}
    gold, arm = read_answers(task, [broken, broken])  # a broken model is never right
    assert (gold, arm.predicted, arm.greedy, arm.gold_probability) == ((0, 0), (-1, -1), (-1, -1), (0.0, 0.0))
    with pytest.raises(TarotError, match=r"expected one right answer among the choices, got \[1, 2\] in document 5"):
        read_answers(task, [document([1, 2])])
    assert read_answers(task, [document([1])])[0] == (1,)
    with pytest.raises(
        TarotError,
        match=r"expected a gold answer among \['red', 'redder', 'tan'\], "
        r"got 7 in document 5 of own_choice; check doc_to_target",
    ):
        read_answers(task, [document(7)])


FILTERS = """
filter_list:
  - {name: strict, filter: [{function: regex, regex_pattern: "^(z+)$"}, {function: take_first}]}
  - {name: loose, filter: [{function: take_first}]}
"""


def test_documents_of_several_filters_count_once(loaded: LoadedModel, tmp_path: Path) -> None:
    """lm-eval logs each document once a filter; counting it twice would make intervals too narrow."""
    folder = write_tasks(tmp_path, test=6)
    (file := folder / "generate.yaml").write_text(file.read_text() + FILTERS)
    adapter = tuned(loaded, folder, task="own_generate")
    comparison = compare(loaded.model, loaded.tokenizer, adapter, include_path=folder)
    assert (
        len(comparison.gold)
        == len(comparison.keys)
        == len(comparison.texts)
        == len(comparison.arm("edited").greedy)
        == 6
    )
    results = evaluate(loaded.model, loaded.tokenizer, ["own_generate"], include_path=folder)
    assert len(results["samples"]["own_generate"]) == 12
    assert {document["filter"] for document in logged_documents(results, "own_generate")} == {"strict"}


CONTEXTS = """
doc_to_text: "{{gold}}"
doc_to_choice: "{{choices}}"
doc_to_target: " it is."
"""


def test_if_contexts_are_the_choices_the_likeliest_is_the_answer(loaded: LoadedModel, tmp_path: Path) -> None:
    """All contexts have the same continuation, so the generated text does not show the choice."""
    folder = write_tasks(tmp_path)
    file = folder / "choice.yaml"
    kept = [line for line in file.read_text().splitlines() if not line.startswith("doc_to_")]
    file.write_text("\n".join(kept) + CONTEXTS)
    task = load_task("own_choice", folder)
    assert task.multiple_input
    results = evaluate(loaded.model, loaded.tokenizer, ["own_choice"], include_path=folder)
    gold, arm = read_answers(task, logged_documents(results, "own_choice"))
    assert arm.greedy == arm.predicted and min(arm.greedy) >= 0
    right = sum(a == b for a, b in zip(gold, arm.predicted, strict=True)) / len(gold)
    assert right == pytest.approx(results["results"]["own_choice"]["acc,none"])
