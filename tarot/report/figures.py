"""Figures as inline SVG: text as text, colours of the page's style sheet, a title and a description in words.

matplotlib draws with stand-in colours, which become `currentColor` and CSS variables: one picture for light and dark.
"""

import io
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import matplotlib
import matplotlib.style
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from tarot.errors import printable
from tarot.evaluation.statistics import Mean

INK, MUTED, GAIN, LOSS, OTHER = "#000001", "#000002", "#000003", "#000004", "#000005"
CSS = {INK: "currentColor", MUTED: "var(--muted)", GAIN: "var(--gain)", LOSS: "var(--loss)", OTHER: "var(--other)"}
SETTINGS = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # names may hold dollars
    "axes.unicode_minus": True,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same layout everywhere
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
NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))  # they differ from day to day


@dataclass(frozen=True)
class Interval:
    """One line of a forest plot."""

    label: str
    value: float
    low: float
    high: float
    is_mean: bool = False


def forest(intervals: Sequence[Interval]) -> Markup:
    """Each gain with its interval on one axis, the first on top, named above its line; means are diamonds."""
    with style("forest"):
        places = [y + 0.5 * interval.is_mean for y, interval in enumerate(intervals)]
        figure = Figure(figsize=(4.4, 0.37 * (len(intervals) + 2)))
        axes = figure.add_axes((0, 0, 1, 1))
        for y, interval in zip(places, intervals, strict=True):
            color = LOSS if interval.value < 0 else GAIN
            axes.plot([0, 0], [y - 0.2, y + 0.2], color=MUTED, linewidth=0.8, solid_capstyle="butt")
            axes.plot([interval.low, interval.high], [y, y], color=color, linewidth=3 if interval.is_mean else 1.6)
            axes.plot(interval.value, y, "D" if interval.is_mean else "o", color=color, markersize=5.5)
            for x, text, side in ((0, _short(interval.label), "left"), (1, signed(interval.value), "right")):
                axes.text(x, y - 0.24, text, ha=side, va="bottom", transform=axes.get_yaxis_transform())
        axes.set_ylim(places[-1] + 0.6, -0.8)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("gain over the unedited model under the same prompts")
        means = [interval for interval in intervals if interval.is_mean]
        described = "; ".join(f"{i.label} {signed(i.value)}, from {signed(i.low)} to {signed(i.high)}" for i in means)
        return svg(figure, "forest", "Gains with their intervals", described)


def curves(name: str, scores: Mapping[str, Sequence[float]], own: str, objective: str) -> Markup:
    """Best score so far after each trial of each search, `own` in front, and the identity's level."""
    with style(name):
        figure = Figure(figsize=(4.1, 2.5))
        axes = figure.add_axes((0, 0, 1, 1))
        described = []
        best = {search: so_far(curve) for search, curve in scores.items() if len(curve)}
        for search, curve in sorted(best.items(), key=lambda item: item[0] == own):
            color = GAIN if search == own else OTHER
            dashes = "-" if search == own else "--"
            axes.step(range(len(curve)), curve, where="post", color=color, linestyle=dashes, label=_short(search))
            described.append(f"{search} reaches {curve[-1]:.4g} after {len(curve)} evaluations")
        identity = next(iter(best.values()), [math.nan])[0]
        axes.axhline(identity, color=MUTED, linewidth=1, linestyle=":", label="identity")
        described.append(f"the identity scores {identity:.4g}")
        axes.set_xlabel("evaluations spent")
        axes.set_ylabel(f"best {_short(objective, 30)} so far")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=len(best) + 1, borderaxespad=0)
        return svg(figure, name, "Best score so far of each search", "; ".join(described))


def so_far(curve: Sequence[float]) -> list[float]:
    """Largest finite score up to each trial; nan before the first."""
    best, largest = math.nan, []
    for score in curve:
        if score is not None and math.isfinite(score) and not score <= best:
            best = score
        largest.append(best)
    return largest


