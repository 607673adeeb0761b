"""`tarot try`: what it shows for a prompt, a task and typed lines, and how it ends."""

import io
import sys
from pathlib import Path
from typing import NoReturn

import pytest
from cli_suite import INCLUDE, MODEL, run_in

from tarot.cli import try_
from tarot.evaluation import side_by_side

pytest_plugins = ["cli_suite"]

TRY = ("try", *MODEL, "--adapter", "adapter")
FEW = ("--max-new-tokens", "4")


class Terminal(io.StringIO):
    """A standard input that looks like a terminal."""

    def isatty(self) -> bool:
        return True


def test_defaults_are_those_of_the_library() -> None:
    assert try_.MAX_NEW_TOKENS == side_by_side.MAX_NEW_TOKENS


def test_a_prompt_is_answered_by_both(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_in(home, *TRY, *FEW, "--prompt", "item 7", "--strength", "0.5") == 0
    header = capsys.readouterr().out.splitlines()[1]
    assert header.split() == ["base", "edited,", "strength", "0.5"]


def test_strength_0_writes_the_base_text(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_in(home, *TRY, *FEW, "--prompt", "item 7", "--strength", "0", "--no-chat") == 0
    lines = [line for line in capsys.readouterr().out.splitlines()[3:] if line.strip()]
    assert lines and all(line[2:40].strip() == line[42:].strip() for line in lines)


def test_a_task_shows_its_first_documents(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_in(home, *TRY, *FEW, "--tasks", "own_choice", *INCLUDE) == 0
    printed = capsys.readouterr().out
    assert [line for line in printed.splitlines() if line.startswith("test/")] == [f"test/{row}" for row in range(5)]
    assert "item 1004" in printed and "item 1005" not in printed
    assert printed.count("right: ") == printed.count("log p(answer)") == printed.count("writes") == 5
    assert run_in(home, *TRY, *FEW, "--tasks", "own_choice", *INCLUDE, "--limit", "0.1") == 0
    assert capsys.readouterr().out.count("right: ") == 2


def test_lines_of_a_pipe_are_prompts(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("item 7\n\n  \nitem 8"))
    assert run_in(home, *TRY, *FEW) == 0
    printed = capsys.readouterr().out
    assert printed.count("edited") == 2 and ">" not in printed


def test_a_pipe_that_is_not_text_is_an_error(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\n"), encoding="utf-8"))
    assert run_in(home, *TRY) == 2
    assert "utf-8" in capsys.readouterr().err.splitlines()[-1]


def test_a_terminal_is_told_how_to_end(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal("item 7\n"))
    assert run_in(home, *TRY, *FEW) == 0
    printed = capsys.readouterr().out
    assert "Ctrl-D" in printed and printed.count("> ") == 2 and printed.endswith("\n")


@pytest.mark.parametrize(("stdin", "code"), [(Terminal, 0), (io.StringIO, 130)])
def test_ctrl_c_ends_it(
    home: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    stdin: type[io.StringIO],
    code: int,
) -> None:
    def interrupt(prompt: str) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stdin", stdin())
    monkeypatch.setattr("builtins.input", interrupt)
    assert run_in(home, *TRY) == code
    assert ("interrupted" in capsys.readouterr().err) == (code == 130)
