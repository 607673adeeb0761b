"""Figures of what edits change elsewhere."""

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tarot.evaluation.statistics.gains import Gain
from tarot.evaluation.statistics.means import Mean
from tarot.report.figures.svg import GAIN, INK, LOSS, MUTED, OTHER, signed, style, svg


def effect_matrix(
    name: str, gains: Mapping[str, Mapping[str, Gain]], own: Mapping[str, str], without_number: int = 0
) -> Markup:
    """Draw the change of each task (column) under each adapter (row), in weighted F1.

    Args:
        name: identifier of the figure in the page.
        gains: edited minus base, by adapter and task.
        own: the task that each adapter was tuned on; its square is framed.
        without_number: documents without a number, of all squares together, which the title counts.
    """
    rows, columns = list(gains), list(next(iter(gains.values()), {}))
    peak = max((abs(gain.value) for row in gains.values() for gain in row.values()), default=0.0)
    with style(name):
        figure = Figure(figsize=(1.3 * len(columns), 0.5 * len(rows)))
        axes = figure.add_axes((0, 0, 1, 1))
        parts = []
        for y, row in enumerate(rows):
            for x, column in enumerate(columns):
                gain = gains[row][column]
                strength = 0.65 * abs(gain.value) / peak if peak else 0.0
                color, corner = GAIN if gain.value > 0 else LOSS, (x - 0.48, y - 0.46)
                axes.add_patch(Rectangle(corner, 0.96, 0.92, facecolor=MUTED, alpha=0.08, linewidth=0))
                axes.add_patch(Rectangle(corner, 0.96, 0.92, facecolor=color, alpha=round(strength, 3), linewidth=0))
                if own.get(row) == column:
                    axes.add_patch(Rectangle(corner, 0.96, 0.92, facecolor="none", edgecolor=INK, linewidth=1.2))
                axes.text(x, y - 0.12, signed(gain.value), ha="center", va="center")
                low, high = signed(gain.low, 2), signed(gain.high, 2)
                axes.text(x, y + 0.24, f"{low} to {high}", ha="center", va="center", fontsize=7, color=INK)
                parts.append(f"{row} on {column} {signed(gain.value)}")
        axes.set_xlim(-0.5, len(columns) - 0.5)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xticks(range(len(columns)), [column.replace("_", "_\n", 1) for column in columns])
        axes.set_yticks(range(len(rows)), rows)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        title = "Change of every task under each adapter, weighted F1 (framed: its own)"
        if without_number:
            title += f"; answers without a number, which count as wrong: {without_number}"
        return svg(figure, name, title, "; ".join(parts))


def strength_curves(name: str, curves: Mapping[str, Sequence[tuple[float, Gain, Mean]]]) -> Markup:
    """Draw the gain on its own task against the KL divergence of each adapter at several strengths.

    Points are labelled with their strength: all points of one adapter, or the last ones of several.

    Args:
        name: identifier of the figure in the page.
        curves: strength, gain and KL divergence (nats a token) of each point, by adapter, in rising strength.
    """
    with style(name):
        figure = Figure(figsize=(4.6, 2.8))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.axhline(0, color=MUTED, linewidth=0.8)
        parts = []
        for i, (adapter, points) in enumerate(curves.items()):
            color, dashes = (GAIN, LOSS, OTHER, INK)[i % 4], ("-", "--", ":")[i // 4 % 3]
            x, y = [kl.value for _, _, kl in points], [gain.value for _, gain, _ in points]
            errors = np.array([[gain.value - gain.low, gain.high - gain.value] for _, gain, _ in points]).T
            line = axes.errorbar(x, y, errors, color=color, marker="o", markersize=4, elinewidth=0.8, label=adapter)
            line[0].set_linestyle(dashes)
            for strength, gain, kl in points[-1:] if len(curves) > 1 else points:
                axes.annotate(f"{strength:g}", (kl.value, gain.value), (5, -9), textcoords="offset points", fontsize=8)
            for strength, gain, kl in points:
                parts.append(f"{adapter} at {strength:g}: gain {signed(gain.value)}, KL {kl.value:.3f}")
        axes.set_xlabel("KL(base || edited) on neutral text, nats a token")
        axes.set_ylabel("gain on its own task, weighted F1")
        if len(curves) > 1:
            axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0)
        strengths = dict.fromkeys(f"{strength:g}" for points in curves.values() for strength, *_ in points)
        title = f"What strength buys and costs (points: strength {', '.join(strengths)})"
        return svg(figure, name, title, "; ".join(parts))
