"""Tables as CSV files."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from tarot._files.atomic import write_atomically

# What spreadsheets read as the start of a formula, full-width forms included; some ignore blanks before it.
_FORMULA = re.compile("[\t\r]|[\\s\0\ufeff\u200b]*[=+@\\-\uff1d\uff0b\uff20\uff0d]")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a header and rows.

    Floats have 6 digits. An apostrophe stands before text that a spreadsheet would read as a formula.

    Raises:
        TarotError: the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_csv_cell(value) for value in row] for row in rows)
    write_atomically(path, text.getvalue().encode(errors="replace"))


def csv_beside(path: Path) -> Path:
    """Return the name of the CSV file beside another file.

    Example:
        >>> str(csv_beside(Path("results.json"))), str(csv_beside(Path("results.csv")))
        ('results.csv', 'results.csv.csv')
    """
    return path.with_name(f"{path.name}.csv") if path.suffix == ".csv" else path.with_suffix(".csv")


def _csv_cell(value: object) -> object:
    if isinstance(value, str):
        # csv does not quote a carriage return, at which spreadsheets start a new row.
        text = value.replace("\r", r"\r")
        return f"'{text}" if _FORMULA.match(value) else text
    return f"{value:.6g}" if isinstance(value, float) else value
