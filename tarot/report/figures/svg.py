"""Figures as SVG: inside a page, in its colours, and as files that stand alone.

matplotlib draws with placeholder colours, which become `currentColor` and CSS variables, so that one figure serves the
light and the dark page. A file that stands alone has its own colours: the light ones as plain values, which every
viewer knows, and the dark ones as a media query, which browsers follow.
"""

import io
import re
import warnings
from contextlib import AbstractContextManager
from pathlib import Path

import matplotlib
import matplotlib.style
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from tarot._files.atomic import write_atomically
from tarot.errors import printable
from tarot.evaluation.statistics import formatting

INK, MUTED, GAIN, LOSS, OTHER = "#000001", "#000002", "#000003", "#000004", "#000005"
CSS = {INK: "currentColor", MUTED: "var(--muted)", GAIN: "var(--gain)", LOSS: "var(--loss)", OTHER: "var(--other)"}
SETTINGS = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # names may contain dollars
    "axes.unicode_minus": True,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # ships with matplotlib, so the layout is the same everywhere
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.linewidth": 0.8,
    "lines.linewidth": 1.6,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}
# The date would make equal figures differ.
NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))

# Colours of page.html; a test compares them.
LIGHT = {"ink": "#1c1d21", "muted": "#62656d", "gain": "#0a63a5", "loss": "#b2401d", "other": "#75787f"}
DARK = {"ink": "#e6e6e3", "muted": "#a0a3aa", "gain": "#6bb4f0", "loss": "#f2916b", "other": "#989ba3"}

_CONTROLS = re.compile(
    "[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def style(name: str) -> AbstractContextManager[None]:
    """Use matplotlib's defaults instead of the user's; `name` makes the identifiers of a page's figures differ."""
    return matplotlib.style.context(["default", {**SETTINGS, "svg.hashsalt": f"tarot {name}"}])


def svg(figure: Figure, name: str, title: str, description: str) -> Markup:
    """Return the figure for a page, whose style sheet sets fonts and colours.

    Args:
        figure: what matplotlib drew.
        name: identifier of the figure in the page.
        title: what the figure shows, plain text.
        description: its main numbers in words, for readers who cannot see it.
    """
    buffer = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # the browser has more fonts
        figure.savefig(buffer, format="svg", bbox_inches="tight", pad_inches=0.05, metadata=NO_METADATA)
    head, body = buffer.getvalue().split('<g id="figure_1">')
    size = {key: re.search(rf'{key}="([^"]*)"', head)[1] for key in ("width", "height", "viewBox")}  # type: ignore[index]  # matplotlib always writes them
    body = re.sub(r' id="[\w.]+_\d+"', "", f"<g>{body}")  # these repeat in every figure
    body = re.sub(r"font-family: [^;]*; ", "", body).replace("xlink:href", "href")
    body = re.sub(r"(?<=fill: |roke: )#\w+", lambda color: CSS.get(color[0], color[0]), body)
    return Markup(
        f'<svg role="img" aria-labelledby="{name}-title {name}-description" width="{size["width"]}" '
        f'height="{size["height"]}" viewBox="{size["viewBox"]}"><title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-description">{escape(description)}</desc>{body}'
    )


def standalone(figure: Markup) -> str:
    """Return the figure as the text of an SVG file."""
    rules = "".join(
        f'[style*="{what}: {LIGHT[name]}"]{{{what}:{DARK[name]} !important}}'
        for name in LIGHT
        for what in ("fill", "stroke")
    )
    head = (
        '<svg xmlns="http://www.w3.org/2000/svg" font-family="DejaVu Sans, Verdana, sans-serif" '
        f'color="{LIGHT["ink"]}" fill="{LIGHT["ink"]}" style="color-scheme: light dark" '
    )
    text = re.sub(r"var\(--(\w+)\)", lambda match: LIGHT[match[1]], str(figure)).replace("currentColor", LIGHT["ink"])
    text = without_controls(text)
    style = f"<style>@media (prefers-color-scheme: dark) {{ {rules} text{{fill:{DARK['ink']}}} }}</style>"
    return text.replace("<svg ", head, 1).replace("<title", f"{style}<title", 1)


def without_controls(text: str) -> str:
    """Replace control characters, which XML cannot contain, and characters that change the text direction."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


def write_svg(path: Path, figure: Markup) -> None:
    """Write the figure as a file that stands alone."""
    write_atomically(path, standalone(figure).encode(errors="replace"))


def signed(value: float, digits: int = 3) -> str:
    """Format a difference as tables do, with the minus sign of the axes."""
    return formatting.signed(value, digits).replace("-", "\N{MINUS SIGN}")


def shorten(label: str, longest: int = 52) -> str:
    """Return the label without control characters, cut to `longest` characters."""
    label = printable(label)
    return label if len(label) <= longest else f"{label[: longest - 1]}…"
