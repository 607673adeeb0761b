"""SVG files of a folder, as images for a page."""

import base64
import html
import re
from dataclasses import dataclass
from pathlib import Path

from tarot._files.strict_json import read_file
from tarot.errors import FileAccessError, TarotError

MAX_BYTES = 2**26
"""Largest figure that is read."""


@dataclass(frozen=True)
class Picture:
    """A figure as a page embeds it: as an image, so that nothing in the file can act on the page.

    Attributes:
        name: file name without its ending.
        title: what the figure shows.
        description: its main numbers in words.
        source: the file as a data URL.
        data_name: name of the CSV file with its numbers; "" if there is none.
        data: content of that file.
    """

    name: str
    title: str
    description: str
    source: str
    data_name: str = ""
    data: bytes = b""


def read_pictures(folder: str | Path) -> list[Picture]:
    """Read the SVG files of a folder, sorted by name.

    Raises:
        TarotError: the folder has no SVG file, or one cannot be read.

    Example:
        >>> from tarot.report.figures.heads import angle_map
        >>> from tarot.report.figures.svg import write_svg
        >>> write_svg(Path("my-figures") / "angles.svg", angle_map("angles", [[0.5, 0.25]], [0]))
        >>> [picture.name for picture in read_pictures("my-figures")]
        ['angles']
    """
    try:
        pictures = [_read_picture(path) for path in sorted(Path(folder).glob("*.svg"))]
    except OSError as error:
        reason = error.strerror or str(error)
        raise FileAccessError(f"Cannot read {error.filename}: {reason}", hint="run tarot analysis again") from error
    if not pictures:
        raise TarotError("a folder with SVG files", str(folder), "run tarot analysis or tarot effects first")
    return pictures


def _read_picture(path: Path) -> Picture:
    content = read_file(path, MAX_BYTES)
    text = content.decode(errors="replace")

    def text_of(tag: str) -> str:
        match = re.search(rf"<{tag}\b[^<>]*>([^<]*)</{tag}>", text)
        return html.unescape(match[1]) if match else ""

    source = f"data:image/svg+xml;base64,{base64.b64encode(content).decode()}"
    numbers = path.with_suffix(".csv")
    if not numbers.exists():  # several figures of the same numbers: heads-alone and heads-missed of heads.csv
        numbers = path.with_name(f"{path.stem.partition('-')[0]}.csv")
    data = read_file(numbers, MAX_BYTES) if numbers.exists() else b""
    name = numbers.name if data else ""
    return Picture(path.stem, text_of("title") or path.stem, text_of("desc"), source, name, data)
