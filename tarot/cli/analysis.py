"""`tarot analysis` and `tarot effects`: show what an edit does inside the model, and to other tasks and texts."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tarot._files.paths import check_writable
from tarot.cli.checks import kept_answers
from tarot.cli.console import out
from tarot.cli.models import load, load_adapters
from tarot.cli.options import (
    AdapterReference,
    AdapterReferences,
    BatchSize,
    Device,
    Dtype,
    IncludePath,
    Limit,
    ModelReference,
    Reward,
    edit_option,
    output_path_option,
    split_names,
    task_option,
    tasks_option,
)
from tarot.cli.progress import announce, announce_tasks
from tarot.cli.tables import print_table
from tarot.errors import TarotError, describe_missing_numbers

if TYPE_CHECKING:
    from tarot.analysis.side_effects import SideEffects
    from tarot.analysis.task_changes import TaskChange

FigureFolder = Annotated[Path, output_path_option(metavar="DIR", help="Folder for the figures and their data.")]


def analysis(
    model: ModelReference,
    adapter: AdapterReference,
    output: FigureFolder,
    reward: Reward = None,
    include_path: IncludePath = None,
    limit: Limit = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    batch_size: BatchSize = None,
) -> None:
    """Draw what an edit does inside the model: by layer, by head, in attention, in the documents that changed.

    For an adapter tuned for a reward: draws the effect of each layer on the reward, and attention.
    """
    check_writable(output, folder=True)
    announce("analysis")
    from tarot.analysis.adapter_objective import check_adapter_objective
    from tarot.analysis.mechanism import measure_mechanism
    from tarot.cli.progress import evaluation_progress
    from tarot.edit.adapter import Adapter
    from tarot.report.mechanism import write_mechanism

    edit = Adapter.from_pretrained(adapter)
    announce_tasks([edit])
    check_adapter_objective(edit, reward=reward, include_path=include_path, limit=limit)
    loaded = load(model, device, dtype)
    with kept_answers(output, folder=True) as answers, evaluation_progress() as show:
        parts = measure_mechanism(
            loaded,
            edit,
            reward=reward,
            include_path=include_path,
            limit=limit,
            batch_size=batch_size,
            answers=answers,
            on_step=show,
        )
        files = write_mechanism(parts, output)
    names = [file.name for file in files]
    out.print(f"{', '.join(names)} in {output}")
    if "lens.svg" not in names:
        out.print("a reward has no right answers, so there is no logit lens and no changed documents")
        out.print("layers are drawn instead of heads, because each score generates texts")


def effects(
    model: ModelReference,
    adapter: AdapterReferences,
    output: FigureFolder,
    tasks: Annotated[
        list[str],
        tasks_option(
            callback=split_names,
            metavar="NAMES",
            help="Other tasks to evaluate: lm-eval tasks, groups or tags, separated by commas.",
            default_factory=lambda: ["tarot_synthetic"],
            show_default="tarot_synthetic",
        ),
    ],
    tokens: Annotated[
        int, task_option("--tokens", metavar="N", help="Least number of tokens of neutral text to measure.")
    ] = 20_000,
    seed: Annotated[int, task_option("--seed", metavar="N", help="Random seed for generating the neutral text.")] = 0,
    include_path: IncludePath = None,
    limit: Limit = None,
    strengths: Annotated[
        str, edit_option("--strengths", metavar="NUMBERS", help="Factors of the angles, 0 to 1, separated by commas.")
    ] = "0,0.25,0.5,0.75,1",
    device: Device = "auto",
    dtype: Dtype = "auto",
    batch_size: BatchSize = None,
) -> None:
    """Measure what edits change on other tasks and on neutral text, and the gain and cost of each strength."""
    check_writable(output, folder=True)
    from tarot.objectives.tasks.task_names import check_task_names

    check_task_names(tasks, include_path)
    announce("effects")
    from tarot.analysis.side_effects import check_side_effects, measure_side_effects
    from tarot.cli.progress import evaluation_progress
    from tarot.report.side_effects import write_side_effects

    factors = _split_strengths(strengths)
    edits = load_adapters(adapter)
    announce_tasks(edits.values())
    check_side_effects(edits, tasks, strengths=factors, n_tokens=tokens, include_path=include_path, limit=limit)
    loaded = load(model, device, dtype)
    with kept_answers(output, folder=True) as answers:
        with evaluation_progress() as show:
            measured = measure_side_effects(
                loaded,
                edits,
                tasks,
                strengths=factors,
                n_tokens=tokens,
                seed=seed,
                include_path=include_path,
                limit=limit,
                batch_size=batch_size,
                answers=answers,
                on_step=show,
            )
        files = write_side_effects(measured, output)
    _print_effects(measured)
    out.print(f"{', '.join(file.name for file in files)} in {output}")


def _split_strengths(text: str) -> list[float]:
    strengths = []
    for part in text.split(","):
        try:
            strengths.append(float(part))
        except ValueError:
            raise TarotError("strengths from 0 to 1", repr(part), "for example 0,0.5,1") from None
    return strengths


def _print_effects(measured: "SideEffects") -> None:
    from tarot.evaluation.statistics.formatting import fraction, with_interval
    from tarot.report.table import NONE

    for name, changes in measured.changes.items():
        header = ("task", "documents", "base", "edited", "change, 95% CI")
        rows = [
            (task, str(change.gain.n), fraction(change.base), fraction(change.edited), with_interval(change.gain))
            for task, change in changes.items()
        ]
        print_table(header, rows, f"{name}: other tasks, zero-shot")
        _print_missing(changes)
        header = ("strength", "score", "gain on its own task", "KL, nats a token", "perplexity")
        points = [
            (
                f"{point.strength:g}",
                fraction(point.change.edited) if point.change else NONE,
                with_interval(point.change.gain) if point.change else NONE,
                with_interval(point.drift.kl, "{:.4f}".format),
                f"{point.drift.perplexity:.2f}",
            )
            for point in measured.curves[name]
        ]
        print_table(header, points)
        own = measured.own_tasks[name]
        _print_missing(
            {f"{own}, strength {point.strength:g}": point.change for point in measured.curves[name] if point.change}
        )


def _print_missing(changes: "Mapping[str, TaskChange]") -> None:
    """Print which documents have no number; their answers count as wrong."""
    for name, change in changes.items():
        if change.without_number:
            out.print(f"{name}: {describe_missing_numbers(change.without_number, change.gain.n)}")
