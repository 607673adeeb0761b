"""`tarot diff`: compare two results files, and fail if the newer one is worse."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from tarot.cli.console import out
from tarot.cli.options import output_option, path
from tarot.cli.progress import announce
from tarot.errors import InvalidValueError

REGRESSED = 1
"""Exit code of a regression; errors have 2."""


def diff(
    old: Annotated[Path, typer.Argument(parser=path, metavar="OLD", help="Results of the reference run.")],
    new: Annotated[Path, typer.Argument(parser=path, metavar="NEW", help="Results to judge.")],
    tolerance: Annotated[
        float, output_option("--tolerance", metavar="FRACTION", help="How much a score may fall.")
    ] = 0.02,
    allow_missing: Annotated[
        bool, output_option("--allow-missing", help="Pass cells, documents and arms of OLD that NEW lacks.")
    ] = False,
) -> None:
    """Compare two results files as the regression gate does; exit with 1 if the newer one is worse.

    The files are those of `tarot compare`, `tarot bench` and `pytest --tarot-save-reference`, but not of a reward.
    """
    if not 0 <= tolerance <= 1:
        raise InvalidValueError("a tolerance from 0 to 1", str(tolerance))
    announce("diff")
    from tarot.evaluation.regression.reference import check_regressions
    from tarot.evaluation.results.results_file import load_comparisons
    from tarot.report.verdict_text import verdict_lines

    verdicts = check_regressions(load_comparisons(old), load_comparisons(new), tolerance, allow_missing=allow_missing)
    accept = f"cp {shlex.quote(str(new))} {shlex.quote(str(old))}"
    if allow_missing:  # the copy would discard what is missing
        accept = f"measure the cells and documents that {new} lacks into that file, then {accept}"
    for verdict in verdicts:
        out.print(f"{'FAILED' if verdict.failed else 'passed'} {verdict.name}", highlight=False)
        for line in verdict_lines(verdict, accept):
            out.print(f"  {line}".rstrip(), highlight=False)
        out.print()
    failed = sum(verdict.failed for verdict in verdicts)
    out.print(f"{failed} of {len(verdicts)} cells failed" if failed else f"all {len(verdicts)} cells passed")
    if failed:
        raise typer.Exit(REGRESSED)
