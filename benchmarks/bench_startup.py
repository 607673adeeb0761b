"""Time what a user waits for before anything is computed: each in a process of its own."""

import subprocess
import sys
from typing import Any

import pytest

ROUNDS = 3
COMMANDS = {
    "tarot --help": ("-m", "tarot", "--help"),
    "tarot models": ("-m", "tarot", "models"),
    "tarot tune --help": ("-m", "tarot", "tune", "--help"),
    "import tarot": ("-c", "import tarot"),
    "import transformers, lm_eval": ("-c", "import transformers, lm_eval.api.task"),
}


@pytest.mark.parametrize("command", COMMANDS)
def bench_startup(benchmark: Any, command: str) -> None:
    """Time a command from its start to its end."""
    benchmark.group = "start-up"
    line = [sys.executable, *COMMANDS[command]]
    benchmark.pedantic(
        subprocess.run, args=(line,), kwargs={"check": True, "capture_output": True}, rounds=ROUNDS, warmup_rounds=1
    )
