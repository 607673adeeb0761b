"""What goes wrong, said in one line: what was expected, what came, what to try."""

from collections.abc import Iterable
from difflib import get_close_matches


class TarotError(Exception):
    """Expected this, got that; try this.

    Args:
        expected: what would have been accepted.
        got: what came instead.
        hint: what to try; may be empty.

    The message is a single line whatever the parts contain, so that a command can print it as it stands.
    """

    def __init__(self, expected: str, got: str, hint: str = "") -> None:
        message = f"expected {expected}, got {got}"
        super().__init__(" ".join((f"{message}; {hint}" if hint else message).split()))

    def __reduce__(self) -> tuple[object, ...]:
        """From one process to another: by what it says, not by what it was made of."""
        return _said_again, (type(self), str(self))


def _said_again(kind: type[TarotError], message: str) -> TarotError:
    error = kind.__new__(kind)
    error.args = (message,)
    return error


class UnknownName(TarotError):
    """A name that is not among the known ones; the nearest is offered."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        nearest = get_close_matches(name, names, n=1, cutoff=0.5)
        some = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
        super().__init__(
            f"a known {kind}",
            repr(name),
            f"did you mean {nearest[0]!r}?" if nearest else f"known: {some}" if some else "none is known here",
        )


class ShapeMismatch(TarotError):
    """Two shapes that had to be equal."""

    def __init__(self, what: str, expected: tuple[int, ...], got: tuple[int, ...], hint: str = "") -> None:
        super().__init__(f"{what} of shape {tuple(expected)}", f"shape {tuple(got)}", hint)
