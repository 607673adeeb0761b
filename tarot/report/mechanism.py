"""Figures of an edit's mechanism and side effects, drawn from plain numbers."""

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogFormatter, MaxNLocator

from tarot.evaluation.statistics import Gain, Mean
from tarot.report.figures import GAIN, INK, LOSS, MUTED, OTHER, signed, style, svg

# Heat maps are small bitmaps, whose colour no rule reaches: it has to be seen on light and on dark.
HEAT = (0x3D, 0x8B, 0xCD)


def by_layer(
    name: str,
    base: Sequence[float],
    changed: Sequence[float],
    differences: Sequence[Mean],
    edited: Sequence[int],
    documents: int,
) -> Markup:
    """Probability of the answer after each layer: edited minus base with its interval, and below both, on a log axis.

    `base` and `changed` are the means without and with the edit; the layers listed in `edited` are shaded.
    """
    with style(name):
        figure = Figure(figsize=(5.2, 4.2))
        upper, lower = figure.add_axes((0, 0.44, 1, 0.56)), figure.add_axes((0, 0, 1, 0.38))
        layers = range(len(differences))
        for axes in (upper, lower):
            for layer in edited:
                shade = Rectangle((layer - 0.5, 0), 1, 1, transform=axes.get_xaxis_transform())
                shade.set(facecolor=MUTED, alpha=0.1, linewidth=0)
                axes.add_patch(shade)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        upper.axhline(0, color=MUTED, linewidth=0.8)
        lows, highs = [d.low for d in differences], [d.high for d in differences]
        values = [difference.value for difference in differences]
        if documents > 1:  # of one, nothing is known of others
            upper.fill_between(layers, lows, highs, color=GAIN, alpha=0.25, linewidth=0)
        upper.plot(layers, values, color=GAIN, marker="o", markersize=2.5)
        upper.set_ylabel("answer's probability,\nedited minus base")
        upper.tick_params(labelbottom=False)
        lower.semilogy(layers, base, color=OTHER, linestyle="--", label="base")
        lower.semilogy(layers, changed, color=GAIN, label="edited")
        # The labels that matplotlib gives a log axis are TeX, which figures do not parse: names may hold dollars.
        lower.yaxis.set_major_formatter(LogFormatter())
        lower.yaxis.set_minor_formatter(LogFormatter())
        lower.set_ylabel("probability")
        lower.set_xlabel("after layer (shaded: edited)")
        lower.legend(frameon=False, loc="upper left")
        last = differences[-1]
        described = (
            f"mean over {documents} documents; after the last layer {signed(last.value)}, from {signed(last.low)} to "
            f"{signed(last.high)}; the largest change is after layer {max(layers, key=lambda i: abs(values[i]))}"
        )
        return svg(figure, name, "The answer's probability after each layer, edited minus base", described)


def layers_alone_and_missed(
    name: str, layers: Sequence[int], values: Sequence[tuple[float, float]], unit: str
) -> Markup:
    """What each layer's heads gain when turned alone (full), and what is lost when they alone are undone (hollow)."""
    with style(name):
        figure = Figure(figsize=(4.6, 2.6))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.axhline(0, color=MUTED, linewidth=0.8)
        for column, label, face in ((0, "gained by turning it alone", GAIN), (1, "lost by undoing it alone", "none")):
            heights = [value[column] for value in values]
            axes.plot(layers, heights, "o", color=GAIN, markersize=5, markerfacecolor=face, label=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("layer")
        axes.set_ylabel(unit)
        axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0)
        described = (
            f"layer {layer}: alone {signed(a)}, missed {signed(m)}"
            for layer, (a, m) in zip(layers, values, strict=True)
        )
        return svg(figure, name, "What each layer's heads bring to the reward", "; ".join(described))


