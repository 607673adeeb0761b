"""Figures of one number a head."""

import math
from collections.abc import Sequence

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tarot.report.svg import GAIN, LOSS, MUTED, signed, style, svg


def angle_map(name: str, angles: Sequence[Sequence[float]], layers: Sequence[int]) -> Markup:
    """Mean angle in radians of each head."""
    return head_map(name, angles, layers, "radians", "Mean angle of each head, layer by layer", "the identity")


def head_map(
    name: str, values: Sequence[Sequence[float]], layers: Sequence[int], unit: str, title: str, nothing: str
) -> Markup:
    """One number a head: a square each, strong where it is large, one hue a sign; `nothing` says what all zeros are."""
    peak = max((abs(value) for row in values for value in row), default=0.0)
    n_heads = max((len(row) for row in values), default=0)
    with style(name):
        figure = Figure(figsize=(0.24 * max(n_heads, 1), 0.24 * (len(values) + 2.5)))
        axes = figure.add_axes((0, 0, 1, 1))
        for y, row in enumerate(values):
            for x, value in enumerate(row):
                _square(axes, x, y, value, peak)
        axes.set_xlim(-0.5, max(n_heads, 1) - 0.5)
        axes.set_ylim(len(values) + 2, -0.5)
        axes.set_aspect("equal")
        axes.xaxis.tick_top()
        axes.xaxis.set_label_position("top")
        axes.set_xlabel("head")
        axes.set_ylabel("layer", y=1 - len(values) / (len(values) + 2.5) / 2)
        axes.set_xticks(_every(n_heads), [str(x) for x in _every(n_heads)])
        axes.set_yticks(_every(len(values)), [str(layers[y]) for y in _every(len(values))])
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        _scale(axes, len(values) + 1, peak, unit)
        where = [(abs(value), layers[y], x, value) for y, row in enumerate(values) for x, value in enumerate(row)]
        _, layer, head, value = max(where, default=(0, 0, 0, 0.0))
        largest = f"largest: {signed(value)} {unit} at layer {layer}, head {head}"
        return svg(figure, name, title, largest if peak else f"all are zero: {nothing}")


def _square(axes: Axes, x: float, y: float, angle: float, peak: float) -> None:
    color, strength = GAIN if angle > 0 else LOSS, abs(angle) / peak if peak else 0.0
    axes.add_patch(Rectangle((x - 0.46, y - 0.46), 0.92, 0.92, facecolor=MUTED, alpha=0.12, linewidth=0))
    axes.add_patch(Rectangle((x - 0.46, y - 0.46), 0.92, 0.92, facecolor=color, alpha=round(strength, 3), linewidth=0))


def _scale(axes: Axes, y: float, peak: float, unit: str) -> None:
    """Five squares from the most negative to the most positive value."""
    for x, share in enumerate((-1, -0.5, 0, 0.5, 1)):
        _square(axes, x, y, share * peak, peak)
    for x, text in ((0, signed(-peak, 2)), (4, signed(peak, 2))):
        axes.text(x, y + 0.6, text, ha="center", va="top", fontsize=8, clip_on=False)
    axes.text(5, y, unit, ha="left", va="center", fontsize=8, clip_on=False)


def _every(n: int) -> range:
    return range(0, n, max(1, math.ceil(n / 16)))
