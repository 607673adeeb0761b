"""Figures of what an edit does inside the model."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogFormatter, MaxNLocator

from tarot.analysis.results import FlipsResult, LayerEffects, LensResult
from tarot.report.figures.svg import GAIN, LOSS, MUTED, OTHER, signed, style, svg

# Attention maps are bitmaps, whose colour no style sheet changes: it must be visible on light and on dark.
HEAT = (0x3D, 0x8B, 0xCD)


class AttentionMap(NamedTuple):
    """Attention weights of one head without and with the edit, and the heading above them."""

    heading: str
    base: Float[np.ndarray, "query key"]
    edited: Float[np.ndarray, "query key"]


def lens_curves(name: str, lens: LensResult) -> Markup:
    """Draw the answer's probability after each layer: edited minus base with its 95% CI, and both on a log axis.

    The edited layers are shaded.
    """
    with style(name):
        figure = Figure(figsize=(5.2, 4.2))
        upper, lower = figure.add_axes((0, 0.44, 1, 0.56)), figure.add_axes((0, 0, 1, 0.38))
        layers = range(len(lens.differences))
        for axes in (upper, lower):
            for layer in lens.edited_layers:
                shade = Rectangle((layer - 0.5, 0), 1, 1, transform=axes.get_xaxis_transform())
                shade.set(facecolor=MUTED, alpha=0.1, linewidth=0)
                axes.add_patch(shade)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        upper.axhline(0, color=MUTED, linewidth=0.8)
        values = [change.value for change in lens.differences]
        if lens.n_documents > 1:  # the interval of one document is infinite
            lows, highs = [change.low for change in lens.differences], [change.high for change in lens.differences]
            upper.fill_between(layers, lows, highs, color=GAIN, alpha=0.25, linewidth=0)
        upper.plot(layers, values, color=GAIN, marker="o", markersize=2.5)
        upper.set_ylabel("answer's probability,\nedited minus base")
        upper.tick_params(labelbottom=False)
        lower.semilogy(layers, lens.base, color=OTHER, linestyle="--", label="base")
        lower.semilogy(layers, lens.edited, color=GAIN, label="edited")
        # matplotlib labels log axes in TeX, which these figures do not parse: names may contain dollars.
        lower.yaxis.set_major_formatter(LogFormatter())
        lower.yaxis.set_minor_formatter(LogFormatter())
        lower.set_ylabel("probability")
        lower.set_xlabel("after layer (shaded: edited)")
        lower.legend(frameon=False, loc="upper left")
        last = lens.differences[-1]
        description = (
            f"mean over {lens.n_documents} documents; after the last layer {signed(last.value)}, "
            f"from {signed(last.low)} to {signed(last.high)}; "
            f"the largest change is after layer {max(layers, key=lambda i: abs(values[i]))}"
        )
        return svg(figure, name, "The answer's probability after each layer, edited minus base", description)


def layer_effects(name: str, effects: LayerEffects) -> Markup:
    """Draw what the heads of each layer gain when turned alone (full), and the loss when undone alone (hollow)."""
    with style(name):
        figure = Figure(figsize=(4.6, 2.6))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.axhline(0, color=MUTED, linewidth=0.8)
        for heights, label, face in (
            (effects.alone, "gained by turning it alone", GAIN),
            (effects.missed, "lost by undoing it alone", "none"),
        ):
            axes.plot(effects.layers, heights, "o", color=GAIN, markersize=5, markerfacecolor=face, label=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("layer")
        axes.set_ylabel(effects.reward)
        axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0)
        description = "; ".join(
            f"layer {layer}: alone {signed(alone)}, missed {signed(missed)}"
            for layer, alone, missed in zip(effects.layers, effects.alone, effects.missed, strict=True)
        )
        return svg(figure, name, "What each layer's heads bring to the reward", description)


def attention_maps(name: str, maps: Sequence[AttentionMap]) -> Markup:
    """Draw attention weights as heat maps under a heading each, base above edited."""
    n_columns = min(4, len(maps))
    n_rows = -(-len(maps) // n_columns)
    with style(name):
        figure = Figure(figsize=(1.75 * n_columns, 3.75 * n_rows))
        for i, (heading, *pair) in enumerate(maps):
            row, column = divmod(i, n_columns)
            for k, (weights, arm) in enumerate(zip(pair, ("base", "edited"), strict=True)):
                left, bottom = column / n_columns, 1 - (row + (0.16 + 0.42 * (k + 1) - 0.04)) / n_rows
                axes = figure.add_axes((left, bottom, 1.5 / 1.75 / n_columns, 0.39 / n_rows))
                _draw_weights(axes, weights)
                if column == 0:
                    axes.set_ylabel(f"{arm}, query token", fontsize=8)
                if arm == "edited":
                    axes.set_xlabel("key token", fontsize=8)
                if k == 0:
                    axes.set_title(heading, fontsize=8, pad=4)
        description = "; ".join(attention_map.heading.replace("\n", ", ") for attention_map in maps)
        return svg(figure, name, "Attention weights without and with the edit", description)


def _draw_weights(axes: Axes, weights: Float[np.ndarray, "query key"]) -> None:
    pixels = np.empty((*weights.shape, 4), np.uint8)
    # The square root makes small weights visible, which are most of them.
    pixels[..., :3], pixels[..., 3] = HEAT, np.sqrt(weights.astype(np.float64)).clip(0, 1) * 255
    axes.imshow(pixels, interpolation="none", aspect="equal")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(visible=True, linewidth=0.5)


def moved_tokens(name: str, result: FlipsResult) -> Markup:
    """Draw the log-probability of each token as the next one, base (hollow) to edited (full), most moved on top.

    At least one document flipped.
    """
    tokens = result.most_moved_tokens()
    with style(name):
        figure = Figure(figsize=(4.6, 0.27 * (len(tokens) + 2)))
        axes = figure.add_axes((0, 0, 1, 1))
        parts = []
        for y, token in enumerate(tokens):
            color = GAIN if token.edited > token.base else LOSS
            axes.plot([token.base, token.edited], [y, y], color=color, linewidth=1.6, zorder=1)
            axes.plot(token.base, y, "o", color=color, markersize=5, markerfacecolor="none")
            axes.plot(token.edited, y, "o", color=color, markersize=5)
            axes.text(1.02, y, str(token.n_documents), transform=axes.get_yaxis_transform(), va="center")
            parts.append(f"{_quote_token(token.text)} from {signed(token.base, 2)} to {signed(token.edited, 2)}")
        axes.text(1.02, -1, "documents", transform=axes.get_yaxis_transform(), va="center", color=MUTED)
        axes.set_yticks(range(len(tokens)), [_quote_token(token.text) for token in tokens])
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(tokens) - 0.4, -0.6)
        axes.grid(axis="x", color=MUTED, alpha=0.2, linewidth=0.6)
        axes.set_xlabel("log-probability as next token, nats: base (hollow) to edited (full)")
        title = f"The tokens whose probability changed most in the {len(result.flips)} documents that changed"
        return svg(figure, name, title, "; ".join(parts))


def _quote_token(token: str) -> str:
    """Quote a token, with spaces and line ends visible."""
    return "\N{LEFT DOUBLE QUOTATION MARK}" + repr(token)[1:-1] + "\N{RIGHT DOUBLE QUOTATION MARK}"
