"""Output of the commands: checks before anything slow, and the answers that a failed run leaves."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tarot._files.paths import check_writable
from tarot.errors import TarotError


def check_results_file(output: Path | None) -> None:
    """Raise TarotError if the results or their CSV cannot be written, or the CSV would overwrite an unrelated file."""
    from tarot.report.csv_file import csv_beside

    if output is None:
        return
    check_writable(output)
    check_writable(table := csv_beside(output))
    if table.exists() and not output.exists():  # both are written again where both are there
        raise TarotError(f"{table} exists, and the results would replace it; choose another --output-path.")


def check_empty(output: Path) -> None:
    """Raise TarotError if the folder cannot be written or has files in it."""
    check_writable(output, folder=True)
    if output.is_dir() and any(output.iterdir()):
        raise TarotError("an empty output folder", f"{output} with files in it", "choose another --output-path")


@contextmanager
def kept_answers(output: Path | None, *, folder: bool = False) -> Iterator[Path | None]:
    """Yield the file of a command's answers, beside its output or in its folder; remove it unless the body raises.

    The same command finds the answers and continues from them. Yields None for a command without output.
    """
    from tarot.cli.console import err

    if output is None:
        yield None
        return
    if folder:
        output.mkdir(parents=True, exist_ok=True)
    answers = output / ".answers.jsonl" if folder else output.with_name(f".{output.name}.answers.jsonl")
    try:
        yield answers
    except (TarotError, KeyboardInterrupt):
        if answers.exists():
            err.print(f"answers so far are in {answers}; the same command continues from them")
        raise
    answers.unlink(missing_ok=True)  # the output holds what they are for
