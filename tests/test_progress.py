"""Progress: a line for each step where there is no terminal, a bar where there is one, and why a search ended."""

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_suite import INCLUDE, MODEL, SMALL, TASK, run_in
from typer.main import get_command

from tarot.cli.console import PlainConsole
from tarot.cli.main import app
from tarot.cli.progress import CellProgress, StepProgress, announce, why_ended

pytest_plugins = ["cli_suite"]


def console(*, terminal: bool) -> PlainConsole:
    return PlainConsole(file=io.StringIO(), width=120, force_terminal=terminal)


def printed(console: PlainConsole) -> str:
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_a_step_is_one_line_without_a_terminal() -> None:
    quiet = console(terminal=False)
    with StepProgress(quiet) as show:
        for done in range(3):
            show("reading", done, 2)
        show.begin_part("edited", 2, 7)
        show("scoring", 0, 1000)
        show("scoring", 1000, 1000)
    assert printed(quiet) == "reading\nedited, arm 2 of 7: scoring\n"


def test_a_terminal_has_one_bar_for_the_current_step() -> None:
    terminal = console(terminal=True)
    with StepProgress(terminal) as show:
        show("reading", 2, 2)
        show("scoring", 3, 4, "best 0.5")
    last = printed(terminal).split("\x1b[2K")[-1]
    assert "scoring  best 0.5" in last and "3/4" in last and "reading" not in last


@pytest.mark.parametrize(
    ("spent", "fitted", "interrupted", "reason"),
    [
        (120, False, False, "budget spent after 120 of 120"),
        (119, True, False, "budget spent after 119 of 120"),
        (45, True, False, "training samples fitted after 45 of 120"),
        (3, False, False, "no gradient to follow after 3 of 120"),
        (45, False, False, "no better score for many trials after 45 of 120"),
        (45, False, True, "interrupted after 45 of 120"),
    ],
)
def test_why_a_search_ended(spent: int, fitted: bool, interrupted: bool, reason: str) -> None:
    provenance = {"spent": spent, "fitted": fitted, "interrupted": interrupted, "trials": spent // 3, "budget": 120}
    assert why_ended(provenance, 3) == f"{reason} evaluations"


def test_a_search_that_cross_validation_refused_says_so() -> None:
    provenance = {"spent": 3, "fitted": False, "interrupted": False, "trials": 1, "budget": 9, "cross_validation": {}}
    assert why_ended(provenance, 3) == "cross-validation found no benefit after 3 of 9 evaluations"


def test_an_early_stop_ends_complete_and_says_why(home: os.PathLike[str], capsys: pytest.CaptureFixture[str]) -> None:
    early = ("--objective", "accuracy", "--search", "random", "--budget", "40")
    assert run_in(home, "tune", *MODEL, *TASK, *SMALL, *early, "--output-path", "early") == 0
    lines = capsys.readouterr().err.splitlines()
    assert "searching, 40 evaluations" in lines and lines[-1].endswith("of 40 evaluations")


def test_a_grid_names_cell_and_phase(capsys: pytest.CaptureFixture[str]) -> None:
    with CellProgress(3) as progress:
        progress.start(1)
        progress.begin_phase("model-task", "edited, arm 2 of 4")
        progress.advance()
        progress.begin_phase("other-task", "tuning by adam, 120 evaluations")
    assert capsys.readouterr().err.splitlines() == [
        "cells that are in the file already: 1",
        "model-task, cell 2 of 3: edited, arm 2 of 4",
        "other-task, cell 3 of 3: tuning by adam, 120 evaluations",
    ]


def test_arms_are_named_and_lm_evals_bars_are_gone(home: os.PathLike[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_in(home, "compare", *MODEL, "--adapter", "adapter", *INCLUDE, "--limit", "3") == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "%" in line or "it/s" in line] == []
    assert "edited, arm 3 of 5: scoring answers" in lines
    assert "few-shot calibrated, arm 5 of 5: scoring answers" not in lines


HEAVY = """
import contextlib, io, shlex, sys
from importlib.abc import MetaPathFinder
from tarot.cli.main import app
from tarot.errors import TarotError
from typer.main import get_command

class Heavy(BaseException):
    pass

class Refuse(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers", "lm_eval", "numpy", "scipy", "matplotlib", "gradio"):
            raise Heavy(name)
        if name.startswith("inspect_ai."):  # whether the package is there may be looked up
            raise Heavy(name)

sys.meta_path.insert(0, Refuse())
for name, command in get_command(app).commands.items():
    (_, *arguments) = shlex.split(command.epilog.removeprefix("Example: "))
    for further in ([], ["--log-format", "inspect"]) if name == "compare" else ([],):
        err = io.StringIO()
        with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
            imported = "nothing"
            try:
                app([*arguments, *further], standalone_mode=False)
            except Heavy as error:
                imported = str(error)
            except TarotError:  # a file of the example does not exist
                pass
        print(name, imported, err.getvalue().strip(), sep="|")
"""


def test_every_command_prints_a_line_before_it_imports_what_takes_seconds(tmp_path: Path) -> None:
    """Run the example of each command's help where such an import raises."""
    (tmp_path / "my-peft").mkdir()
    done = subprocess.run([sys.executable, "-c", HEAVY], capture_output=True, text=True, check=True, cwd=tmp_path)
    outcomes = [line.split("|") for line in done.stdout.splitlines()]
    commands: Any = get_command(app)
    assert {name for name, _, _ in outcomes} == set(commands.commands)
    assert [name for name, _, printed in outcomes if printed != f"{name}: importing libraries"] == ["models"]
    assert all(imported != "nothing" for name, imported, _ in outcomes if name not in ("models", "diff", "report"))


def test_the_first_line_comes_before_torch(capsys: pytest.CaptureFixture[str]) -> None:
    announce("tune")
    assert capsys.readouterr().err == ""  # this process has imported torch
    code = "import sys; from tarot.cli.progress import announce; announce('tune'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "tune: importing libraries\n" and done.stdout == "False\n"
