"""Interrupts: Ctrl-C at any instruction leaves a model unchanged, and the command ends with one line."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
from stress_interrupts import CHANGES, fresh_model, is_unchanged, rounds, state, weights

import tarot.__main__ as entry


@pytest.mark.parametrize("name", CHANGES)
def test_no_interrupt_leaves_a_change(name: str) -> None:
    """Interrupt some of the instructions; `stress_interrupts.py` interrupts them all."""
    assert all(itertools.islice(rounds(CHANGES[name]), 60))


@pytest.mark.parametrize("name", CHANGES)
def test_without_an_interrupt_only_a_merge_is_left(name: str) -> None:
    """The test above also accepts what a complete change leaves."""
    model = fresh_model()
    before = state(model), [each.clone() for each in weights(model)]
    CHANGES[name](model)
    assert is_unchanged(model, before) == (name != "merge_rotation")


INTERRUPT_AGAIN = """
import sys, tarot.__main__ as entry
class Twice:
    # Interrupt the command again while it prints its last line.
    def __init__(self, stream): self.stream, self.left = stream, 1
    def write(self, text):
        if text.strip() and self.left:
            self.left = 0
            raise KeyboardInterrupt
        return self.stream.write(text)
    def flush(self): self.stream.flush()
import tarot.cli.main
def run(): raise KeyboardInterrupt
tarot.cli.main.main = run
sys.stderr = Twice(sys.stderr)
entry.script()
"""
INTERRUPT_IMPORT = """
import builtins, sys, tarot.__main__ as entry
own = builtins.__import__
def interrupted(name, *rest, **more):
    if name == "tarot.cli.main": raise KeyboardInterrupt
    return own(name, *rest, **more)
builtins.__import__ = interrupted
entry.script()
"""
INTERRUPT_SHUTDOWN = """
import atexit, sys, tarot.__main__ as entry, tarot.cli.main
def stop(): raise KeyboardInterrupt
class Finalised:
    def __del__(self): raise KeyboardInterrupt
def run():
    atexit.register(stop)
    global kept
    kept = Finalised()
    raise KeyboardInterrupt
tarot.cli.main.main = run
entry.script()
"""


@pytest.mark.parametrize("program", [INTERRUPT_AGAIN, INTERRUPT_IMPORT, INTERRUPT_SHUTDOWN])
def test_the_command_ends_with_one_line(program: str) -> None:
    root = str(Path(entry.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": root}
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_other_errors_keep_their_traceback() -> None:
    lines = "import tarot.cli.main, tarot.__main__ as entry", "def run(): 1 / 0", "tarot.cli.main.main = run"
    program = "\n".join([*lines, "entry.script()"])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.endswith("ZeroDivisionError: division by zero\n")
