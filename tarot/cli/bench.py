"""`tarot bench`: measure a grid of comparisons."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tarot.cli.console import out
from tarot.cli.options import Address, Cpus, Engine, Gpus, IncludePath, Memory, Metric, check_names, check_output, path
from tarot.cli.progress import CellProgress

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def bench(
    model: Annotated[list[str], typer.Option(help="model reference, as for `tune`; repeat for several")],
    task: Annotated[list[str], typer.Option(help="lm-eval task; repeat for several")],
    output: Annotated[
        Path, typer.Option(parser=path, help="JSON file of cells: those in it stay, and are not measured again")
    ],
    shots: Annotated[str, typer.Option(help="labelled examples in each prompt: 0,6 measures both, or `mix`")] = "0",
    seeds: Annotated[str, typer.Option(help="0,1,2 measures three")] = "0",
    search: Annotated[
        list[str] | None, typer.Option(help="adam, which is the default, bo, paper or random; repeat for several")
    ] = None,
    space: Annotated[str, typer.Option(help="as for `tune`; each search's own if left out")] = "",
    samples: Annotated[int, typer.Option(help="labelled samples of a search", min=1)] = 20,
    budget: Annotated[int, typer.Option(help="evaluations of a search", min=1)] = 120,
    draws: Annotated[int, typer.Option(help="as for `compare`, there none if left out", min=0)] = 5,
    include_path: IncludePath = None,
    limit: Annotated[int | None, typer.Option(help="only the first documents", min=1)] = None,
    metric: Metric = "greedy_f1",
    work: Annotated[
        Path | None,
        typer.Option(parser=path, help="folder of the searches, which all machines see; OUTPUT.work if left out"),
    ] = None,
    engine: Engine = "local",
    address: Address = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
    memory: Memory = "4GB",
) -> None:
    """Measure a grid, models x tasks x shots x seeds x searches, a cell each, as `tune` and `compare` would.

    What was measured before is not measured again; a search that was killed goes on. Exit code 1 if a cell failed.
    """
    from itertools import product

    from tarot.evaluation import grid

    grid.parse_engine(engine)
    check_output(output)
    folder = (work or output.with_name(f"{output.name}.work")).absolute()
    check_output(folder, folder=True)
    shot_counts, draw_seeds = grid.parse_shots(shots), grid.parse_seeds(seeds)
    check_names(task, include_path)
    from tarot.evaluation.metrics import METRICS, metric_named
    from tarot.evaluation.ray.cells import RayEngine, run_locally
    from tarot.evaluation.ray.cluster import Resources
    from tarot.evaluation.results import missing_number_notes
    from tarot.report.table import aligned, summary_rows

    metric_named(metric)
    asked = product(model, task, shot_counts, draw_seeds, search or ["adam"])
    settings = [
        grid.CellRequest(
            *these[:4],
            search=these[4],
            samples=samples,
            budget=budget,
            space=space,
            limit=limit,
            include_path=str(include_path) if include_path else None,
            draws=draws,
        )
        for these in dict.fromkeys(asked)
    ]
    for setting in settings:
        setting.check()
    needs = Resources.parse(cpus, gpus, memory)
    failed = []
    with ExitStack() as stack:
        bar = stack.enter_context(CellProgress(len(settings)))

        def told(setting: grid.CellRequest, outcome: grid.CellResult) -> None:
            for words in outcome.words:
                bar.say(words)
            if outcome.error:
                failed.append(setting)
                bar.say(f"failed: {setting.id} {setting.search}: {outcome.error}")
            bar.advance()

        def run(todo: "Sequence[grid.CellRequest]") -> "Iterator[tuple[grid.CellRequest, grid.CellResult]]":
            if engine == "local" or not todo:
                return run_locally(todo, folder, needs)
            return stack.enter_context(RayEngine(folder, needs, address)).run(todo)

        try:
            measured = grid.run_grid(settings, output, run, on_start=bar.start, on_outcome=told)
        except KeyboardInterrupt:
            bar.say("the same command goes on from here")
            raise
    if measured:
        header, rows = summary_rows(measured, metric)
        out.print(METRICS[metric].title)
        for line in aligned([header, *rows]):
            out.print(line, soft_wrap=True, highlight=False)  # whole, however narrow a log is
        for comparison in measured:
            for note in missing_number_notes(comparison):
                out.print(note, soft_wrap=True)
    out.print(f"{len(measured)} of {len(settings)} cells in {output}", soft_wrap=True)
    if failed:
        raise typer.Exit(1)
