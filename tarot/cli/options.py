"""Options that several commands share, and how their values are read.

Spellings are those of lm-eval (`--tasks`, `--num-fewshot`, `--output-path`); the second spelling of an option is an
older one. One factory per help panel makes the options. Bad values raise typer.BadParameter.
"""

import math
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tarot.errors import TarotError
from tarot.evaluation.baselines.registry import BASELINES
from tarot.evaluation.grid.grid import parse_max_kl
from tarot.evaluation.limit import parse_limit
from tarot.models.batch_size import parse_batch_size

TASK = "Task"

task_option = partial(typer.Option, rich_help_panel=TASK)
prompt_option = partial(typer.Option, rich_help_panel="Prompts")
edit_option = partial(typer.Option, rich_help_panel="Edit")
search_option = partial(typer.Option, rich_help_panel="Search")
hardware_option = partial(typer.Option, rich_help_panel="Hardware")
output_option = partial(typer.Option, rich_help_panel="Output")


def path(text: str) -> Path:
    """Read a path."""
    if not str(text).strip():
        raise typer.BadParameter(f"expected a path, got {text!r}")
    return Path(text)


def reference(text: str) -> str:
    """Read a reference to a model or an adapter: a folder or a hub id."""
    if not text.strip():
        raise typer.BadParameter(f"expected a folder or a hub id, got {text!r}")
    return text


def task_folder(text: str) -> Path:
    """Read the path of a folder that exists."""
    folder = path(text)
    if not folder.is_dir():
        raise typer.BadParameter(f"there is no folder {str(folder)!r}")
    return folder


