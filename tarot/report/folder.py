"""Figures and their numbers as files: an SVG that stands alone, and a CSV.

On a page a figure takes the page's colours. Alone it brings its own, light and dark: the light ones as plain values,
which every viewer knows, the dark ones as a rule on them, which browsers follow.
"""

import base64
import csv
import html
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from tarot._files.atomic import write_atomically
from tarot._files.strict_json import read_file
from tarot.errors import FileAccessError, TarotError

# The page's own colours; a test holds the two together.
LIGHT = {"ink": "#1c1d21", "muted": "#62656d", "gain": "#0a63a5", "loss": "#b2401d", "other": "#75787f"}
DARK = {"ink": "#e6e6e3", "muted": "#a0a3aa", "gain": "#6bb4f0", "loss": "#f2916b", "other": "#989ba3"}


# What spreadsheets take for the beginning of a formula, in East Asian width too; some skip blanks before it.
_FORMULA = re.compile("[\t\r]|[\\s\0\ufeff\u200b]*[=+@\\-\uff1d\uff0b\uff20\uff0d]")
_CONTROLS = re.compile(
    "[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
_LARGEST = 2**26  # bytes of a figure


@dataclass(frozen=True)
class Picture:
    """A figure of a folder as a page embeds it: as an image, so that nothing in the file can act on the page."""

    name: str
    title: str
    description: str
    source: str


def standalone(figure: Markup) -> str:
    """The figure as the text of an SVG file."""
    rules = "".join(
        f'[style*="{what}: {LIGHT[name]}"]{{{what}:{DARK[name]} !important}}'
        for name in LIGHT
        for what in ("fill", "stroke")
    )
    head = (
        '<svg xmlns="http://www.w3.org/2000/svg" font-family="DejaVu Sans, Verdana, sans-serif" '
        f'color="{LIGHT["ink"]}" fill="{LIGHT["ink"]}" style="color-scheme: light dark" '
    )
    text = re.sub(r"var\(--(\w+)\)", lambda found: LIGHT[found[1]], str(figure)).replace("currentColor", LIGHT["ink"])
    text = without_controls(text)
    style = f"<style>@media (prefers-color-scheme: dark) {{ {rules} text{{fill:{DARK['ink']}}} }}</style>"
    return text.replace("<svg ", head, 1).replace("<title", f"{style}<title", 1)


def without_controls(text: str) -> str:
    """Replace what a page or figure must not hold: control characters, which XML cannot write, and text direction."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


def write_svg(path: Path, figure: Markup) -> None:
    """The figure as a file that stands alone."""
    write_atomically(path, standalone(figure).encode(errors="replace"))


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write header and rows: floats to 6 digits, and an apostrophe before a text that a spreadsheet would compute."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_csv_cell(value) for value in row] for row in rows)
    write_atomically(path, text.getvalue().encode(errors="replace"))


def _csv_cell(value: object) -> object:
    if isinstance(value, str):
        # csv does not quote a carriage return, at which a spreadsheet begins another row.
        text = value.replace("\r", r"\r")
        return f"'{text}" if _FORMULA.match(value) else text
    return f"{value:.6g}" if isinstance(value, float) else value


def pictures(folder: str | Path) -> list[Picture]:
    """Read the SVG files of a folder, by name; TarotError if there is none, or one cannot be read."""
    try:
        found = [_picture(path) for path in sorted(Path(folder).glob("*.svg"))]
    except OSError as error:
        got = f"{error.strerror} at {error.filename}"
        raise FileAccessError(f"a folder with SVG files in {folder}", got, "run tarot analysis again") from error
    if not found:
        raise TarotError("a folder with SVG files", str(folder), "run tarot analysis or tarot effects first")
    return found


def _picture(path: Path) -> Picture:
    content = read_file(path, _LARGEST)
    text = content.decode(errors="replace")

    def said(tag: str) -> str:
        found = re.search(rf"<{tag}\b[^<>]*>([^<]*)</{tag}>", text)
        return html.unescape(found[1]) if found else ""

    source = f"data:image/svg+xml;base64,{base64.b64encode(content).decode()}"
    return Picture(path.stem, said("title") or path.stem, said("desc"), source)
