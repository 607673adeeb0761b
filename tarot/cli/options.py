"""Options that several commands share, and how their values are read.

Spellings are those of lm-eval (`--tasks`, `--num-fewshot`, `--output-path`); the second spelling of an option is an
older one. Each option belongs to one of the help panels below.
"""

import math
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from tarot.evaluation.baselines.registry import BASELINES

TASK = "Task"
PROMPTS = "Prompts"
EDIT = "Edit"
SEARCH = "Search"
HARDWARE = "Hardware"
OUTPUT = "Output"


class SearchName(StrEnum):
    """Names of the searches, as `tarot.search.SEARCHES` has them."""

    ADAM = "adam"
    BO = "bo"
    PAPER = "paper"
    POLICY_GRADIENT = "policy-gradient"
    RANDOM = "random"


def path(text: str) -> Path:
    """Read a path.

    Raises:
        typer.BadParameter: The text is blank, which would mean the current folder.
    """
    if not str(text).strip():
        raise typer.BadParameter(f"expected a path, got {text!r}")
    return Path(text)


def reference(text: str) -> str:
    """Read a reference to a model or an adapter: a folder or a hub id.

    Raises:
        typer.BadParameter: The text is blank.
    """
    if not text.strip():
        raise typer.BadParameter(f"expected a folder or a hub id, got {text!r}")
    return text


