"""Load the adapters that a command names."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tarot.edit.adapter import Adapter


def load_adapters(references: Iterable[str]) -> "dict[str, Adapter]":
    """Load adapters, by the last part of their references where these differ, else by the references."""
    from tarot.edit.adapter import Adapter

    references = list(references)
    short = [Path(reference).resolve().name for reference in references]
    names = short if len(set(short)) == len(references) else references
    return {name: Adapter.from_pretrained(reference) for name, reference in zip(names, references, strict=True)}