def heat_maps(name: str, maps: Sequence[tuple[str, Sequence[Sequence[float]], Sequence[Sequence[float]]]]) -> Markup:
    """Pairs of square matrices of numbers in [0, 1] under a heading each, base above edited."""
    across = min(4, len(maps))
    down = -(-len(maps) // across)
    with style(name):
        figure = Figure(figsize=(1.75 * across, 3.75 * down))
        for i, (heading, *pair) in enumerate(maps):
            for k, (values, what) in enumerate(zip(pair, ("base", "edited"), strict=True)):
                left, bottom = i % across / across, 1 - (i // across + (0.16 + 0.42 * (k + 1) - 0.04)) / down
                axes = figure.add_axes((left, bottom, 1.5 / 1.75 / across, 0.39 / down))
                pixels = np.empty((len(values), len(values), 4), np.uint8)
                # The square root shows small weights, which are most of them.
                pixels[..., :3], pixels[..., 3] = HEAT, np.sqrt(np.asarray(values)).clip(0, 1) * 255
                axes.imshow(pixels, interpolation="none", aspect="equal")
                axes.set_xticks([])
                axes.set_yticks([])
                for spine in axes.spines.values():
                    spine.set(visible=True, linewidth=0.5)
                if i % across == 0:
                    axes.set_ylabel(what)
                if k == 0:
                    axes.set_title(heading, fontsize=8, pad=4)
        described = "; ".join(heading.replace("\n", ", ") for heading, *_ in maps)
        return svg(figure, name, "Attention without and with the edit: rows look at columns", described)


def moved_tokens(name: str, tokens: Sequence[tuple[str, float, float, int]], documents: int) -> Markup:
    """Log-probability of each token as the next one, from base (hollow) to edited (full), the furthest moved on top."""
    with style(name):
        figure = Figure(figsize=(4.6, 0.27 * (len(tokens) + 2)))
        axes = figure.add_axes((0, 0, 1, 1))
        described = []
        for y, (token, base, edited, count) in enumerate(tokens):
            color = GAIN if edited > base else LOSS
            axes.plot([base, edited], [y, y], color=color, linewidth=1.6, zorder=1)
            axes.plot(base, y, "o", color=color, markersize=5, markerfacecolor="none")
            axes.plot(edited, y, "o", color=color, markersize=5)
            axes.text(1.02, y, str(count), transform=axes.get_yaxis_transform(), va="center")
            described.append(f"{shown(token)} from {signed(base, 2)} to {signed(edited, 2)}")
        axes.text(1.02, -1, "documents", transform=axes.get_yaxis_transform(), va="center", color=MUTED)
        axes.set_yticks(range(len(tokens)), [shown(token) for token, *_ in tokens])
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(tokens) - 0.4, -0.6)
        axes.grid(axis="x", color=MUTED, alpha=0.2, linewidth=0.6)
        axes.set_xlabel("log-probability as next token, nats: base (hollow) to edited (full)")
        title = f"The tokens that moved furthest in the {documents} documents that flipped"
        return svg(figure, name, title, "; ".join(described) or "no document flipped")


def effect_matrix(name: str, gains: Mapping[str, Mapping[str, Gain]], own: Mapping[str, str]) -> Markup:
    """Change of each task (column) under each adapter (row); `own`, framed, is the task that it was tuned on."""
    rows, columns = list(gains), list(next(iter(gains.values()), {}))
    peak = max((abs(gain.value) for row in gains.values() for gain in row.values()), default=0.0)
    with style(name):
        figure = Figure(figsize=(1.3 * len(columns), 0.5 * len(rows)))
        axes = figure.add_axes((0, 0, 1, 1))
        described = []
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
                described.append(f"{row} on {column} {signed(gain.value)}")
        axes.set_xlim(-0.5, len(columns) - 0.5)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xticks(range(len(columns)), [column.replace("_", "_\n", 1) for column in columns])
        axes.set_yticks(range(len(rows)), rows)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        return svg(figure, name, "Change of every task under each adapter (framed: its own)", "; ".join(described))


def trade_off(name: str, curves: Mapping[str, Sequence[tuple[float, Gain, Mean]]]) -> Markup:
    """Gain against KL (nats a token) of each adapter at several strengths, from the identity up.

    The strengths stand beside the points where there is room: of one adapter at all, of several at the last.
    """
    with style(name):
        figure = Figure(figsize=(4.6, 2.8))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.axhline(0, color=MUTED, linewidth=0.8)
        described = []
        for i, (adapter, points) in enumerate(curves.items()):
            color, dashes = (GAIN, LOSS, OTHER, INK)[i % 4], ("-", "--", ":")[i // 4 % 3]
            x, y = [kl.value for _, _, kl in points], [gain.value for _, gain, _ in points]
            reach = np.array([[gain.value - gain.low, gain.high - gain.value] for _, gain, _ in points]).T
            line = axes.errorbar(x, y, reach, color=color, marker="o", markersize=4, elinewidth=0.8, label=adapter)
            line[0].set_linestyle(dashes)
            for strength, gain, kl in points[-1:] if len(curves) > 1 else points:
                axes.annotate(f"{strength:g}", (kl.value, gain.value), (5, -9), textcoords="offset points", fontsize=8)
            for strength, gain, kl in points:
                described.append(f"{adapter} at {strength:g}: gain {signed(gain.value)}, KL {kl.value:.3f}")
        axes.set_xlabel("KL(base, edited) on neutral text, nats a token")
        axes.set_ylabel("gain on its own task")
        if len(curves) > 1:
            axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0)
        strengths = dict.fromkeys(f"{strength:g}" for points in curves.values() for strength, *_ in points)
        title = f"What strength buys and costs (points: strength {', '.join(strengths)})"
        return svg(figure, name, title, "; ".join(described))


def shown(token: str) -> str:
    """A token as a reader can tell it from others: quoted, spaces and line ends visible."""
    return "\N{LEFT DOUBLE QUOTATION MARK}" + repr(token)[1:-1] + "\N{RIGHT DOUBLE QUOTATION MARK}"
