"""What a model writes outside the choices: the texts agree with what scoring says of the same model."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tarot.evaluation import written
from tarot.evaluation.as_tuned import config_of, evaluate_as_tuned
from tarot.evaluation.compare import compare
from tarot.evaluation.lm_eval_results import choice_texts, logged_documents, read_answers, shorten_answer
from tarot.evaluation.options import EvaluationOptions
from tarot.evaluation.results.comparison import LONGEST_ANSWER, OUTSIDE
from tarot.evaluation.written import write_outside
from tarot.models.lm_eval_bars import bars_as_steps
from tarot.objectives.tasks.task_loading import load_task


@pytest.fixture(scope="module")
def answered(loaded: Any, tasks_folder: Path, tuned_adapter: Any) -> Any:
    """The task, and its documents as the edited model answers them."""
    results = evaluate_as_tuned(loaded, config_of(tuned_adapter), tuned_adapter, EvaluationOptions(tasks_folder))
    return load_task("own_choice", tasks_folder), logged_documents(results, "own_choice")


def test_only_documents_outside_the_choices_are_written(loaded: Any, answered: Any, tuned_adapter: Any) -> None:
    task, documents = answered
    greedy = read_answers(task, documents)[1].greedy
    texts = write_outside(loaded, task, documents, tuned_adapter)
    assert OUTSIDE in greedy
    assert [bool(text) for text in texts] == [answer == OUTSIDE for answer in greedy]


def test_generated_texts_are_a_step_and_draw_no_bar(
    loaded: Any, answered: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    task, documents = answered
    steps: list[tuple[str, int, int]] = []
    texts = write_outside(loaded, task, documents)
    with bars_as_steps(lambda *step: steps.append(step)):
        assert write_outside(loaded, task, documents) == texts
    n_written = len(list(filter(None, texts)))
    assert steps[-1] == ("generating texts", n_written, n_written)
    assert "%" not in capsys.readouterr().err


def test_generated_texts_begin_with_a_choice_exactly_where_scoring_says_so(
    loaded: Any, answered: Any, tuned_adapter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Generation and scoring are separate code; they must agree about the edited model."""
    task, documents = answered
    prompts = [document["arguments"][0][0] for document in documents]
    monkeypatch.setattr(written, "WRITTEN_TOKENS", 20)
    texts = written._generate(loaded, prompts, tuned_adapter, None)
    greedy = read_answers(task, documents)[1].greedy
    choices = choice_texts(task, documents)
    begins = [any(text.startswith(choice) for choice in each) for text, each in zip(texts, choices, strict=True)]
    assert begins == [answer != OUTSIDE for answer in greedy]
    assert texts != written._generate(loaded, prompts, None, None)  # so the edit was applied


def test_texts_of_a_task_that_generates_are_those_it_logged(loaded: Any, tasks_folder: Path) -> None:
    from tarot.evaluation.evaluate import evaluate

    results = evaluate(loaded.model, loaded.tokenizer, "own_generate", include_path=tasks_folder, limit=3)
    documents = logged_documents(results, "own_generate")
    task = load_task("own_generate", tasks_folder)
    texts = write_outside(loaded, task, documents)
    greedy = read_answers(task, documents)[1].greedy
    assert [text == shorten_answer(d["resps"][0][0]) for text, d in zip(texts, documents, strict=True)] == [
        answer == OUTSIDE for answer in greedy
    ]
    assert OUTSIDE in greedy
    assert choice_texts(task, documents) == tuple((d["target"],) for d in documents)


def test_a_comparison_has_choices_texts_date_and_machine(loaded: Any, tasks_folder: Path, tuned_adapter: Any) -> None:
    comparison = compare(loaded.model, loaded.tokenizer, tuned_adapter, include_path=tasks_folder, draws=2, limit=4)
    assert [len(choices) for choices in comparison.choices] == [3] * 4
    for name in ("zero-shot", "few-shot", "edited"):
        arm = comparison.arm(name)
        assert [bool(text) for text in arm.written] == [answer == OUTSIDE for answer in arm.greedy]
    assert [arm.written for arm in comparison.draws] == [(), ()]  # long prompts, five times
    assert comparison.date[:2] == "20" and comparison.machine
    assert comparison.reference_seconds == min(comparison.reference_times)
    row = comparison.base.greedy.index(OUTSIDE)
    assert comparison.answer_text(row, OUTSIDE, comparison.base).startswith("wrote \N{LEFT DOUBLE QUOTATION MARK}")
    assert comparison.answer_text(row, 1) == comparison.choices[row][1].strip()
    broken = replace(comparison.base, without_number=(row,))
    assert comparison.answer_text(row, OUTSIDE, broken) == "no number"
    assert comparison.answer_text(row, OUTSIDE, replace(broken, without_number=(), written=())) == "none of the choices"
    assert replace(comparison, choices=()).answer_text(row, 1) == "choice 1"


def test_long_answers_are_cut_and_control_characters_are_escaped() -> None:
    assert shorten_answer("\x1b[2J\n\u202e") == r"\x1b[2J\n\u202e"
    cut = shorten_answer("a" * 1000)
    assert len(cut) == LONGEST_ANSWER and cut.endswith("\N{HORIZONTAL ELLIPSIS}")
