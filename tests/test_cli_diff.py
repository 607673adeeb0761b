"""`tarot diff`: its exit code agrees with what it prints."""

from pathlib import Path

import pytest
from cli_suite import run_in
from test_regression import comparison

from tarot.report.results_csv import save_comparisons

pytest_plugins = ["cli_suite"]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Results of two cells; in `worse.json` one of them is lost, and `part.json` lacks it."""
    good, lost = comparison([True] * 40), comparison([False] * 40, seed=1)
    save_comparisons([good, comparison([True] * 40, seed=1)], tmp_path / "old.json")
    save_comparisons([good, lost], tmp_path / "worse.json")
    save_comparisons([good], tmp_path / "part.json")
    save_comparisons([lost], tmp_path / "lost.json")
    (tmp_path / "rewards.json").write_text('{"format": 1, "rewards": []}')
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "code", "last"),
    [
        (("old.json", "old.json"), 0, "all 2 cells passed"),
        (("old.json", "worse.json"), 1, "1 of 2 cells failed"),
        (("worse.json", "old.json"), 0, "all 2 cells passed"),
        (("old.json", "worse.json", "--tolerance", "1"), 0, "all 2 cells passed"),
        (("old.json", "part.json"), 1, "1 of 2 cells failed"),
        (("old.json", "part.json", "--allow-missing"), 0, "all 2 cells passed"),
    ],
)
def test_the_exit_code_is_that_of_the_last_line(
    files: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, last: str
) -> None:
    assert run_in(files, "diff", *arguments) == code
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == last
    assert sum(line.startswith("FAILED ") for line in printed) == code


def test_a_failure_says_how_to_accept_it(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_in(files, "diff", "old.json", "worse.json")
    printed = capsys.readouterr().out
    assert "right then and wrong now: 40" in printed
    assert printed.count("to accept an intended change: cp worse.json old.json") == 1


def test_advice_discards_no_cell_that_may_be_missing(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_in(files, "diff", "old.json", "lost.json", "--allow-missing")
    advice = "measure the cells and documents that lost.json lacks into that file, then cp lost.json old.json"
    assert capsys.readouterr().out.count(f"to accept an intended change: {advice}") == 1


def test_results_of_evaluate_are_named(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "evaluated.json").write_text('{"results": {}}')
    assert run_in(files, "diff", "evaluated.json", "evaluated.json") == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "tarot evaluate" in error and "tarot compare" in error


def test_results_of_a_reward_are_named(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_in(files, "diff", "old.json", "rewards.json") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "rewards.json holds texts that a reward scored" in line


@pytest.mark.parametrize(
    "arguments", [("missing.json", "old.json"), ("old.json", "old.json", "--tolerance", "nan"), ("old.json",)]
)
def test_errors_have_their_own_code(files: Path, arguments: tuple[str, ...]) -> None:
    assert run_in(files, "diff", *arguments) == 2
