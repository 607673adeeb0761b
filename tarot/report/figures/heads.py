"""Figures of one number a head."""

import math
from collections.abc import Sequence

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tarot.report.figures.svg import GAIN, LOSS, MUTED, signed, style, svg

SIDE = 0.24
"""Side of a head's square, inches."""
SCALE_STEPS = 5
"""Squares of the colour scale."""


def angle_map(name: str, angles: Sequence[Sequence[float]], layers: Sequence[int]) -> Markup:
    """Draw one angle (radians) for each head."""
    title = "Root-mean-square angle of each head, layer by layer"
    return head_map(name, angles, layers, "radians", title, "the identity")


def head_map(
    name: str, values: Sequence[Sequence[float]], layers: Sequence[int], unit: str, title: str, all_zero: str
) -> Markup:
    """Draw one square for each head, darker for larger values, one hue per sign.

    Args:
        name: identifier of the figure in the page.
        values: one row a layer.
        layers: the layer of each row.
        unit: unit of the values.
        title: what the figure shows.
        all_zero: what it means if all values are zero.
    """
    peak = max((abs(value) for row in values for value in row), default=0.0)
    n_heads = max((len(row) for row in values), default=0)
    height = len(values) + 2.5  # squares, the colour scale included
    with style(name):
        figure = Figure(figsize=(SIDE * max(n_heads, 1), SIDE * height))
        axes = figure.add_axes((0, 2.5 / height, 1, len(values) / height))
        for y, row in enumerate(values):
            for x, value in enumerate(row):
                _draw_square(axes, x, y, value, peak)
        _frame(axes, max(n_heads, 1), len(values))
        axes.xaxis.tick_top()
        axes.xaxis.set_label_position("top")
        axes.set_xlabel("head")
        axes.set_ylabel("layer")
        axes.set_xticks(_ticks(n_heads), [str(x) for x in _ticks(n_heads)])
        axes.set_yticks(_ticks(len(values)), [str(layers[y]) for y in _ticks(len(values))])
        # The scale has axes of its own: with few heads it is wider than the map.
        scale = figure.add_axes((0, 1 / height, SCALE_STEPS / max(n_heads, 1), 1 / height))
        _draw_scale(scale, -peak if any(value < 0 for row in values for value in row) else 0.0, peak, unit)
        heads = [(abs(value), layers[y], x, value) for y, row in enumerate(values) for x, value in enumerate(row)]
        _, layer, head, value = max(heads, default=(0, 0, 0, 0.0))
        largest = f"largest: {signed(value)} {unit} at layer {layer}, head {head}"
        return svg(figure, name, title, largest if peak else f"all are zero: {all_zero}")


def _frame(axes: Axes, n_columns: int, n_rows: int) -> None:
    """Show whole squares, and nothing around them."""
    axes.set_xlim(-0.5, n_columns - 0.5)
    axes.set_ylim(n_rows - 0.5, -0.5)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _draw_square(axes: Axes, x: float, y: float, value: float, peak: float) -> None:
    color, strength = GAIN if value > 0 else LOSS, abs(value) / peak if peak else 0.0
    axes.add_patch(Rectangle((x - 0.46, y - 0.46), 0.92, 0.92, facecolor=MUTED, alpha=0.12, linewidth=0))
    axes.add_patch(Rectangle((x - 0.46, y - 0.46), 0.92, 0.92, facecolor=color, alpha=round(strength, 3), linewidth=0))


def _draw_scale(axes: Axes, low: float, high: float, unit: str) -> None:
    """Draw squares from the lowest to the highest value, with both written below and the unit beside."""
    for x in range(SCALE_STEPS):
        _draw_square(axes, x, 0, low + (high - low) * x / (SCALE_STEPS - 1), high)
    _frame(axes, SCALE_STEPS, 1)
    axes.set_xticks([])
    axes.set_yticks([])
    digits = max(2, 1 - math.floor(math.log10(high))) if high else 2
    for x, value in ((0, low), (SCALE_STEPS - 1, high)):
        text = signed(value, digits) if value else "0"
        axes.text(x, 0.6, text, ha="center", va="top", fontsize=8, clip_on=False)
    axes.text(SCALE_STEPS, 0, unit, ha="left", va="center", fontsize=8, clip_on=False)


def _ticks(n: int) -> range:
    return range(0, n, max(1, math.ceil(n / 16)))
