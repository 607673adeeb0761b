"""Task code: an exception ends in one line that names task, step and document, and no answer is computed twice."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import transformers
from checkpoint import save_checkpoint
from cli_suite import run_in

from tarot.errors import TarotError
from tarot.evaluation.evaluate import check_tasks
from tarot.models.lm_eval_model import TarotLM
from tarot.objectives.tasks.task_code import as_tarot_error
from tarot.objectives.tasks.task_loading import load_task

TASK = """
task: fragile
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/test.jsonl, train: {folder}/train.jsonl}}}}
test_split: test
training_split: train
output_type: multiple_choice
doc_to_text: !function code.text
doc_to_choice: choices
doc_to_target: gold
process_results: !function code.judge
metric_list: [{{metric: acc, aggregation: !function code.total, higher_is_better: true}}]
filter_list: [{{name: none, filter: [{{function: custom, filter_fn: !function code.keep}}]}}]
"""
# Each step fails while a file of its name stands beside the code: with an exception that has no message, a line break
# or an exit code 0.
CODE = """
from pathlib import Path

def fails(step):
    return Path(__file__).with_name(step).exists()

def text(doc):
    if fails("text") and doc["question"] == "item 11":
        raise KeyError
    if fails("first") and doc["question"] == "item 3":
        raise ValueError("a\\nmessage")
    return doc["question"]

def judge(doc, results):
    if fails("judge") and doc["question"] == "item 11":
        raise ZeroDivisionError("division\\nby zero")
    if fails("leave") and doc["question"] == "item 11":
        raise SystemExit(0)
    return {"acc": float(doc["gold"] == 0)}

def keep(resps, docs):
    if fails("filter"):
        raise IndexError("no such answer")
    return resps

def total(values):
    if fails("total"):
        raise TypeError("not a number")
    return sum(values) / len(values)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a folder with a model and a task whose steps can be made to fail."""
    project = tmp_path_factory.mktemp("project")
    save_checkpoint(project / "model", layers=1)
    (project / "tasks").mkdir()
    (project / "tasks" / "fragile.yaml").write_text(TASK.format(folder=project / "tasks").lstrip())
    (project / "tasks" / "code.py").write_text(CODE)
    for split, rows in (("test", range(12)), ("train", range(100, 112))):
        lines = [{"question": f"item {row}", "choices": ["red", "blue"], "gold": row % 2} for row in rows]
        (project / "tasks" / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return project


@contextmanager
def failing(project: Path, step: str) -> Iterator[None]:
    """Make one step of the task fail in the body."""
    (project / "tasks" / step).touch()
    try:
        yield
    finally:
        (project / "tasks" / step).unlink()


@contextmanager
def counted() -> Iterator[list[int]]:
    """Count the requests that models answer in the body."""
    n_requests: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        stock = TarotLM.loglikelihood

        def noted(self: TarotLM, requests: list[object], *rest: object, **options: object) -> object:
            n_requests.append(len(requests))
            return stock(self, requests, *rest, **options)

        patch.setattr(TarotLM, "loglikelihood", noted)
        yield n_requests


EVALUATE = ("evaluate", "--model", "model", "--device", "cpu", "--tasks", "fragile", "--include-path", "tasks")


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (
            "judge",
            "process_results of fragile failed on document 11: ZeroDivisionError: division by zero",
        ),
        ("leave", "process_results of fragile failed on document 11: SystemExit: 0"),
        ("filter", "The filters of fragile failed: IndexError: no such answer"),
        ("total", "lm-eval failed to aggregate the metrics of fragile: TypeError: not a number"),
    ],
)
def test_answers_survive_a_later_failure(
    project: Path, capsys: pytest.CaptureFixture[str], step: str, message: str
) -> None:
    output = f"{step}.json"
    with failing(project, step), counted() as n_requests:
        assert run_in(project, *EVALUATE, "--output", output) == 2
    error = capsys.readouterr().err
    assert message in error.splitlines()[-1] and "Traceback" not in error
    assert n_requests == [24] and not (project / output).exists()
    kept = project / f".{output}.answers.jsonl"
    assert len(kept.read_text().splitlines()) == 24 and kept.name in error
    with counted() as n_requests:
        assert run_in(project, *EVALUATE, "--output", output) == 0
    assert n_requests == [] and not kept.exists()
    assert len(json.loads((project / output).read_text())["samples"]["fragile"]) == 12


def test_a_template_that_fails_on_the_first_documents_fails_before_the_model_loads(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with failing(project, "text"):
        assert run_in(project, *EVALUATE) == 2
    assert "doc_to_text of fragile failed on document 11: KeyError" in capsys.readouterr().err.splitlines()[-1]
    monkeypatch.delattr(transformers.AutoModelForCausalLM, "from_pretrained")  # no model may be read
    with failing(project, "first"):
        assert run_in(project, *EVALUATE) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert "doc_to_text of fragile failed on document 3: ValueError: a message" in error
        arguments = ("--model", "model", "--task", "fragile", "--include-path", "tasks")
        assert run_in(project, "tune", *arguments, "--samples", "4", "--output", "adapter") == 2
        assert "ValueError: a message" in capsys.readouterr().err
        assert not (project / "adapter").exists()


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("unsafe_code: true", "expected a task without unsafe code, got 'fragile', which sets unsafe_code"),
        ("doc_to_image: question", "expected a task of texts only, got 'fragile'"),
        ("process_docs: !function code.leave", "expected a task file and data that lm-eval can load for fragile"),
    ],
)
def test_tasks_that_lm_eval_refuses_fail_before_the_model_loads(
    project: Path, tmp_path: Path, head: str, message: str
) -> None:
    for file in (project / "tasks").glob("*.*"):
        (tmp_path / file.name).write_text(file.read_text())
    with (tmp_path / "code.py").open("a") as code:
        code.write("\ndef leave(docs):\n    raise SystemExit(0)\n")
    with (tmp_path / "fragile.yaml").open("a") as task:
        task.write(f"{head}\n")
    with pytest.raises(TarotError, match=message):
        check_tasks(["fragile"], include_path=tmp_path)


def test_a_working_task_is_unchanged(project: Path) -> None:
    task = load_task("fragile", project / "tasks")
    document = next(iter(task.eval_docs))
    assert task.doc_to_text(document) == "item 0" and task.doc_to_target(document) == 0


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(0), TarotError("a", "b")])
def test_every_exception_becomes_one_line(error: BaseException) -> None:
    with pytest.raises(TarotError) as raised, as_tarot_error("A thing failed"):
        raise error
    assert isinstance(error, TarotError) or str(raised.value).startswith("A thing failed: ")


def test_ctrl_c_is_not_an_error() -> None:
    with pytest.raises(KeyboardInterrupt), as_tarot_error("A thing failed"):
        raise KeyboardInterrupt
