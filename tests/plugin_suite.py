"""What the tests of the pytest plugin share: a small model and task, runs on them, and comparisons made by hand.

PYTEST_DONT_REWRITE
"""

from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
from checkpoint import save_checkpoint, write_tasks

from tarot.evaluation.results.comparison import Arm, Comparison

# An inner run in this process forgets what it imports, and torch cannot be imported twice: import everything first.
for _module in ("evaluation.grid.adapter_cache", "evaluation.compare", "pytest_plugin.explanation", "report.page"):
    import_module(f"tarot.{_module}")

SEARCH = ("--tarot-budget=3", "--tarot-space=head", "--tarot-search=random")
SMALL = ("--tarot-tasks=own_choice", "--tarot-num-samples=6", "--tarot-draws=0", *SEARCH)
GAIN = """
def test_gain(tarot_gain):
    assert tarot_gain.comparison.keys
"""


@pytest.fixture
def wide_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Show whole messages in the short summary."""
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)


@pytest.fixture(scope="session")
def suite_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, task files, and a cache that the tests share."""
    folder = tmp_path_factory.mktemp("suite")
    save_checkpoint(folder / "model")
    for path in write_tasks(folder / "tasks", test=20).glob("*.jsonl"):
        path.write_text(path.read_text().replace('"redder"', '"tan"').replace('"blue"', '"sky"'))
    return folder


@pytest.fixture
def small_cell(suite_folder: Path, wide_lines: None) -> tuple[str, ...]:
    """Options of a small cell on that model."""
    return (
        *SMALL,
        f"--tarot-model={suite_folder / 'model'}",
        f"--tarot-include-path={suite_folder / 'tasks'}",
        f"--tarot-work={suite_folder / 'cache'}",
    )


def five_documents() -> Comparison:
    """Return a comparison of five documents: three likeliest choices became right, one became wrong."""
    comparison = Comparison("m", "t", 0, 0, 20, 60, "bo", "head", "margin", "tarot tune", (), (), (), (), 1.0, 1.0)
    gold, texts = (0, 1, 0, 1, 1), ("first " + "long " * 40, "second", "third", "fourth", "fifth")
    arm = Arm("zero-shot", 0, (1, 1, 0, 0, 0), (-1,) * 5, (0.5,) * 5, 1.0)
    arms = (arm, replace(arm, name="edited", predicted=(0, 1, 1, 1, 1)))
    choices = ((" no", " yes"),) * 5
    return replace(comparison, keys=tuple("abcde"), gold=gold, texts=texts, arms=arms, choices=choices)


def right_answers(n: int, seed: int, documents: int = 40) -> Comparison:
    """Return a comparison in which the edited model answers the first `n` documents right."""
    gold = (0, 1) * (documents // 2)
    answers = tuple(g if i < n else 1 - g for i, g in enumerate(gold))
    arms = [Arm(name, 0, gold, gold, (0.5,) * documents, 1.0) for name in ("zero-shot", "edited")]
    arms[1] = replace(arms[1], predicted=answers, greedy=answers)
    keys = tuple(map(str, range(documents)))
    return replace(five_documents(), seed=seed, keys=keys, gold=gold, texts=keys, arms=tuple(arms), choices=())
