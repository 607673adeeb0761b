"""The marker `@pytest.mark.tarot`: with the options, it decides which cells a test measures."""

from collections.abc import Iterable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tarot.edit.layers import format_layers
from tarot.errors import TarotError, UnknownName
from tarot.evaluation.grid.grid import CellRequest
from tarot.pytest_plugin.options import MARKER_KEYWORDS, OPTIONS, Option

AXES = ("model", "task", "num_fewshot", "seed", "search")  # a test runs once for each combination


def cell_requests(
    values: Mapping[str, Any], markers: Iterable[pytest.Mark], folder: Path, *, measures: bool
) -> list[CellRequest]:
    """Return the cells that a test measures: every combination of models, tasks, shots, seeds and searches.

    Args:
        values: Values of the options, as `parse_options` returns them.
        markers: Markers `tarot` of the test, the nearest last; they take precedence over the options.
        folder: Folder that a marker's `include_path` is relative to.
        measures: Whether the test measures; one that only uses a model gets one request a model.

    Raises:
        TarotError: A marker has an unknown keyword or a malformed value.
    """
    fields = {option.field: values[key] for key, option in OPTIONS.items() if option.field}
    for marker in markers:
        fields |= _marker_fields(marker, folder)
    if not measures:
        return [CellRequest(model, "") for model in dict.fromkeys(fields["model"])]
    others = {name: value for name, value in fields.items() if name not in AXES}
    combinations = product(*(fields[axis] for axis in AXES))
    return list(dict.fromkeys(CellRequest(**dict(zip(AXES, each, strict=True)), **others) for each in combinations))


def _marker_fields(marker: pytest.Mark, folder: Path) -> dict[str, Any]:
    if marker.args:
        got, hint = f"{marker.args[0]!r} without one", "for example task='synth_color'"
        raise TarotError("keywords in @pytest.mark.tarot", got, hint)
    fields: dict[str, Any] = {}
    for keyword, value in marker.kwargs.items():
        if keyword not in MARKER_KEYWORDS:
            raise UnknownName("keyword of @pytest.mark.tarot", keyword, MARKER_KEYWORDS)
        option = MARKER_KEYWORDS[keyword]
        # None is as if neither an option nor a marker had set the keyword.
        fields[option.field] = option.default if value is None else _parse_keyword(option, keyword, value, folder)
    return fields


def _parse_keyword(option: Option, keyword: str, value: object, folder: Path) -> Any:
    takes_several = isinstance(option.default, tuple)
    if keyword == "layers" and isinstance(value, list | tuple) and value and all(type(each) is int for each in value):
        value = format_layers(tuple(value))  # as text, one layer could be taken for a fraction
    texts = [*map(str, value)] if isinstance(value, list | tuple) else [str(value)]
    if not takes_several:
        texts = [",".join(texts)]
    try:
        parts = [option.parse(text) for text in texts]
    except TarotError as error:
        expected = f"{error.expected} for {keyword} in @pytest.mark.tarot"
        raise TarotError(expected, str(error.got), error.hint or "") from None
    if takes_several:
        return tuple(one for part in parts for one in (part if isinstance(part, tuple) else (part,)))
    return str(folder / parts[0]) if option.path else parts[0]
