"""Strict reading of JSON from files that may be damaged or hostile.

`parse_json` refuses what JSON itself allows: duplicate keys, numbers of any size, nesting of any depth, lone
surrogates. `validate` compares the values with a schema, a dataclass or a `TypedDict`. Both raise ValueError with one
line that names the field; the caller adds the file.
"""

import errno
import json
import math
import os
import stat
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from reprlib import repr as short
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Interval, MaxLen

if TYPE_CHECKING:
    from pydantic import TypeAdapter

BROKEN_JSON = (ValueError, RecursionError)
"""Exceptions of `json.loads`; the second for brackets that are nested too deep."""
LARGEST_FILE = 2**30  # bytes
DEEPEST = 200  # nested lists and objects; an adapter made from another one takes three more levels
LARGEST_INTEGER = 2**64
LARGEST_NUMBER = 1e30  # sums, squares and differences of such numbers stay finite

Number = Annotated[float, Interval(ge=-LARGEST_NUMBER, le=LARGEST_NUMBER)]
"""Finite float, small enough to compute with and to draw."""
Fraction = Annotated[float, Interval(ge=-1e-6, le=1 + 1e-6)]
"""Float from 0 to 1, with a tolerance for rounding."""
Count = Annotated[int, Interval(ge=0, lt=2**53)]
Name = Annotated[str, MaxLen(4096)]
"""Text that is printed in messages and tables."""


def read_file(path: Path, largest: int = LARGEST_FILE) -> bytes:
    """Read a regular file.

    Raises:
        OSError: the file does not exist, is not regular (a pipe would block), or has more than `largest` bytes.
    """
    with open(path, "rb", opener=_open_without_blocking) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        content = file.read(largest + 1)
    if len(content) > largest:
        raise OSError(errno.EFBIG, f"more than {largest:,} bytes", str(path))
    return content


def _open_without_blocking(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def parse_json(content: bytes, *, infinite: bool = False) -> Any:
    """Parse UTF-8 JSON, with or without a byte order mark; the token NaN becomes None, as null does.

    Args:
        content: the bytes of a file, or of a line of one.
        infinite: accept Infinity, which Python writes for an interval without bounds.

    Raises:
        ValueError: not UTF-8, not JSON, a key that occurs twice in an object, a number that is too large, a lone
            surrogate, or lists and objects nested too deep.
    """
    try:
        value = json.loads(content.decode("utf-8-sig"), parse_constant=_constant, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError(f"lists or objects nested more than {DEEPEST} deep") from None
    _check_values(value, math.inf if infinite else LARGEST_NUMBER)
    return value


def _constant(token: str) -> float | None:
    return None if token == "NaN" else float(token)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        key, _ = max(Counter(key for key, _ in pairs).items(), key=lambda item: item[1])
        raise ValueError(f"the key {short(key)} twice in one object")
    return values


def _check_values(value: Any, largest: float) -> None:
    """Raise ValueError for a value that is too large, nested too deep or not UTF-8; without recursion."""
    waiting: list[tuple[Any, int]] = [(value, 0)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, float):
            if not abs(value) <= largest:
                raise ValueError(f"the number {value}, which is too large")
        elif isinstance(value, str):
            if not value.isascii() and not _has_utf8(value):
                raise ValueError(f"half a surrogate pair in {short(value)}")
        elif isinstance(value, int):
            if abs(value) > LARGEST_INTEGER:
                raise ValueError(f"an integer of {value.bit_length()} bits, which is too large")
        elif isinstance(value, dict | list):
            if depth == DEEPEST:
                raise ValueError(f"lists or objects nested more than {DEEPEST} deep")
            if isinstance(value, dict):
                waiting += [(key, depth + 1) for key in value]
            waiting += [(each, depth + 1) for each in (value.values() if isinstance(value, dict) else value)]


def _has_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def validate(kind: Any, value: Any) -> Any:
    """Build a `kind`, which is a dataclass or a TypedDict, from parsed JSON.

    Types are strict: text is not converted to numbers, nor true to 1.

    Raises:
        ValueError: a field is missing, of another type, or outside its bounds; the message names the first one.
    """
    from pydantic import ValidationError  # slow to import, and only needed to read files

    try:
        # As text: pydantic's strict mode accepts a list for a tuple only in JSON.
        return _schema(kind).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_context=False)[0]
        raise ValueError(f"{field_name(wrong['loc'])}: {wrong['msg']}, not {short(wrong['input'])}") from None


def field_name(location: Sequence[str | int]) -> str:
    """Return the path of a field in a file, such as `arms.0.name`."""
    return ".".join(str(part) if len(str(part)) < 40 else f"{str(part)[:40]}..." for part in location) or "the file"


@cache
def _schema(kind: Any) -> "TypeAdapter[Any]":
    from pydantic import TypeAdapter

    return TypeAdapter(kind)