def reward_against_fluency(
    name: str,
    trials: Mapping[int, tuple[float, float, bool]],
    front: Sequence[int],
    arms: Mapping[str, tuple[Mean, Mean]],
    reward: str,
) -> Markup:
    """What a search could have had: fluency, reward, and whether it was refused, of each trial on the samples.

    The line holds the trials that no other beats in both, by rising fluency. `arms` are the mean fluency and reward of
    the base (hollow) and the edited texts on the documents, with their intervals.
    """
    with style(name):
        figure = Figure(figsize=(4.6, 2.9))
        axes = figure.add_axes((0, 0, 1, 1))
        kinds = {"trial": ("o", OTHER, False), "refused trial": ("x", LOSS, True)}
        for label, (marker, color, refused) in kinds.items():
            those = [(fluency, worth) for fluency, worth, was in trials.values() if was == refused]
            if those:
                axes.plot(*zip(*those, strict=True), marker, color=color, markersize=4, alpha=0.7, label=label)
        if front:
            x, y, _ = zip(*(trials[trial] for trial in front), strict=True)
            axes.step(x, y, where="pre", color=MUTED, linewidth=1, zorder=0, label="no other beats in both")
        if 0 in trials:
            axes.plot(*trials[0][:2], "o", color=INK, markersize=8, markerfacecolor="none", label="identity")
        described = []
        for arm, (fluency, worth) in arms.items():
            across, up = ([[mean.value - mean.low], [mean.high - mean.value]] for mean in (fluency, worth))
            axes.errorbar(
                fluency.value,
                worth.value,
                up,
                across,
                color=GAIN,
                marker="D",
                markersize=6,
                markerfacecolor="none" if arm == "base" else GAIN,
                elinewidth=0.8,
                label=f"{arm}, on documents",
            )
            described.append(f"{arm}: reward {signed(worth.value)}, fluency {signed(fluency.value)} nats a token")
        axes.set_xlabel("fluency under the unedited model, nats a token")
        axes.set_ylabel(_short(reward, 30))
        axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0, fontsize=8)
        if front:
            described.append(f"trials that no other beats in both: {', '.join(map(str, front))}")
        return svg(figure, name, "Reward against fluency", "; ".join(described))


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


def signed(value: float, digits: int = 3) -> str:
    return f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def _short(label: str, longest: int = 52) -> str:
    label = printable(label)
    return label if len(label) <= longest else f"{label[: longest - 1]}…"


def style(name: str) -> AbstractContextManager[None]:
    """matplotlib's own defaults, whatever the user's; `name` keeps the identifiers of one page's figures apart."""
    return matplotlib.style.context(["default", {**SETTINGS, "svg.hashsalt": f"tarot {name}"}])


def svg(figure: Figure, name: str, title: str, description: str) -> Markup:
    """The figure for the inside of a page, where a style sheet sets fonts and colours."""
    buffer = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # the browser has further fonts
        figure.savefig(buffer, format="svg", bbox_inches="tight", pad_inches=0.05, metadata=NO_METADATA)
    head, body = buffer.getvalue().split('<g id="figure_1">')
    size = {key: re.search(rf'{key}="([^"]*)"', head)[1] for key in ("width", "height", "viewBox")}  # type: ignore[index]  # all there
    body = re.sub(r' id="[\w.]+_\d+"', "", f"<g>{body}")  # the same in every figure
    body = re.sub(r"font-family: [^;]*; ", "", body).replace("xlink:href", "href")
    body = re.sub(r"(?<=fill: |roke: )#\w+", lambda color: CSS.get(color[0], color[0]), body)
    return Markup(
        f'<svg role="img" aria-labelledby="{name}-title {name}-description" width="{size["width"]}" '
        f'height="{size["height"]}" viewBox="{size["viewBox"]}"><title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-description">{escape(description)}</desc>{body}'
    )
