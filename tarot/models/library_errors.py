"""FIXME: one sentence on this module."""

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager

from tarot.errors import TarotError


def brief(error: Exception) -> str:
    text = f"no {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
    return textwrap.shorten(text, 200, placeholder=" ...")


@contextmanager
def reported_as(expected: str, hint: str = "") -> Iterator[None]:
    """Whatever a library raises over files that it cannot read, in one line."""
    try:
        yield
    except TarotError:
        raise
    except Exception as error:
        raise TarotError(expected, brief(error), hint) from error
