"""Errors for users: one line that says what is wrong and what to do."""

import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from typing import Any

# Control, format and surrogate characters, line and paragraph separators: a terminal interprets or hides them.
_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_LONGEST_PART = 1000  # characters


def printable(text: str) -> str:
    r"""Replace characters that a terminal interprets or hides with their escapes.

    These are control characters, bidirectional overrides, zero-width characters, line separators and lone surrogates.

    Example:
        >>> print(printable("\x1b[2Jname"))
        \x1b[2Jname
    """
    if text.isprintable():
        return text
    return "".join(
        char.encode("unicode_escape").decode() if unicodedata.category(char) in _UNPRINTABLE else char for char in text
    )


class TarotError(Exception):
    """Error whose message a command prints unchanged: "expected X, got Y; try Z", or one plain sentence.

    The message is a single line of printable characters, whatever the arguments contain. Long arguments are cut.

    Args:
        expected: what is accepted; or, without `got`, a sentence.
        got: the value that was found instead.
        hint: what to try; may be empty.

    Attributes:
        expected: None for a plain sentence.
        got: None for a plain sentence.
        hint: None if there is no hint.

    Example:
        >>> error = TarotError("a bound above 0", "-1", "try 0.785")
        >>> str(error), error.hint
        ('expected a bound above 0, got -1; try 0.785', 'try 0.785')
        >>> str(TarotError("'x.json' is a file, not a folder."))
        "'x.json' is a file, not a folder."
    """

    def __init__(self, expected: str, got: str | None = None, hint: str = "") -> None:
        first = _one_line(expected)
        self.expected = None if got is None else first
        self.got = None if got is None else _one_line(got)
        self.hint = _one_line(hint) or None
        message = first if got is None else f"expected {first}, got {self.got}"
        if self.hint:
            sentence = message if message.endswith("...") else message.removesuffix(".")
            message = f"{sentence}; {self.hint}"
        super().__init__(" ".join(message.split()))

    def __reduce__(self) -> tuple[object, ...]:
        """Rebuild from the message and the attributes: the constructors of subclasses take other arguments."""
        return _rebuild, (type(self), self.args, vars(self))


def _one_line(text: str) -> str:
    line = printable(" ".join(text.split()))
    return line if len(line) <= _LONGEST_PART else f"{line[: _LONGEST_PART - 3]}..."


def _rebuild(kind: type[TarotError], arguments: tuple[object, ...], attributes: dict[str, object]) -> TarotError:
    error = kind.__new__(kind, *arguments)
    error.args = arguments
    vars(error).update(attributes)
    return error


def install_extra(extra: str) -> str:
    """Return the hint that installs an extra; from a checkout, since no package index has tarot.

    Example:
        >>> install_extra("ui")
        "in tarot's checkout: python -m pip install -e '.[ui]'"
    """
    return f"in tarot's checkout: python -m pip install -e '.[{extra}]'"


def require_package(package: str, needed_by: str, extra: str) -> None:
    """Raise TarotError unless a package of an extra is installed; it is not imported, which may take seconds."""
    if find_spec(package) is None:
        raise TarotError(f"{needed_by} needs the package {package}.", hint=install_extra(extra))


def import_package(module: str, needed_by: str, extra: str) -> Any:
    """Return a module of a package of an extra; TarotError if it cannot be imported."""
    try:
        return import_module(module)
    except ImportError as error:
        raise TarotError(f"{needed_by} needs {module}.", hint=install_extra(extra)) from error


class InvalidValueError(TarotError, ValueError):
    """Value that is not allowed, which a caller may catch as a ValueError."""


class FileAccessError(TarotError, OSError):
    """File or folder that cannot be read or written, which a caller may catch as an OSError."""


class MissingFileError(TarotError, FileNotFoundError):
    """File or folder that does not exist, which a caller may catch as a FileNotFoundError."""


class UnknownName(InvalidValueError):
    """Name that is not among the known ones; the message offers the nearest.

    Args:
        kind: what the name should name, such as "task".
        name: the unknown name.
        known: the known names.
        note: follows the hint.

    Example:
        >>> str(UnknownName("search", "boo", ["adam", "bo"]))
        "expected a known search, got 'boo'; did you mean 'bo'?"
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], note: str = "") -> None:
        names = sorted(known)
        nearest = get_close_matches(name, names, n=1, cutoff=0.5)
        listed = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"known: {listed}" if listed else "none is known here"
        super().__init__(f"a known {kind}", repr(name), f"{hint}; {note}" if note else hint)


class ShapeMismatch(InvalidValueError):
    """Two shapes that must be equal and are not.

    Args:
        what: name of the array.
        expected: the shape it must have.
        got: the shape it has.
        hint: what to try; may be empty.
    """

    def __init__(self, what: str, expected: tuple[int, ...], got: tuple[int, ...], hint: str = "") -> None:
        super().__init__(f"{what} of shape {tuple(expected)}", f"shape {tuple(got)}", hint)


LONGEST_REASON = 200  # characters


def brief(error: Exception) -> str:
    """Return an exception's message on one line of at most `LONGEST_REASON` characters, or its class if it has none."""
    text = f"no {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
    return textwrap.shorten(text, LONGEST_REASON, placeholder=" ...")


@contextmanager
def reported_as(failure: str, hint: str = "") -> Iterator[None]:
    """Raise what a library raises in the body as a TarotError: "(failure): (its message); (hint)".

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


_LISTED = 10  # documents that a note names


def describe_missing_numbers(documents: Sequence[object], n: int) -> str:
    """Return a note that counts and names the documents, of `n`, for which a model computed NaN or infinity."""
    listed = ", ".join(map(str, documents[:_LISTED])) + (", ..." if len(documents) > _LISTED else "")
    return f"{len(documents)} of {n} documents without a number (NaN or infinite): {listed}"
