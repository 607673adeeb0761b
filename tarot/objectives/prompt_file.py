r"""Files of prompts that a user wants to retain: `.txt`, one prompt a line, or `.jsonl`, one JSON object a line.

An object has one key: "prompt" (a user's message), "messages" (a chat, each message with a role and a content), or
"text" (continued as it stands, without a chat template).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tarot._files.strict_json import parse_json, read_file
from tarot.errors import InvalidValueError, MissingFileError
from tarot.objectives.tasks.prompts import ChatTemplate

MAX_BYTES = 2**24
_EXPECTED = 'an object with "prompt", "messages" or "text"'


def is_prompt_file(name: str) -> bool:
    """Return whether a name is that of a file and not of a task.

    Example:
        >>> is_prompt_file("my.jsonl"), is_prompt_file("synth_color")
        (True, False)
    """
    return Path(name).suffix in (".jsonl", ".txt")


def read_prompt_file(path: str | Path, template: ChatTemplate | None) -> list[str]:
    """Return the prompts of a file as the model sees them, without repetitions.

    Args:
        path: the file; blank lines are skipped.
        template: renders messages; without one a chat is its contents, one a paragraph.

    Raises:
        MissingFileError: There is no such file.
        InvalidValueError: It cannot be read, has no prompts, or has a line of another form.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"The file of prompts {path} does not exist.", hint="check --retain")
    try:
        lines = read_file(path, MAX_BYTES).decode("utf-8-sig").replace("\r\n", "\n").split("\n")
    except (OSError, ValueError) as error:
        raise InvalidValueError(f"a file of prompts in UTF-8 of at most {MAX_BYTES} bytes", str(path)) from error
    prompts: dict[str, None] = {}
    for number, line in enumerate(lines, start=1):
        if line.strip():
            where = f"line {number} of {path}"
            prompts[_render({"prompt": line} if path.suffix == ".txt" else _parse(line, where), template, where)] = None
    if not prompts:
        raise InvalidValueError(f"The file of prompts {path} has no prompts.", hint="check --retain")
    return list(prompts)


def _parse(line: str, where: str) -> Any:
    try:
        return parse_json(line.encode())
    except ValueError as error:
        raise InvalidValueError(_EXPECTED, f"{where}: {error}") from error


def _render(entry: Any, template: ChatTemplate | None, where: str) -> str:
    kind, value = next(iter(entry.items())) if isinstance(entry, Mapping) and len(entry) == 1 else ("", None)
    if kind in ("prompt", "text") and isinstance(value, str) and value.strip():
        if kind == "text" or template is None:
            return value
        return template([{"role": "user", "content": value}])
    if kind == "messages" and isinstance(value, list) and value and all(map(_is_message, value)):
        return template(value) if template else "\n\n".join(message["content"] for message in value)
    raise InvalidValueError(_EXPECTED, f"another form in {where}")


def _is_message(message: Any) -> bool:
    return (
        isinstance(message, Mapping)
        and set(message) == {"role", "content"}
        and all(isinstance(value, str) and value.strip() for value in message.values())
    )
