"""Random changes of files: the structure of JSON, the header of safetensors, or bytes."""

import copy
import json
import random
from collections.abc import Iterator
from typing import Any


def _nested(depth: int, opening: str, closing: str) -> str:
    return opening * depth + "0" + closing * depth


ODD_VALUES = (
    *("null", "true", "false", "0", "-1", "1", "2", "0.5", "-0.5", "1e308", "-1e308", "1e-320", "1e999", "-1e999"),
    *("NaN", "Infinity", "-Infinity", str(2**31), str(2**53), str(2**63), str(-(2**64)), str(10**30), "1" + "0" * 400),
    *("1" + "0" * 5000, '""', '"1"', '"nan"', '"a"', '"../../x"', '"/"', '"' + "a" * 10_000 + '"', '"\\u0000"'),
    *(
        r'"\u001b]0;owned\u0007\u001b[2J"',
        r'"\u202eabc"',
        r'"\u2028\n\r"',
        r'"\ud800"',
        '"[bold]x[/nothing]"',
        '"$x^{$"',
    ),
    *('"classifier:org/name#x"', '"os:system"', '"<script>"', '"{{ 1 }}"', '"```\\n---\\n# x"', '"_x"', '"=1+1"'),
    *("[]", "{}", "[[]]", "[null]", '[""]', '{"": 0}', '{"a": 1, "a": 2}', '[1, "a", null]', '{"provenance": {}}'),
    *(_nested(150, "[", "]"), _nested(500, "[", "]"), _nested(20_000, "[", "]"), _nested(300, '{"a":', "}")),
)


class _Raw(str):
    """JSON text that replaces a value."""


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every value within a value, as its container and its key or index."""
    waiting = [value]
    while waiting:
        inside = waiting.pop()
        if isinstance(inside, dict | list):
            for key in list(inside) if isinstance(inside, dict) else range(len(inside)):
                yield inside, key
                waiting.append(inside[key])


def _dump(value: Any) -> str:
    if isinstance(value, _Raw):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: {_dump(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_dump, value)) + "]"
    return json.dumps(value)


def _change_structure(value: Any, rng: random.Random) -> Any:
    """Change one place of parsed JSON."""
    places = list(_places(value))
    if not places or rng.random() < 0.02:
        return _Raw(rng.choice(ODD_VALUES))
    inside, key = rng.choice(places)
    kind = rng.randrange(7)
    if kind <= 2:
        inside[key] = _Raw(rng.choice(ODD_VALUES))
    elif kind == 3:
        del inside[key]
    elif kind == 4:
        other, place = rng.choice(places)
        if place in other if isinstance(other, dict) else place < len(other):
            inside[key] = copy.deepcopy(other[place])
    elif isinstance(inside, list):
        inside[key:key] = [copy.deepcopy(inside[key]) for _ in range(rng.choice((1, 2, 50)))]
    else:
        renamed = rng.choice((f"{key}x", key.upper(), "", "\x1b[2J", "-1", "1e3", "x" * 5000))
        inside[renamed] = inside.pop(key) if kind == 5 else copy.deepcopy(inside[key])
    return value


def _change_bytes(content: bytes, rng: random.Random) -> bytes:
    """Change, insert, repeat or drop some bytes."""
    begin = rng.randrange(len(content) + 1)
    end = min(len(content), begin + rng.choice((0, 1, 2, 8, 100)))
    tokens = (
        b"\0",
        b"\x1b[2J",
        b"\xff",
        b"\xc3(",
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
        b"\xe2\x80\xae",
        b"\n",
        b"\r",
        b'"',
    )
    jinja = (
        b"{{",
        b"{%",
        b"%}",
        b"{% for i in range(10 ** 12) %}",
        b"{{ 1 // 0 }}",
        b"{{ 9 ** 9 ** 9 }}",
        b"{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
        b"{{ x.y.z }}",
        b"{{ messages[9].a }}",
    )
    kind = rng.randrange(9)
    if kind == 0:
        return content[:begin]
    if kind == 1:
        return content[:begin] + content[end:]
    if kind == 2:
        return content[:begin] + content[begin:end] * rng.choice((2, 3, 50)) + content[end:]
    if kind == 3:
        return content[:begin] + rng.randbytes(end - begin) + content[end:]
    if kind == 4:
        return content[:begin] + rng.choice(tokens + jinja) + content[end:]
    if kind == 5:
        return (
            content[:begin] + rng.choice((b"[", b"{", b"9", b"-", b" ")) * rng.choice((2, 400, 100_000)) + content[end:]
        )
    if kind == 6:
        return rng.choice(
            (b"", b"\n", b"null", b"\xef\xbb\xbf" + content, content.decode(errors="replace").encode("utf-16"))
        )
    if kind == 7 and begin < len(content):
        return content[:begin] + bytes([content[begin] ^ 1 << rng.randrange(8)]) + content[begin + 1 :]
    return content[begin:] + content[:begin]


def _parsed(content: bytes, lines: bool) -> list[Any] | None:
    try:
        return [json.loads(part) for part in (content.splitlines() if lines else [content])]
    except ValueError:
        return None


def change(name: str, content: bytes, rng: random.Random) -> bytes:
    """Change a file: the structure of JSON, the header of safetensors, or bytes."""
    lines = name.endswith(".jsonl")
    values = _parsed(content, lines)
    if values is not None and rng.random() < 0.8:
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            index = rng.randrange(len(values))
            values[index] = _change_structure(values[index], rng)
        content = "\n".join(map(_dump, values)).encode(errors="surrogatepass") + b"\n"
        return _change_bytes(content, rng) if rng.random() < 0.05 else content
    if name.endswith(".safetensors") and rng.random() < 0.7:
        size = int.from_bytes(content[:8], "little")
        header = _dump(_change_structure(json.loads(content[8 : 8 + size]), rng)).encode(errors="surrogatepass")
        return len(header).to_bytes(8, "little") + header + content[8 + size :]
    for _ in range(rng.choice((1, 1, 2, 4))):
        content = _change_bytes(content, rng)
    return content
