"""Write the JSON schemas of tarot's files into `docs/schemas`: `python docs/write_schemas.py`.

They come from the classes that read the files. A test compares them with what stands in the folder.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from tarot.cli.recipe import BenchRecipe, TuneRecipe
from tarot.edit.metadata import Metadata, Provenance
from tarot.evaluation.results.comparison import Comparison
from tarot.evaluation.results.reward_comparison import RewardComparison
from tarot.search.trials import Trial

FOLDER = Path(__file__).parent / "schemas"
DRAFT = "https://json-schema.org/draft/2020-12/schema"


def schemas() -> dict[str, str]:
    """Return the text of each schema by the name of its file."""
    made = {
        "results": _results(),
        "adapter": _adapter(),
        "trial": _trial(),
        "tune-recipe": _schema(TuneRecipe),
        "bench-recipe": _schema(BenchRecipe),
    }
    return {
        f"{name}.schema.json": json.dumps({"$schema": DRAFT, **schema}, indent=1) + "\n"
        for name, schema in made.items()
    }


def _schema(kind: Any) -> dict[str, Any]:
    schema: dict[str, Any] = TypeAdapter(kind).json_schema()
    for part in (schema, *schema.get("$defs", {}).values()):
        if "description" in part:  # a whole docstring
            part["description"] = " ".join(part["description"].partition("\n\n")[0].split())
    return schema


def _file(properties: Mapping[str, Any], *parts: dict[str, Any], optional: Sequence[str] = ()) -> dict[str, Any]:
    """Return the schema of a file: an object with a format and these properties, and the definitions of its parts."""
    return {
        "type": "object",
        "properties": {"format": {"const": 1}, **properties},
        "required": ["format", *(name for name in properties if name not in optional)],
        "$defs": {name: value for part in parts for name, value in part.pop("$defs", {}).items()},
    }


def _results() -> dict[str, Any]:
    """Return the schema of what `tarot compare` and `tarot bench` write: comparisons of either kind."""
    comparison, reward = _schema(Comparison), _schema(RewardComparison)
    properties = comparison["properties"]
    scores = properties["curves"]["additionalProperties"]
    scores["items"] = {"anyOf": [scores["items"], {"type": "null"}]}  # null is a trial without a score
    lists = {"cells": {"type": "array", "items": comparison}, "rewards": {"type": "array", "items": reward}}
    schema = _file(lists, comparison, reward, optional=tuple(lists))
    return {**schema, "anyOf": [{"required": [name]} for name in lists]}


def _adapter() -> dict[str, Any]:
    """Return the schema of an adapter's `tarot.json`."""
    metadata, provenance = _schema(Metadata), _schema(Provenance)
    properties = {**metadata["properties"], "provenance": {"$ref": "#/$defs/Provenance"}}
    optional = properties.keys() - set(metadata["required"])
    schema = _file(properties, metadata, provenance, optional=sorted(optional))
    schema["properties"]["format"] = {"enum": [1, 2]}  # 2 is a gated adapter's, which earlier versions must refuse
    return schema


def _trial() -> dict[str, Any]:
    """Return the schema of a line of `trials.jsonl` after the first; null is a score that is not finite."""
    schema = _schema(Trial)
    schema["properties"]["score"] = {"anyOf": [schema["properties"]["score"], {"type": "null"}]}
    return schema


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in schemas().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
