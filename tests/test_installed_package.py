"""The package as pip installs it: a test of three lines in another project gets a gain, a report and a gate."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from checkpoint import save_checkpoint

from tarot.evaluation.regression import save_reference
from tarot.evaluation.results_file import load_comparisons

PROJECT = Path(__file__).parent.parent
TEST = """
import pytest

@pytest.mark.tarot(model="model", task="synth_implicatives", seed=(0, 1), num_samples=6, budget=3, limit=12, draws=1)
def test_the_edit_is_measured(tarot_gain):
    assert tarot_gain.greedy_f1.n == 12
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package installed from a wheel of the checkout, without its dependencies."""
    target = tmp_path_factory.mktemp("installed")
    alone = ("--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check")
    command = [sys.executable, "-m", "pip", "install", "--quiet", *alone, "--target", str(target), str(PROJECT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


def test_a_new_project_gets_a_gain_a_report_and_a_gate(installed: Path, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "model")
    (tmp_path / "test_edit.py").write_text(TEST)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(installed), "COLUMNS": "300"}
        command = [sys.executable, "-m", "pytest", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    first = run("--tarot-save-baseline=edits.json", "--tarot-report=report")
    assert first.returncode == 0, first.stdout
    assert "2 passed" in first.stdout and "tarot: weighted F1 of the greedy answer" in first.stdout
    assert "synth_implicatives" in (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    comparisons = load_comparisons(tmp_path / "edits.json")
    assert [(comparison.seed, len(comparison.gold)) for comparison in comparisons] == [(0, 12), (1, 12)]

    # In the baseline the first of two cells is perfect, so it has regressed now; the second is unchanged.
    first_cell, second_cell = comparisons
    perfect = [
        replace(arm, predicted=first_cell.gold, greedy=first_cell.gold) if arm.name == "edited" else arm
        for arm in first_cell.arms
    ]
    save_reference([replace(first_cell, arms=tuple(perfect)), second_cell], tmp_path / "edits.json")
    second = run("--tarot-baseline=edits.json")
    assert second.returncode == pytest.ExitCode.TESTS_FAILED and "2 passed" in second.stdout
    failures = [line for line in second.stdout.splitlines() if line.startswith("FAILED tarot gate::")]
    assert len(failures) == 1 and "seed 0" in failures[0] and "fell by" in failures[0]
    assert "seed 1: weighted F1 of the greedy answer +0.000 since then" in second.stdout


def test_the_installed_package_is_what_runs(installed: Path, tmp_path: Path) -> None:
    """A checkout in the environment must not be imported instead of the wheel."""
    code = "import tarot, tarot.objectives.task_names as names; print(tarot.__file__); print(names.tasks_folder())"
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    module, tasks = done.stdout.split()
    assert Path(module).is_relative_to(installed) and Path(tasks) == installed / "tarot" / "tasks"
