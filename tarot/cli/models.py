"""`tarot models`, and loading the model that a command names."""

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from tarot.cli.console import err, out
from tarot.errors import printable

if TYPE_CHECKING:
    from tarot.models.loaded_model import LoadedModel


def load(model: str, device: str, dtype: str, device_map: str | None = None) -> "LoadedModel":
    from tarot.models.load import load_model

    with err.status(Text(printable(f"loading {model}"))):
        return load_model(model, device=device, dtype=dtype, device_map=device_map)


def models() -> None:
    """List the models that can be loaded here and now."""
    from tarot.models.listing import available

    table = Table("reference", "parameters", "layers", "heads", "head size", "from")
    table.columns[0].no_wrap = True  # cut or folded, a reference would be no use
    for info in available():
        row = (info.parameters, info.layers, info.heads, info.d_head)
        table.add_row(info.reference, *(f"{n:,}" if n else "?" for n in row), info.source)
    out.print(table)
    out.print("Also: any hub id, any folder with config.json and safetensors, any PATH.gguf.")