def limit(text: str) -> float:
    """Read a number of documents (from 1), or a fraction of them (above 0 and below 1).

    Raises:
        typer.BadParameter: The text is neither.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if 0 < value < 1:
        return value
    if not (str(text).isascii() and str(text).isdigit() and value >= 1):
        raise typer.BadParameter(f"expected a number of documents, or a fraction of them below 1, got {str(text)!r}")
    return int(text)


def batch_size(text: str) -> int | None:
    """Read a number of sequences; None for `auto`.

    Raises:
        typer.BadParameter: The text is neither `auto` nor a number from 1.
    """
    if text == "auto":
        return None
    if not (text.isascii() and text.isdigit() and int(text)):
        raise typer.BadParameter(f"expected a batch size from 1, or auto, got {text!r}")
    return int(text)


def trial_or_kl(text: str) -> int | float:
    """Read the number of a trial, or a divergence in nats, which has a decimal point.

    Raises:
        typer.BadParameter: The text is neither.
    """
    with suppress(ValueError):
        if text.isascii() and text.isdigit():
            return int(text)
        if 0 < float(text) < math.inf:
            return float(text)
    raise typer.BadParameter(f"expected the number of a trial, or nats a token such as 0.02, got {text!r}")


def split_names(values: list[str]) -> list[str]:
    """Return the names in values such as `a,b`, without repetitions.

    Raises:
        typer.BadParameter: There is no name.
    """
    names = [name.strip() for value in values for name in value.split(",") if name.strip()]
    if not names:
        raise typer.BadParameter(f"expected names separated by commas, got {', '.join(map(repr, values))}")
    return list(dict.fromkeys(names))


def optional_names(values: list[str] | None) -> list[str]:
    """Return the names in values such as `a,b`, without repetitions; there may be none."""
    return split_names(values) if values else []


def single_name(values: list[str]) -> list[str]:
    """Return the only name, in a list.

    Raises:
        typer.BadParameter: There is none, or there are several.
    """
    names = split_names(values)
    if len(names) > 1:
        raise typer.BadParameter(f"an edit is tuned on one task, got {', '.join(names)}")
    return names


ModelReference = Annotated[
    str,
    typer.Option(
        "--model",
        parser=reference,
        metavar="REF",
        help="Hub id, folder, PATH.gguf or wheel:NAME; see `tarot models`.",
        rich_help_panel=TASK,
    ),
]
Tasks = Annotated[
    list[str],
    typer.Option(
        "--tasks",
        "--task",
        callback=split_names,
        metavar="NAMES",
        help="lm-eval tasks, separated by commas; may be repeated.",
        rich_help_panel=TASK,
    ),
]
SingleTask = Annotated[
    list[str],
    typer.Option(
        "--tasks",
        "--task",
        callback=single_name,
        metavar="NAME",
        help="lm-eval task with a training split.",
        rich_help_panel=TASK,
    ),
]
IncludePath = Annotated[
    Path | None,
    typer.Option(
        "--include-path",
        parser=path,
        metavar="DIR",
        help="Folder of further lm-eval task files. They can run any code: use only folders that you trust.",
        rich_help_panel=TASK,
    ),
]
Limit = Annotated[
    float | None,
    typer.Option(
        "--limit",
        parser=limit,
        metavar="N|FRACTION",
        help="Evaluate only the first documents of each task: a number, or a fraction below 1.",
        show_default="all",
        rich_help_panel=TASK,
    ),
]
AdapterReference = Annotated[
    str,
    typer.Option(
        "--adapter", parser=reference, metavar="REF", help="Adapter: a folder or a hub id.", rich_help_panel=EDIT
    ),
]
AdapterReferences = Annotated[
    list[str],
    typer.Option(
        "--adapter",
        parser=reference,
        metavar="REF",
        help="Adapter: a folder or a hub id; may be repeated.",
        rich_help_panel=EDIT,
    ),
]
NewFolder = Annotated[
    Path,
    typer.Option(
        "--output-path", "--output", parser=path, metavar="DIR", help="New folder to write.", rich_help_panel=OUTPUT
    ),
]
MetricName = Annotated[
    Literal["greedy_f1", "greedy_acc", "f1", "acc"],
    typer.Option(
        "--metric",
        help="Score of the answers: weighted F1 or accuracy, of the greedy answer or of the likeliest choice.",
        rich_help_panel=OUTPUT,
    ),
]
Reward = Annotated[
    str | None,
    typer.Option(
        "--reward",
        help="Judge generated texts by this reward: sentiment:positive, toxicity:low, MODULE:FUNCTION ...",
        show_default="the adapter's own",
        rich_help_panel=TASK,
    ),
]
ChatTemplate = Annotated[
    bool,
    typer.Option(
        "--apply-chat-template/--no-chat",
        help="Apply the tokenizer's chat template, if it has one, or use plain text prompts.",
        rich_help_panel=PROMPTS,
    ),
]
NumSamples = Annotated[
    int,
    typer.Option("--num-samples", "--samples", min=1, help="Labelled samples to tune on.", rich_help_panel=SEARCH),
]
Space = Annotated[
    Literal["full", "head-gradient", "head"] | None,
    typer.Option(
        "--space",
        help="Coordinates to search: every angle, one a head along the gradient, or one plain angle a head.",
        show_default="the search's own",
        rich_help_panel=SEARCH,
    ),
]
Draws = Annotated[
    int,
    typer.Option(
        "--draws",
        min=0,
        help="Average few-shot prompting over this many choices and orders of its shots; 0 for one alone.",
        rich_help_panel=PROMPTS,
    ),
]
Baselines = Annotated[
    list[str] | None,
    typer.Option(
        "--baseline",
        metavar="NAME",
        help=f"Method to beat, as a further arm; may be repeated: {', '.join(BASELINES)}.",
        show_default="none",
        rich_help_panel=EDIT,
    ),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda:N.", rich_help_panel=HARDWARE)]
DeviceMap = Annotated[
    Literal["auto", "balanced", "balanced_low_0", "sequential"] | None,
    typer.Option(
        "--device-map", help="Spread the model over several devices.", show_default="one", rich_help_panel=HARDWARE
    ),
]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    typer.Option("--dtype", help="Type of the weights.", rich_help_panel=HARDWARE),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        parser=batch_size,
        metavar="N|auto",
        help="Most sequences of one pass.",
        show_default="auto",
        rich_help_panel=HARDWARE,
    ),
]
Engine = Annotated[
    Literal["local", "ray"],
    typer.Option("--engine", help="Run in this process, or on a Ray cluster.", rich_help_panel=HARDWARE),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="Ray cluster: HOST:PORT, ray://HOST:PORT or auto.",
        show_default="start one here",
        rich_help_panel=HARDWARE,
    ),
]
Cpus = Annotated[
    int | None,
    typer.Option("--cpus", help="Threads per task.", show_default="as many as torch takes", rich_help_panel=HARDWARE),
]
Gpus = Annotated[
    float | None,
    typer.Option(
        "--gpus",
        help="GPUs per task (fractions allowed).",
        show_default="1 if a GPU is present",
        rich_help_panel=HARDWARE,
    ),
]
Memory = Annotated[str, typer.Option("--memory", help="Memory that Ray reserves per task.", rich_help_panel=HARDWARE)]
WithoutGate = Annotated[
    bool,
    typer.Option(
        "--without-gate",
        help="Leave out the adapter's gate, which weights cannot hold: the edit then acts on every prompt.",
        rich_help_panel=EDIT,
    ),
]