def read_by(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Wrap `parse` as an option parser that turns its TarotError into a usage error."""

    def read(text: str) -> Any:
        try:
            return parse(str(text))
        except TarotError as error:
            raise typer.BadParameter(str(error)) from None

    return read


limit, batch_size, max_kl = read_by(parse_limit), read_by(parse_batch_size), read_by(parse_max_kl)


METRIC_NAMES = ("greedy_f1", "greedy_acc", "f1", "acc")


def metric(text: str) -> str:
    """Read the name of a metric. A choice of click would list the names with hyphens."""
    if (name := text.replace("-", "_")) not in METRIC_NAMES:
        raise typer.BadParameter(f"expected a metric among {', '.join(METRIC_NAMES)}, got {text!r}")
    return name


def trial_or_kl(text: str) -> int | float:
    """Read the number of a trial, or a divergence in nats, which has a decimal point."""
    with suppress(ValueError):
        if text.isascii() and text.isdigit():
            return int(text)
        if 0 < float(text) < math.inf:
            return float(text)
    raise typer.BadParameter(f"expected the number of a trial, or nats a token such as 0.02, got {text!r}")


def split_names(values: list[str]) -> list[str]:
    """Return the names in values such as `a,b`, without repetitions."""
    names = [name.strip() for value in values for name in value.split(",") if name.strip()]
    if not names:
        raise typer.BadParameter(f"expected names separated by commas, got {', '.join(map(repr, values))}")
    return list(dict.fromkeys(names))


def optional_names(values: list[str] | None) -> list[str]:
    """Return the names in values such as `a,b`, without repetitions; there may be none."""
    return split_names(values) if values else []


def single_name(values: list[str]) -> list[str]:
    """Return the only name, in a list."""
    names = split_names(values)
    if len(names) > 1:
        raise typer.BadParameter(f"an edit is tuned on one task, got {', '.join(names)}")
    return names


tasks_option = partial(task_option, "--tasks", "--task")
output_path_option = partial(output_option, "--output-path", "--output", parser=path)
ModelReference = Annotated[
    str,
    task_option(
        "--model", parser=reference, metavar="REF", help="Hub id, folder, PATH.gguf or wheel:NAME; see `tarot models`."
    ),
]
Tasks = Annotated[
    list[str],
    tasks_option(callback=split_names, metavar="NAMES", help="lm-eval tasks, separated by commas; may be repeated."),
]
SingleTask = Annotated[
    list[str], tasks_option(callback=single_name, metavar="NAME", help="lm-eval task with a training split.")
]
IncludePath = Annotated[
    Path | None,
    task_option(
        "--include-path",
        parser=task_folder,
        metavar="DIR",
        help="Folder of further lm-eval task files. They can run any code: use only folders that you trust.",
    ),
]
Limit = Annotated[
    float | None,
    task_option(
        "--limit",
        parser=limit,
        metavar="N|FRACTION",
        help="Evaluate only the first documents of each task: a number, or a fraction below 1.",
        show_default="all",
    ),
]
AdapterReference = Annotated[
    str, edit_option("--adapter", parser=reference, metavar="REF", help="Adapter: a folder or a hub id.")
]
AdapterReferences = Annotated[
    list[str],
    edit_option("--adapter", parser=reference, metavar="REF", help="Adapter: a folder or a hub id; may be repeated."),
]
NewFolder = Annotated[Path, output_path_option(metavar="DIR", help="New folder to write.")]
MetricName = Annotated[
    str,
    output_option(
        "--metric",
        parser=metric,
        metavar="NAME",
        help="Score of the answers: weighted F1 or accuracy of the greedy answer (greedy_f1, greedy_acc), or of the "
        "likeliest choice (f1, acc).",
    ),
]
Reward = Annotated[
    str | None,
    task_option(
        "--reward",
        metavar="NAME",
        help="Judge generated texts by this reward: sentiment:positive, toxicity:low, MODULE:FUNCTION ...",
        show_default="the adapter's own",
    ),
]
ChatTemplate = Annotated[
    bool,
    prompt_option(
        "--apply-chat-template/--no-chat",
        help="Apply the tokenizer's chat template, if it has one, or use plain text prompts.",
    ),
]
NumSamples = Annotated[
    int, search_option("--num-samples", "--samples", min=1, metavar="N", help="Labelled samples to tune on.")
]
Space = Annotated[
    Literal["full", "head"] | None,
    search_option(
        "--space",
        metavar="NAME",
        help="Coordinates to search: every angle (full), or one angle a head (head).",
        show_default="the search's own",
    ),
]
MaxKl = Annotated[
    Any,
    search_option(
        "--max-kl",
        parser=max_kl,
        metavar="NATS|none",
        help="Largest change of the model elsewhere: KL(base || edited) in nats a token; none sets no limit.",
        show_default="0.02 for adam; else none",
    ),
]
Retain = Annotated[
    list[str] | None,
    search_option(
        "--retain",
        callback=optional_names,
        metavar="TASKS|FILE",
        help="More tasks or prompts on which the model should not change: task names, or prompts in FILE.jsonl or "
        "FILE.txt; may be repeated.",
        show_default="tarot's own prompts",
    ),
]
Layers = Annotated[
    str,
    edit_option(
        "--layers",
        metavar="FRACTION|LIST",
        help="Layers to edit: a fraction from the first (0.5) or the last (-0.5), or a list (4-11 or 0,3,5).",
    ),
]
Draws = Annotated[
    int,
    prompt_option(
        "--draws",
        min=0,
        metavar="N",
        help="Average few-shot prompting over N random draws of shots; 0 uses the first samples only.",
    ),
]
Baselines = Annotated[
    list[str] | None,
    edit_option(
        "--baseline",
        metavar="NAME",
        help=f"Method to beat, as a further arm; may be repeated: {', '.join(BASELINES)}.",
        show_default="none",
    ),
]
Device = Annotated[str, hardware_option("--device", metavar="NAME", help="auto, cpu or cuda:N.")]
DeviceMap = Annotated[
    Literal["auto", "balanced", "balanced_low_0", "sequential"] | None,
    hardware_option(
        "--device-map",
        metavar="NAME",
        help="Spread the model over several devices: auto, balanced, balanced-low-0 or sequential.",
        show_default="one",
    ),
]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    hardware_option("--dtype", metavar="NAME", help="Type of the weights: auto, float32, bfloat16 or float16."),
]
BatchSize = Annotated[
    int | None,
    hardware_option(
        "--batch-size",
        parser=batch_size,
        metavar="N|auto",
        help="Largest number of sequences in a forward pass.",
        show_default="auto",
    ),
]
Engine = Annotated[
    Literal["local", "ray"], hardware_option("--engine", help="Run in this process, or on a Ray cluster.")
]
Address = Annotated[
    str | None,
    hardware_option(
        "--address",
        metavar="ADDRESS",
        help="Ray cluster: HOST:PORT, ray://HOST:PORT or auto.",
        show_default="start one here",
    ),
]
Cpus = Annotated[
    int | None, hardware_option("--cpus", metavar="N", help="Threads per task.", show_default="as many as torch takes")
]
Gpus = Annotated[
    float | None,
    hardware_option(
        "--gpus", metavar="N", help="GPUs per task (fractions allowed).", show_default="1 if a GPU is present"
    ),
]
Memory = Annotated[str, hardware_option("--memory", metavar="SIZE", help="Memory that Ray reserves per task.")]
WithoutGate = Annotated[
    bool,
    edit_option(
        "--without-gate",
        help="Leave out the adapter's gate, which weights cannot hold: the edit then acts on every prompt.",
    ),
]
