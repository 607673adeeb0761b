"""Figures of gains, searches and rewards."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tarot.evaluation.statistics.means import Mean
from tarot.report.svg import GAIN, INK, LOSS, MUTED, OTHER, shorten, signed, style, svg


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
            for x, text, side in ((0, shorten(interval.label), "left"), (1, signed(interval.value), "right")):
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
            axes.step(range(len(curve)), curve, where="post", color=color, linestyle=dashes, label=shorten(search))
            described.append(f"{search} reaches {curve[-1]:.4g} after {len(curve)} evaluations")
        identity = next(iter(best.values()), [math.nan])[0]
        axes.axhline(identity, color=MUTED, linewidth=1, linestyle=":", label="identity")
        described.append(f"the identity scores {identity:.4g}")
        axes.set_xlabel("evaluations spent")
        axes.set_ylabel(f"best {shorten(objective, 30)} so far")
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
        axes.set_ylabel(shorten(reward, 30))
        axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0, fontsize=8)
        if front:
            described.append(f"trials that no other beats in both: {', '.join(map(str, front))}")
        return svg(figure, name, "Reward against fluency", "; ".join(described))
