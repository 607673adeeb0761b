"""`tarot bench`: measure a grid of comparisons."""

import shlex
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tarot._files.paths import check_writable
from tarot.cli.checks import check_results_file
from tarot.cli.console import out
from tarot.cli.options import (
    Address,
    Baselines,
    Cpus,
    Draws,
    Engine,
    Gpus,
    IncludePath,
    Layers,
    Limit,
    MaxKl,
    Memory,
    MetricName,
    NumSamples,
    Retain,
    Space,
    Tasks,
    hardware_option,
    output_path_option,
    path,
    prompt_option,
    reference,
    search_option,
    task_option,
)
from tarot.cli.progress import announce
from tarot.cli.recipe import RECIPE, BenchRecipeFile
from tarot.cli.tables import print_table
from tarot.evaluation.results.comparison import HEADLINE
from tarot.search.names import ANSWER_SEARCHES, SearchName

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tarot.evaluation.grid.grid import CellRequest, CellResult
    from tarot.evaluation.results.comparison import Comparison


def bench(
    model: Annotated[
        list[str],
        task_option(
            "--model", parser=reference, metavar="REF", help="Hub id, folder, PATH.gguf or wheel:NAME; may be repeated."
        ),
    ],
    tasks: Tasks,
    output: Annotated[
        Path,
        output_path_option(metavar="FILE", help="JSON file of cells; those in it stay, and are not measured again."),
    ],
    recipe: BenchRecipeFile = None,
    include_path: IncludePath = None,
    limit: Limit = None,
    num_fewshot: Annotated[
        str,
        prompt_option(
            "--num-fewshot",
            "--shots",
            metavar="N|mix,...",
            help="Shots in each prompt: 0,6 measures both; mix draws 0, 2, 4 or 6 for each sample.",
        ),
    ] = "0",
    draws: Draws = 0,
    baseline: Baselines = None,
    search: Annotated[
        list[SearchName] | None,
        search_option(
            "--search",
            metavar="NAME",
            help=f"How to search: {', '.join(ANSWER_SEARCHES)}; may be repeated.",
            show_default="adam",
        ),
    ] = None,
    space: Space = None,
    max_kl: MaxKl = "auto",
    retain: Retain = None,
    layers: Layers = "1.0",
    num_samples: NumSamples = 20,
    budget: Annotated[int, search_option("--budget", min=1, metavar="N", help="Evaluations of a search.")] = 120,
    seeds: Annotated[str, search_option("--seeds", metavar="N,...", help="Random seeds: 0,1,2 measures three.")] = "0",
    metric: MetricName = HEADLINE,
    work: Annotated[
        Path | None,
        hardware_option(
            "--work",
            parser=path,
            metavar="DIR",
            help="Folder of the searches, which all machines can read and write.",
            show_default="OUTPUT.work",
        ),
    ] = None,
    engine: Engine = "local",
    address: Address = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
    memory: Memory = "4GB",
) -> None:
    """Measure a grid of models, tasks, shots, seeds and searches: one cell each, as `tune` and `compare` would.

    The searches tune on labelled answers; for a reward or your own function, use `tune` and `compare`. Cells in the
    file are not measured again, and an interrupted search continues. Exit code 1 if a cell failed.
    """
    check_results_file(output)
    folder = (work or output.with_name(f"{output.name}.work")).absolute()
    check_writable(folder, folder=True)
    from tarot.objectives.tasks.task_names import check_task_names

    check_task_names(tasks, include_path)
    announce("bench")
    from tarot._files.recipe_file import write_recipe
    from tarot.cli.progress import CellProgress
    from tarot.edit.layers import parse_layers
    from tarot.evaluation.grid.grid import CellRequest, parse_seeds, parse_shots, run_grid
    from tarot.evaluation.ray.cells import RayEngine, run_locally
    from tarot.evaluation.ray.cluster import Resources
    from tarot.models.load import check_reference
    from tarot.report.results_csv import save_comparisons

    if engine == "local":  # the machines of a cluster may have models that this one lacks
        for each in dict.fromkeys(model):
            check_reference(each)
    searches = [name.value for name in search or [SearchName.ADAM]]
    combinations = product(model, tasks, parse_shots(num_fewshot), parse_seeds(seeds), searches)
    requests = [
        CellRequest(
            reference,
            task,
            shots,
            seed,
            search=name,
            samples=num_samples,
            budget=budget,
            space=space or "",
            max_kl=max_kl,
            retain=tuple(retain or ()),
            layers=parse_layers(layers),
            limit=limit,
            include_path=str(include_path) if include_path else None,
            draws=draws,
            baselines=tuple(baseline or ()),
        )
        for reference, task, shots, seed, name in dict.fromkeys(combinations)
    ]
    for request in requests:
        request.check()
    resources = Resources.parse(cpus, gpus, memory)
    grid: dict[str, Any] = {
        "model": list(dict.fromkeys(model)),
        "tasks": tasks,
        "include_path": str(include_path) if include_path else None,
        "limit": limit,
        "num_fewshot": list(dict.fromkeys(parse_shots(num_fewshot))),
        "draws": draws,
        "baseline": baseline or None,
        "search": list(dict.fromkeys(searches)),
        "space": space,
        "max_kl": max_kl,
        "retain": retain or None,
        "layers": parsed if isinstance(parsed := parse_layers(layers), float) else list(parsed),
        "num_samples": num_samples,
        "budget": budget,
        "seeds": list(dict.fromkeys(parse_seeds(seeds))),
    }
    file = output.with_suffix(f".{RECIPE}")
    again = f"tarot bench {shlex.quote(file.name)} --output-path FILE.json measures these cells again."

    def save(comparisons: "Sequence[Comparison]", path: Path) -> None:
        save_comparisons(comparisons, path)
        if recipe is None or recipe.resolve() != file.resolve():  # the user's own stays as it is
            write_recipe(file, grid, again)

    failed = []
    with ExitStack() as stack:
        bar = stack.enter_context(CellProgress(len(requests)))

        def show(request: CellRequest, result: "CellResult") -> None:
            for note in result.notes:
                bar.print(note)
            if result.error:
                failed.append(request)
                bar.print(f"failed: {request.id}: {result.error}")
            bar.advance()

        def run(missing: "Sequence[CellRequest]") -> "Iterator[tuple[CellRequest, CellResult]]":
            if engine == "local" or not missing:
                return run_locally(missing, folder, resources, lambda cell, phase: bar.begin_phase(cell.id, phase))
            return stack.enter_context(RayEngine(folder, resources, address)).run(missing)

        try:
            comparisons = run_grid(requests, output, run, save=save, on_start=bar.start, on_result=show)
        except KeyboardInterrupt:
            bar.print("the same command continues from here")
            raise
    _print_summary(comparisons, metric)
    n_measured = f"{len(comparisons)} of {len(requests)} cells"
    out.print(f"{n_measured} in {output}" if comparisons else f"{n_measured} were measured")
    if failed:
        raise typer.Exit(1)


def _print_summary(comparisons: "Sequence[Comparison]", metric: str) -> None:
    """Print a row for each cell, and the documents without a number."""
    from tarot.evaluation.results.metrics import METRICS
    from tarot.evaluation.results.notes import missing_number_notes
    from tarot.report.table import summary_rows

    if not comparisons:
        return
    header, rows = summary_rows(comparisons, metric)
    print_table(header, rows, METRICS[metric].title)
    for comparison in comparisons:
        for note in missing_number_notes(comparison):
            out.print(note)
