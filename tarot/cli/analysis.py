"""`tarot analysis` and `tarot effects`: show what an edit does inside the model and elsewhere."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tarot.cli.console import out
from tarot.cli.models import load
from tarot.cli.options import (
    BatchSize,
    Device,
    Dtype,
    IncludePath,
    Model,
    Reward,
    check_names,
    check_output,
    fraction,
    path,
    rows_of,
    task_names,
)
from tarot.cli.progress import step_progress
from tarot.cli.tables import print_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tarot.analysis.divergence import Divergence
    from tarot.analysis.side_effects import TaskChange


def analysis(
    model: Model,
    adapter: Annotated[Path, typer.Option(parser=path, help="folder of the adapter")],
    output: Annotated[Path, typer.Option(parser=path, help="folder for the pictures and their data")],
    reward: Reward = None,
    include_path: IncludePath = None,
    limit: Annotated[int | None, typer.Option(help="only the first documents")] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    batch_size: BatchSize = "auto",
) -> None:
    """Draw what an edit does inside the model: by layer, by head, in attention, in the documents that flipped.

    Of an adapter tuned for a reward: by layer, under the reward, and in attention.
    """
    from tarot.objectives.task_names import check_include_path

    check_output(output, folder=True)
    check_include_path(include_path)
    from tarot.analysis.protocol import check_tuned
    from tarot.edit.adapter import Adapter
    from tarot.report.analysis import analyse

    rows = rows_of(batch_size)
    edit = Adapter.from_pretrained(adapter)
    check_tuned(edit, reward=reward, include_path=include_path, limit=limit)
    loaded = load(model, device, dtype)
    with step_progress() as show:
        files = analyse(
            loaded,
            edit,
            output,
            reward=reward,
            include_path=include_path,
            limit=limit,
            batch_size=rows,
            on_step=show,
        )
    out.print(f"{', '.join(file.name for file in files)} in {output}")
    if "lens.svg" not in {file.name for file in files}:
        out.print(
            "no lens and no flips, since a reward has no right answers; layers instead of heads, since texts take long"
        )


def effects(
    model: Model,
    adapter: Annotated[list[Path], typer.Option(parser=path, help="folder of an adapter; repeat for a matrix")],
    output: Annotated[Path, typer.Option(parser=path, help="folder for the pictures and their data")],
    tasks: Annotated[str, typer.Option(help="suite: lm-eval tasks, groups or tags")] = "tarot_synthetic",
    strengths: Annotated[str, typer.Option(help="factors of the angles to trade off")] = "0,0.25,0.5,0.75,1",
    tokens: Annotated[int, typer.Option(help="neutral text, at least so many tokens")] = 20_000,
    seed: Annotated[int, typer.Option(help="decides the neutral text")] = 0,
    include_path: IncludePath = None,
    limit: Annotated[int | None, typer.Option(help="only the first documents of each task")] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    batch_size: BatchSize = "auto",
) -> None:
    """Measure what edits change that they were not tuned for, and what each strength buys and costs."""
    names = task_names(tasks)
    check_output(output, folder=True)
    check_names(names, include_path)
    from tarot.analysis.neutral_text import check_tokens
    from tarot.edit.adapter import Adapter
    from tarot.evaluation.as_tuned import config_of
    from tarot.evaluation.evaluate import check_tasks
    from tarot.evaluation.lm_eval_results import check_scorable
    from tarot.report import side_effects as side
    from tarot.report.table import with_interval

    rows = rows_of(batch_size)
    factors = [fraction("strength", text) for text in strengths.split(",")]
    # Rows and curves are called by their folder's own name, where that tells them apart.
    apart = len({folder.resolve().name for folder in adapter}) == len(adapter)
    edits = {folder.resolve().name if apart else str(folder): Adapter.from_pretrained(folder) for folder in adapter}
    for factor in factors:
        side.check_strength(factor)
    check_tokens(tokens)
    for edit in edits.values():
        suite = list(dict.fromkeys([*names, config_of(edit).task]))
        for task in check_tasks(suite, include_path=include_path, limit=limit):
            check_scorable(task)
    loaded = load(model, device, dtype)
    with step_progress() as show:
        found = side.measure_effects(
            loaded,
            edits,
            output,
            names,
            strengths=factors,
            n_tokens=tokens,
            seed=seed,
            include_path=include_path,
            limit=limit,
            batch_size=rows,
            on_step=show,
        )
    for name, row in found.matrix.items():
        print_changes(f"{name}: other tasks, zero-shot", row)
        header = ("strength", "score", "gain on its own task", "KL, nats a token", "perplexity")
        points = [
            (
                f"{point.strength:g}",
                f"{point.change.edited:.3f}",
                with_interval(point.change.gain),
                kl_text(point.drift),
                f"{point.drift.perplexity:.2f}",
            )
            for point in found.curves[name]
        ]
        print_table(header, points)
    out.print(f"effects and tradeoff, as SVG and CSV, in {output}")


def print_changes(title: str, row: "Mapping[str, TaskChange]") -> None:
    from tarot.report.table import with_interval

    header = ("task", "documents", "base", "edited", "change, 95% interval")
    changes = [
        (task, str(change.gain.n), f"{change.base:.3f}", f"{change.edited:.3f}", with_interval(change.gain))
        for task, change in row.items()
    ]
    print_table(header, changes, title)


def kl_text(drift: "Divergence") -> str:
    return f"{drift.kl.value:.4f} [{drift.kl.low:.4f}, {drift.kl.high:.4f}]"
