"""`tarot report`: write one HTML page of measured results."""

from pathlib import Path
from typing import Annotated

import typer

from tarot.cli.console import out
from tarot.cli.options import Metric, check_output, path


def report(
    results: Annotated[
        list[Path], typer.Argument(parser=path, help="files that `tarot compare` or `tarot bench` wrote")
    ],
    output: Annotated[Path, typer.Option(parser=path, help="folder for the page")],
    metric: Metric = "greedy_f1",
    analysis: Annotated[
        list[Path] | None,
        typer.Option(parser=path, help="folder of `tarot analysis` or `tarot effects`; repeat for several"),
    ] = None,
) -> None:
    """One HTML page of what was compared: tables, pictures, flipped documents, rewarded texts, how to repeat each."""
    from tarot.evaluation import reward_results as rewarded
    from tarot.evaluation.metrics import metric_named
    from tarot.report.page import write_report

    metric_named(metric)
    check_output(output, folder=True)
    read = [rewarded.load_results(path) for path in results]
    measured, compared = (
        [comparison for comparisons, _ in read for comparison in comparisons],
        [each for _, those in read for each in those],
    )
    out.print(f"report in {write_report(measured, output, metric, analysis or (), compared)}")
