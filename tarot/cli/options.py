"""Options that several commands share, and how their values are read."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tarot.errors import TarotError

if TYPE_CHECKING:
    from collections.abc import Iterable


def path(text: str) -> Path:
    """Parse a path option; an empty one would mean the current folder."""
    if not text.strip():
        raise typer.BadParameter(f"expected a path, got {text!r}.")
    return Path(text)


Model = Annotated[str, typer.Option("--model", help="hub id, folder, PATH.gguf or wheel:NAME; see `tarot models`")]


IncludePath = Annotated[
    Path | None,
    typer.Option(
        "--include-path",
        parser=path,
        help="folder of further lm-eval task files; these can run any code, so use only folders that you trust",
    ),
]


Device = Annotated[str, typer.Option(help="auto, cpu or cuda:N")]


DeviceMap = Annotated[
    str | None,
    typer.Option("--device-map", help="instead of one device: auto, balanced, balanced_low_0 or sequential"),
]


Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16")]


BatchSize = Annotated[str, typer.Option("--batch-size", help="most sequences of one pass, or auto")]


Engine = Annotated[str, typer.Option(help="local: in this process; ray: on a cluster's machines")]


Address = Annotated[
    str | None, typer.Option(help="of the Ray cluster: HOST:PORT, ray://HOST:PORT or auto; none starts one here")
]


Cpus = Annotated[int | None, typer.Option(help="threads of a cell or candidate; as many as torch takes here")]


Gpus = Annotated[
    float | None,
    typer.Option(help="GPUs of a cell or candidate, or a share such as 0.5; 1 if there is one"),
]


Memory = Annotated[str, typer.Option(help="memory that Ray sets aside for a cell or candidate")]


Metric = Annotated[str, typer.Option(help="greedy_f1, greedy_acc, f1 or acc")]


Reward = Annotated[
    str | None, typer.Option(help="judge generated texts by it: sentiment:positive, toxicity:low, MODULE:FUNCTION ...")
]


NoChat = Annotated[bool, typer.Option("--no-chat", help="plain text prompts, even where there is a chat template")]


def rows_of(batch_size: str) -> int | None:
    from tarot.models.lm_eval_model import parse_batch_size

    return None if batch_size == "auto" else parse_batch_size(batch_size)


def check_names(names: "Iterable[str]", include_path: Path | None) -> None:
    """Refuse names that are no task, before anything slow is imported."""
    from tarot.objectives.task_names import check_task_names

    check_task_names(names, include_path)


def check_output(output: Path | None, *, folder: bool = False) -> None:
    from tarot._files.paths import check_writable

    if output is not None:
        check_writable(output, folder=folder)


def check_free(output: Path) -> None:
    from tarot._files.paths import check_writable

    check_writable(output, folder=True)
    if output.is_dir() and any(output.iterdir()):
        raise TarotError("an empty output folder", f"{output} with files in it", "choose another --output")


def whole_number(what: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise TarotError(f"a number of {what}", repr(text))
    return int(text)


def fraction(what: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise TarotError(f"numbers from 0 to 1 as {what}", repr(text), "for example 0,0.5,1") from None


def task_names(tasks: str) -> list[str]:
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    if not names:
        raise TarotError("names of tasks separated by commas", repr(tasks), "for example synth_color")
    return names
