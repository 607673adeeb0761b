"""Build the documentation: `sphinx-build -W --keep-going -n docs FOLDER`. It needs no network.

Prose is MyST, in Markdown and notebooks. The Python reference comes from the docstrings, the commands from typer, and
the pytest options from the plugin's list. Equations become MathML, which browsers draw without a script.
"""

import importlib
import pkgutil
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

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build"]
napoleon_use_ivar = True
myst_enable_extensions = ["deflist", "dollarmath"]
myst_heading_anchors = 3
# The outputs in the notebooks are those of a real model; a test runs the cells on a tiny one.
nb_execution_mode = "off"
# Typer repeats a few headings for each command.
suppress_warnings = ["myst.header"]

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True}
# Single backticks in docstrings are code, as in Markdown.
default_role = "code"
# Without a network only names of tarot can be resolved; private names and type variables have no page.
nitpick_ignore_regex = [("py:.*", r"(?!tarot\b).*|.*\._.*|.*\.(AnyGain|Result)")]

html_theme = "furo"
html_title = f"tarot {version}"
html_static_path = ["_static"]
html_css_files = ["tarot.css"]
html_math_renderer = "mathml"
html_show_sourcelink = html_copy_source = html_show_copyright = False


def quote_formulas(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Render an indented block after prose as a formula or a picture, as in Markdown."""
    prose = ""
    for i, line in enumerate(list(lines)):
        if line.startswith("    ") and prose and not prose.startswith(" ") and not lines[i - 1].strip():
            lines[i - 1] = "\n::\n"
        prose = line if line.strip() else prose
    lines[:] = "\n".join(lines).split("\n")


def shorten_defaults(
    app: Sphinx, what: str, name: str, obj: object, options: object, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Replace functions as defaults, which Sphinx cannot parse."""
    return signature and signature.replace("<function <lambda>>", "..."), returns


def write_references(app: Sphinx, page: str, source: list[str]) -> None:
    """Fill in `<!-- modules -->`, `<!-- commands -->` and `<!-- options -->` from the code."""
    package = page.removeprefix("reference/")
    if "<!-- modules -->" in source[0]:
        source[0] = source[0].replace("<!-- modules -->", "\n\n".join(map(_section, _modules(f"tarot.{package}"))))
    if page == "reference/commands":
        import typer.cli
        from typer.testing import CliRunner

        pages = CliRunner().invoke(typer.cli.app, ["tarot.cli.main", "utils", "docs", "--name", "tarot"]).output
        # Drop the introduction and the list of commands; a section for each command remains.
        sections = pages[pages.index("\n## `tarot ") :]
        source[0] = source[0].replace("<!-- commands -->", sections)
    if page == "reference/pytest":
        from tarot.pytest_plugin.options import OPTIONS, TOLERANCE

        rows = [
            f"| `--tarot-{name}` | {f'`{option.marker[0]}`' if option.marker else ''} | {escape(option.help)} "
            f"| {'' if option.default in (None, (), '') else f'`{option.default}`'} |"
            for name, option in OPTIONS.items()
        ]
        table = ["| option | keyword of the marker | meaning | default |", "|---|---|---|---|", *rows]
        source[0] = source[0].replace("<!-- options -->", "\n".join(table)).replace("<!-- tolerance -->", TOLERANCE)


def _modules(package: str) -> list[str]:
    """Return the public modules of a package and its subpackages, without the packages themselves."""
    folder = importlib.import_module(package).__path__
    modules = pkgutil.walk_packages(folder, f"{package}.")
    return [module.name for module in modules if not module.ispkg and "._" not in module.name]


def _section(module: str) -> str:
    return f"## `{module}`\n\n```{{eval-rst}}\n.. automodule:: {module}\n```"


def draw_inline(writer: HTML5Translator, node: nodes.math) -> None:
    """Write an inline formula as MathML."""
    writer.body.append(_mathml(node, as_block=False))
    raise nodes.SkipNode


def draw_block(writer: HTML5Translator, node: nodes.math_block) -> None:
    """Write a displayed formula as MathML."""
    writer.body.append(f'<div class="math">{_mathml(node, as_block=True)}</div>\n')
    raise nodes.SkipNode


def _mathml(node: nodes.Element, *, as_block: bool) -> str:
    try:
        return re.sub(r"\n\s*", "", tex2mathml(node.astext(), as_block=as_block))
    except MathError as error:
        getLogger(__name__).warning("%s in %s", error, node.astext(), location=node)
        return f"<code>{escape(node.astext())}</code>"


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the handlers of this file."""
    app.add_html_math_renderer("mathml", (draw_inline, None), (draw_block, None))
    app.connect("autodoc-process-docstring", quote_formulas, priority=100)  # before napoleon
    app.connect("autodoc-process-signature", shorten_defaults)
    app.connect("source-read", write_references)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
