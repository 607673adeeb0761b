"""Limit a checkpoint's chat template: the sandbox of jinja bounds neither time nor memory."""

import sys
import threading
import time
from ast import literal_eval
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from pathlib import Path
from types import FrameType
from typing import Any

from jinja2 import Environment, TemplateSyntaxError

from tarot.edit.patch import restoring

MOST_LINES = 500_000  # of template code in one rendering; a long conversation with tools takes thousands
LONGEST = 1.0  # seconds of this thread's processor time in one rendering
LARGEST_CONSTANT = 1_000_000
MOST_MEMORY = 1 << 28  # bytes of address space that one rendering may add
_FILE = "<template>"  # the file name that jinja gives compiled templates
_one_at_a_time = threading.RLock()  # the memory limit is the process's, not a thread's


@lru_cache(maxsize=8)
def check_constants(template: str) -> None:
    """Check a template for arithmetic that could take minutes or all memory in a single instruction.

    A template with a syntax error passes here; rendering it raises.

    Raises:
        ValueError: a power, or a number beyond a million, by which text could be repeated or padded.
    """
    with suppress(TemplateSyntaxError):
        for _, kind, text in Environment().lex(template):
            if kind == "operator" and text == "**":
                raise ValueError("a power")
            if kind in ("integer", "float") and not abs(literal_eval(text)) <= LARGEST_CONSTANT:
                raise ValueError(f"the number {text[:20]}")


@contextmanager
def limited_template(most: int = MOST_LINES, seconds: float = LONGEST) -> Iterator[None]:
    """Limit the templates that the body renders in this thread.

    Args:
        most: lines of compiled template code.
        seconds: processor time of the thread.

    Raises:
        OverflowError: a template exceeds a limit.
    """
    left, end = most, time.thread_time() + seconds

    def count(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        if event == "line":
            left -= 1
            if left < 0 or time.thread_time() > end:
                raise OverflowError(f"more than {most:,} steps or {seconds:g} seconds")
        return count

    def enter(frame: FrameType, event: str, argument: object) -> Any:
        return count if frame.f_code.co_filename == _FILE else None

    before = sys.gettrace()
    with _one_at_a_time, _limited_memory(), restoring(partial(sys.settrace, before)):
        sys.settrace(enter)
        yield


@contextmanager
def _limited_memory() -> Iterator[None]:
    """Let the process allocate little more than it has, so that a larger text raises MemoryError; on Linux only."""
    if sys.platform != "linux":
        yield
        return
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = pages * resource.getpagesize() + MOST_MEMORY
    with restoring(partial(resource.setrlimit, resource.RLIMIT_AS, (soft, hard))):
        resource.setrlimit(resource.RLIMIT_AS, (most if soft == resource.RLIM_INFINITY else min(most, soft), hard))
        yield
