"""The package as pip installs it: a test of three lines in another project gets a gain, a report and a gate."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoint import save_checkpoint
from fabricated import fabricated

from tarot.report.results_csv import save_comparisons

PROJECT = Path(__file__).parent.parent
TEST = """
import pytest

@pytest.mark.tarot(model="model", task="synth_implicatives", num_samples=6, budget=3, limit=12, draws=1)
def test_the_edit_is_measured(tarot_gain):
    assert tarot_gain.greedy_f1.n == 12
"""
# A checkout in the environment must not be imported instead of the wheel.
ORIGIN = """
import tarot
from tarot.objectives.tasks.task_names import tasks_folder

def test_the_installed_package_is_what_runs(pytestconfig):
    installed = pytestconfig.rootpath / "installed"
    assert tarot.__file__ == str(installed / "tarot" / "__init__.py")
    assert tasks_folder() == installed / "tarot" / "tasks"
"""


def run(folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    full = {**os.environ, "COLUMNS": "300", **environment}
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, env=full, capture_output=True, text=True, check=False
    )


def test_a_new_project_gets_a_gain_a_report_and_a_gate(tmp_path: Path) -> None:
    installed = tmp_path / "installed"
    alone = ("--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check", "--no-compile")
    pip = run(tmp_path, "pip", "install", "--quiet", *alone, "--target", str(installed), str(PROJECT))
    assert pip.returncode == 0, pip.stderr
    save_checkpoint(tmp_path / "model")
    (tmp_path / "test_edit.py").write_text(TEST + ORIGIN)
    save_comparisons([fabricated()], tmp_path / "edits.json")
    options = ("--rootdir=.", "--tarot-reference=edits.json", "--tarot-report=report")
    done = run(tmp_path, "pytest", *options, "test_edit.py", PYTHONPATH=str(installed))
    # The gate fails, since the run does not measure what the baseline holds.
    assert done.returncode == pytest.ExitCode.TESTS_FAILED and "2 passed" in done.stdout, done.stdout
    (failure,) = [line for line in done.stdout.splitlines() if line.startswith("FAILED tarot gate::")]
    assert "made_up" in failure and "not measured" in failure
    assert "tarot: weighted F1 of the greedy answer" in done.stdout
    assert "synth_implicatives" in (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
