"""`tarot report`: write one HTML page of measured results."""

from pathlib import Path
from typing import Annotated

import typer

from tarot._files.paths import check_writable
from tarot.cli.console import out
from tarot.cli.options import MetricName, output_option, output_path_option, path
from tarot.cli.progress import announce
from tarot.errors import TarotError
from tarot.evaluation.results.comparison import HEADLINE

MARK = '<meta name="generator" content="tarot">'


def report(
    results: Annotated[
        list[Path],
        typer.Argument(parser=path, metavar="RESULTS", help="Files that `tarot compare` or `tarot bench` wrote."),
    ],
    output: Annotated[Path, output_path_option(metavar="DIR", help="Folder for the page, new or of an earlier page.")],
    metric: MetricName = HEADLINE,
    analysis: Annotated[
        list[Path] | None,
        output_option(
            "--analysis",
            parser=path,
            metavar="DIR",
            help="Folder that `tarot analysis` or `tarot effects` wrote; may be repeated.",
            show_default="none",
        ),
    ] = None,
) -> None:
    """Write one HTML page of results: the answer in words, tables, figures, documents, and commands that repeat it.

    The numbers behind tables and figures are written beside it as CSV files.
    """
    check_writable(output, folder=True)
    # A page replaces and removes files by their names, which may be those of other commands.
    if output.is_dir() and any(output.iterdir()) and not _has_page(output):
        raise TarotError("an empty folder, or one with a page", f"{output} with files in it", "choose another folder")
    announce("report")
    from tarot.evaluation.results.reward_comparison import load_results
    from tarot.report.page import write_report

    loaded = [load_results(file) for file in results]
    comparisons = [comparison for answered, _ in loaded for comparison in answered]
    rewards = [comparison for _, scored in loaded for comparison in scored]
    out.print(f"report in {write_report(comparisons, output, metric, analysis or (), rewards)}")


def _has_page(folder: Path) -> bool:
    """Whether a folder has a page of tarot's, and not one of something else."""
    try:
        with (folder / "index.html").open(encoding="utf-8", errors="replace") as page:
            return MARK in page.read(1000)
    except OSError:
        return False
