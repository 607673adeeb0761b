"""A limit on what a checkpoint's chat template may do: jinja's sandbox bounds one range, and no loop within a loop."""

import sys
import time
from ast import literal_eval
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from types import FrameType
from typing import Any

from jinja2 import Environment, TemplateSyntaxError

MOST_LINES = 500_000  # of a template's code in one rendering; a long conversation with tools takes some thousands
LONGEST = 1.0  # seconds of this thread's processor time in one rendering
LARGEST_CONSTANT = 1_000_000
_FILE = "<template>"  # where jinja's code comes from, for tracebacks


@lru_cache(maxsize=8)
def check_constants(template: str) -> None:
    """Raise ValueError for arithmetic that one instruction could spend minutes or all memory on.

    That is a power, or a number beyond a million: text can be repeated or padded so many times. A template with a
    syntax error passes; its rendering raises.
    """
    with suppress(TemplateSyntaxError):
        for _, kind, text in Environment().lex(template):
            if kind == "operator" and text == "**":
                raise ValueError("a power")
            if kind in ("integer", "float") and not abs(literal_eval(text)) <= LARGEST_CONSTANT:
                raise ValueError(f"the number {text[:20]}")


@contextmanager
def limited_template(most: int = MOST_LINES, seconds: float = LONGEST) -> Iterator[None]:
    """Raise OverflowError in a template that runs more than `most` lines of its code, or longer, in this thread."""
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
    sys.settrace(enter)
    try:
        yield
    finally:
        sys.settrace(before)
