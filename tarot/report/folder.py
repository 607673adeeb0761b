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

from tarot.errors import TarotError
from tarot.files import write_atomically

# The page's own colours; a test holds the two together.
LIGHT = {"ink": "#1c1d21", "muted": "#62656d", "gain": "#0a63a5", "loss": "#b2401d", "other": "#75787f"}
DARK = {"ink": "#e6e6e3", "muted": "#a0a3aa", "gain": "#6bb4f0", "loss": "#f2916b", "other": "#989ba3"}


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
    # Names and tokens may hold control characters, which XML has no way to write.
    text = re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]", "\N{REPLACEMENT CHARACTER}", text)
    style = f"<style>@media (prefers-color-scheme: dark) {{ {rules} text{{fill:{DARK['ink']}}} }}</style>"
    return text.replace("<svg ", head, 1).replace("<title", f"{style}<title", 1)


def write_svg(path: Path, figure: Markup) -> None:
    """The figure as a file that stands alone."""
    write_atomically(path, standalone(figure).encode(errors="replace"))


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Header and rows; floats to 6 digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([f"{value:.6g}" if isinstance(value, float) else value for value in row] for row in rows)
    write_atomically(path, text.getvalue().encode(errors="replace"))


def pictures(folder: str | Path) -> list[Picture]:
    """The SVG files of a folder, by name; TarotError when there is none."""
    found = [_picture(path) for path in sorted(Path(folder).glob("*.svg"))]
    if not found:
        raise TarotError("a folder with SVG files", str(folder), "run tarot analysis or tarot effects first")
    return found


def _picture(path: Path) -> Picture:
    content = path.read_bytes()
    text = content.decode(errors="replace")

    def said(tag: str) -> str:
        found = re.search(rf"<{tag}\b[^>]*>([^<]*)</{tag}>", text)
        return html.unescape(found[1]) if found else ""

    source = f"data:image/svg+xml;base64,{base64.b64encode(content).decode()}"
    return Picture(path.stem, said("title") or path.stem, said("desc"), source)
