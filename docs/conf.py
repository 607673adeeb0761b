"""How the documentation is built: `sphinx-build -W --keep-going -n docs FOLDER`. Nothing of it needs a network.

Prose is MyST, the Python reference comes from the docstrings, that of the commands from typer, that of pytest's options
from the plugin's own list, and equations become MathML, which browsers draw without a script.
"""

import re
from html import escape
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util.logging import getLogger
from sphinx.writers.html5 import HTML5Translator

import tarot

project = "tarot"
author = "the authors of tarot"
version = release = tarot.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["deflist", "dollarmath"]
myst_heading_anchors = 3
# Typer's pages of commands use the same few headings for each command.
suppress_warnings = ["myst.header"]

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True}
# Single backticks in our docstrings are code, as in Markdown.
default_role = "code"
# Without a network only names of ours can be looked up, and private ones and type variables have no place.
nitpick_ignore_regex = [("py:.*", r"(?!tarot\b).*|.*\._.*|.*\.Measured")]

html_theme = "furo"
html_title = f"tarot {version}"
html_static_path = ["_static"]
html_css_files = ["tarot.css"]
html_math_renderer = "mathml"
html_show_sourcelink = html_copy_source = False


def quote_formulas(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """An indented block that follows prose is a formula or a picture, as in Markdown, and no quotation."""
    prose = ""
    for i, line in enumerate(list(lines)):
        if line.startswith("    ") and prose and not prose.startswith(" ") and not lines[i - 1].strip():
            lines[i - 1] = "\n::\n"
        prose = line if line.strip() else prose
    lines[:] = "\n".join(lines).split("\n")


def shorten_defaults(
    app: Sphinx, what: str, name: str, obj: object, options: object, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """A function as a default has no spelling that Sphinx could read."""
    return signature and signature.replace("<function <lambda>>", "..."), returns


def write_references(app: Sphinx, page: str, source: list[str]) -> None:
    """Where a page says `<!-- commands -->` or `<!-- options -->`, what the program itself says of them."""
    if page == "reference/commands":
        import typer.cli
        from typer.testing import CliRunner

        told = CliRunner().invoke(typer.cli.app, ["tarot.cli.main", "utils", "docs", "--name", "tarot"]).output
        # The program's own line and list are the page's beginning; what is left is a section for each command.
        source[0] = source[0].replace("<!-- commands -->", told[told.index("## `tarot models`") :])
    if page == "reference/pytest":
        from tarot.pytest_plugin.options import OPTIONS, TOLERANCE

        rows = [
            f"| `--tarot-{name}` | {f'`{option.marker}`' if option.marker else ''} | {escape(option.help)} "
            f"| {'' if option.default in (None, (), '') else f'`{option.default}`'} |"
            for name, option in OPTIONS.items()
        ]
        table = ["| option | keyword of the marker | meaning | default |", "|---|---|---|---|", *rows]
        source[0] = source[0].replace("<!-- options -->", "\n".join(table)).replace("<!-- tolerance -->", TOLERANCE)


def draw_inline(writer: HTML5Translator, node: nodes.math) -> None:
    writer.body.append(_mathml(node, as_block=False))
    raise nodes.SkipNode


def draw_block(writer: HTML5Translator, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="math">{_mathml(node, as_block=True)}</div>\n')
    raise nodes.SkipNode


def _mathml(node: nodes.Element, *, as_block: bool) -> str:
    try:
        return re.sub(r"\n\s*", "", tex2mathml(node.astext(), as_block=as_block))
    except MathError as error:
        getLogger(__name__).warning("%s in %s", error, node.astext(), location=node)
        return f"<code>{escape(node.astext())}</code>"


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_html_math_renderer("mathml", (draw_inline, None), (draw_block, None))
    app.connect("autodoc-process-docstring", quote_formulas, priority=100)  # before napoleon
    app.connect("autodoc-process-signature", shorten_defaults)
    app.connect("source-read", write_references)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
