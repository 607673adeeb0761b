"""Recipes: YAML files of settings, one key a line.

A recipe is a mapping from names to numbers, strings, true, false, or lists of them. Only YAML's own types are built,
and nothing in the file is executed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tarot._files.atomic import write_atomically
from tarot._files.strict_json import read_file, validate
from tarot.errors import MissingFileError, TarotError, UnknownName

LARGEST = 2**16  # bytes
_SCALARS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null"))


class RecipeSetting(NamedTuple):
    """A value in a recipe, and its line."""

    value: Any
    line: int


def write_recipe(path: Path, settings: Mapping[str, Any], comment: str) -> None:
    """Write settings as YAML, in their order; those that are None are left out.

    Args:
        path: the file.
        settings: numbers, strings, booleans, or lists of them, by name.
        comment: one line that says what the recipe repeats.

    Raises:
        FileAccessError: the file cannot be written.
    """
    present = {name: value for name, value in settings.items() if value is not None}
    text = yaml.safe_dump(present, sort_keys=False, allow_unicode=True, width=10_000)
    write_atomically(path, f"# {comment}\n{text}".encode())


def read_recipe(path: Path, schema: Any) -> dict[str, Any]:
    """Read a recipe.

    Raises:
        MissingFileError: there is no such file.
        TarotError: the file is not YAML, an unknown name, or a value of another type; names the key and its line.
    """
    try:
        content = read_file(path, LARGEST)
    except OSError as error:
        raise MissingFileError(f"There is no recipe {str(path)!r}: {error.strerror}.") from error
    settings = _parse(path, content)
    for name, setting in settings.items():
        if name not in schema.__annotations__:
            raise UnknownName(f"key in line {setting.line} of {path}", name, schema.__annotations__)
    values = {name: setting.value for name, setting in settings.items()}
    for name, value in values.items():  # one at a time, so that the line is known
        if value is None:
            raise TarotError(f"{path}, line {settings[name].line}: {name} has no value.", hint="leave the line out")
        try:
            validate(schema, {name: value})
        except ValueError as error:
            where, _, reason = str(error).partition(": ")
            # Of several types that a value may have, the message names the one that was tried.
            item = ".".join([name, *filter(str.isdigit, where.split("."))])
            raise TarotError(f"{path}, line {settings[name].line}: {item}: {reason}.") from error
    return values


def _parse(path: Path, content: bytes) -> dict[str, RecipeSetting]:
    try:
        text = content.decode("utf-8-sig")
        _check_events(path, text)
        root = yaml.compose(text, yaml.SafeLoader)
        if not isinstance(root, yaml.MappingNode):
            raise TarotError(f"{path} has no settings such as 'model: NAME', one a line.")
        settings: dict[str, RecipeSetting] = {}
        for key, node in root.value:
            line = key.start_mark.line + 1
            name = _scalar(key, path)
            if not isinstance(name, str) or name in settings:
                raise TarotError(f"{path}, line {line}: the key {name!r} occurs twice, or is not a name.")
            settings[name] = RecipeSetting(_value(node, path), line)
        return settings
    except UnicodeDecodeError as error:
        raise TarotError(f"{path} is not UTF-8.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark else ""
        raise TarotError(f"{path} is not YAML{line}: {getattr(error, 'problem', None) or error}.") from error


def _check_events(path: Path, text: str) -> None:
    """Raise TarotError for what takes the parser long: aliases, and brackets in brackets."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > 2 or isinstance(event, yaml.AliasEvent):
            raise TarotError(
                f"{path}, line {event.start_mark.line + 1}: expected a number, a string, true or false, or a list of "
                "them, written out."
            )


def _value(node: yaml.Node, path: Path) -> Any:
    if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
        return [_scalar(each, path) for each in node.value]
    return _scalar(node, path)


def _scalar(node: yaml.Node, path: Path) -> Any:
    """Return a number, string, boolean or None; nothing else is built."""
    if not isinstance(node, yaml.ScalarNode) or node.tag not in _SCALARS:
        raise TarotError(
            f"{path}, line {node.start_mark.line + 1}: expected a number, a string, true or false, or a list of them."
        )
    try:
        return yaml.constructor.SafeConstructor().construct_object(node)
    except ValueError as error:  # a number that only begins like one
        raise TarotError(f"{path}, line {node.start_mark.line + 1}: {error}.") from error
