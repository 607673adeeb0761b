"""What the tests of the command line share: a folder with a model, task files and a tuned adapter, and running there.

PYTEST_DONT_REWRITE
"""

import sys
from pathlib import Path

import pytest
from checkpoint import save_checkpoint, write_tasks

from tarot.__main__ import main
from tarot.evaluation.results.comparison import Arm, Comparison
from tarot.evaluation.results.results_file import comparisons_to_json

MODEL = ("--model", "model", "--device", "cpu")
INCLUDE = ("--include-path", "tasks")
TASK = (*INCLUDE, "--tasks", "own_choice")
SMALL = ("--num-samples", "5", "--budget", "4", "--space", "head", "--search", "random")
TUNE = ("tune", *MODEL, *TASK, *SMALL, "--num-fewshot", "2")
EDIT = (*MODEL, "--adapter", "adapter", *INCLUDE)
MERGE = ("--model", "model", "--adapter", "adapter")


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, task files, a tuned adapter, and a file of cells as `tarot bench` writes it."""
    home = tmp_path_factory.mktemp("home")
    (home / "cache").mkdir()  # the libraries' cache
    save_checkpoint(home / "model")
    write_tasks(home / "tasks")
    assert run_in(home, *TUNE, "--output-path", "adapter") == 0
    arms = (Arm("zero-shot", 0, (0,), (0,), (0.5,), 1.0), Arm("edited", 5, (0,), (0,), (0.5,), 1.0))
    search = (5, 4, "random", "head", "log_probability", "tarot tune")
    comparison = Comparison("model", "task", 0, 0, *search, ("a",), (0,), ("A",), arms, 2.0, 0.1, request_digest="0123")
    (home / "bench.json").write_text(comparisons_to_json([comparison]))
    return home


def run_in(folder: Path, *arguments: str) -> int:
    """Run the command in a folder, and return its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setattr(sys, "argv", ["tarot", *arguments])
        try:
            return int(main() or 0)
        except SystemExit as stop:
            return int(stop.code or 0)
