"""Limit what a checkpoint's chat template may compute: jinja's sandbox does not bound nested loops or recursion."""

import sys
import time
from ast import literal_eval
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from types import FrameType
from typing import Any

from jinja2 import Environment, TemplateSyntaxError

MOST_LINES = 500_000  # of template code in one rendering; a long conversation with tools takes thousands
LONGEST = 1.0  # seconds of this thread's processor time in one rendering
LARGEST_CONSTANT = 1_000_000
_FILE = "<template>"  # the file name that jinja gives compiled templates


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
    sys.settrace(enter)
    try:
        yield
    finally:
        sys.settrace(before)
