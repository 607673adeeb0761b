"""Turn what another library raises into one line for users."""

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager

from tarot.errors import TarotError

LONGEST = 200  # characters


def brief(error: Exception) -> str:
    """Return an exception's message on one line of at most `LONGEST` characters, or its class if it has none."""
    text = f"no {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
    return textwrap.shorten(text, LONGEST, placeholder=" ...")


@contextmanager
def reported_as(failure: str, hint: str = "") -> Iterator[None]:
    """Raise any exception of the body as a TarotError: "(failure): (its message); (hint)".

    A TarotError passes unchanged.

    Args:
        failure: what went wrong, such as "Cannot read a.gguf".
        hint: what to try; may be empty.
    """
    try:
        yield
    except TarotError:
        raise
    except Exception as error:
        raise TarotError(f"{failure}: {brief(error)}", hint=hint) from error
