"""Figures of gains, searches and rewards."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tarot.analysis.results import OBJECTIVE_UNITS
from tarot.evaluation.statistics.means import Difference, Mean
from tarot.report.figures.svg import GAIN, INK, LOSS, MUTED, OTHER, shorten, signed, style, svg


@dataclass(frozen=True)
class Interval:
    """One line of a forest plot."""

    label: str
    value: float
    low: float
    high: float
    is_mean: bool = False


def forest(intervals: Sequence[Interval], axis_label: str) -> Markup:
    """Draw gains with their intervals on one axis, the first on top; means are diamonds, below a gap."""
    first_mean = next((y for y, interval in enumerate(intervals) if interval.is_mean), len(intervals))
    with style("forest"):
        heights = [y + 0.5 * (y >= first_mean) for y in range(len(intervals))]
        figure = Figure(figsize=(4.4, 0.37 * (len(intervals) + 2)))
        axes = figure.add_axes((0, 0, 1, 1))
        for y, interval in zip(heights, intervals, strict=True):
            color = LOSS if interval.value < 0 else GAIN
            axes.plot([0, 0], [y - 0.2, y + 0.2], color=MUTED, linewidth=0.8, solid_capstyle="butt")
            axes.plot([interval.low, interval.high], [y, y], color=color, linewidth=3 if interval.is_mean else 1.6)
            axes.plot(interval.value, y, "D" if interval.is_mean else "o", color=color, markersize=5.5)
            for x, text, side in ((0, shorten(interval.label), "left"), (1, signed(interval.value), "right")):
                axes.text(x, y - 0.24, text, ha=side, va="bottom", transform=axes.get_yaxis_transform())
        axes.set_ylim(heights[-1] + 0.6, -0.8)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(axis_label)
        description = "; ".join(
            f"{interval.label} {signed(interval.value)}, from {signed(interval.low)} to {signed(interval.high)}"
            for interval in intervals
        )
        return svg(figure, "forest", "Gains with their intervals", description)


def has_scores(curves: Mapping[str, Sequence[float]]) -> bool:
    """Return whether any trial of any search has a finite score."""
    return any(math.isfinite(score) for curve in curves.values() for score in curve)


def search_curves(name: str, curves: Mapping[str, Sequence[float]], own: str, objective: str) -> Markup:
    """Draw the best score so far after each evaluation of each search, and the score of the identity.

    Args:
        name: identifier of the figure in the page.
        curves: the score after each evaluation, by the name of the search; at least one is finite.
        own: the search to draw in front.
        objective: what the searches maximise.
    """
    unit = OBJECTIVE_UNITS.get(objective)
    with style(name):
        figure = Figure(figsize=(4.1, 2.5))
        axes = figure.add_axes((0, 0, 1, 1))
        parts = []
        best = {search: best_so_far(curve) for search, curve in curves.items() if len(curve)}
        for search, curve in sorted(best.items(), key=lambda item: item[0] == own):
            color, dashes = (GAIN, "-") if search == own else (OTHER, "--")
            axes.step(range(len(curve)), curve, where="post", color=color, linestyle=dashes, label=shorten(search))
            parts.append(f"{search} reaches {curve[-1]:.4g} after {len(curve)} evaluations")
        identity = next(iter(best.values()))[0]
        axes.axhline(identity, color=MUTED, linewidth=1, linestyle=":", label="identity")
        parts.append(f"the identity scores {identity:.4g}")
        axes.set_xlabel("evaluations spent")
        axes.set_ylabel(f"best {shorten(objective, 30)} so far" + f", {unit}" * bool(unit))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=len(best) + 1, borderaxespad=0)
        return svg(figure, name, "Best score so far of each search", "; ".join(parts))


def best_so_far(curve: Sequence[float | None]) -> list[float]:
    """Return the largest finite score up to each trial; NaN before the first."""
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
    arms: Mapping[str, tuple[Mean | Difference, Mean | Difference]],
    reward: str,
) -> Markup:
    """Draw the trials of a search and the texts on held-out documents, by fluency and reward.

    A line connects the trials that no other exceeds in both.

    Args:
        name: identifier of the figure in the page.
        trials: fluency, reward and whether it was refused, of each trial on the samples.
        front: trials that no other exceeds in both, by rising fluency.
        arms: mean fluency and reward of the texts of "base" (drawn hollow) and "edited", with their intervals.
        reward: name of the reward.
    """
    with style(name):
        figure = Figure(figsize=(4.6, 2.9))
        axes = figure.add_axes((0, 0, 1, 1))
        _draw_trials(axes, trials, front)
        parts = []
        for arm, (fluency, mean_reward) in arms.items():
            x_error, y_error = ([[mean.value - mean.low], [mean.high - mean.value]] for mean in (fluency, mean_reward))
            axes.errorbar(
                fluency.value,
                mean_reward.value,
                y_error,
                x_error,
                color=GAIN,
                marker="D",
                markersize=6,
                markerfacecolor="none" if arm == "base" else GAIN,
                elinewidth=0.8,
                label=f"{arm}, held-out documents",
            )
            parts.append(f"{arm}: reward {signed(mean_reward.value)}, fluency {signed(fluency.value)} nats a token")
        axes.set_xlabel("fluency under the unedited model, nats a token")
        axes.set_ylabel(f"reward: {shorten(reward, 30)}")
        axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0, fontsize=8)
        if front:
            parts.append(f"trials that no other exceeds in both: {', '.join(map(str, front))}")
        return svg(figure, name, "Reward against fluency", "; ".join(parts))


def _draw_trials(axes: Axes, trials: Mapping[int, tuple[float, float, bool]], front: Sequence[int]) -> None:
    for label, marker, color, refused in (("trial", "o", OTHER, False), ("refused trial", "x", LOSS, True)):
        points = [(fluency, reward) for fluency, reward, is_refused in trials.values() if is_refused == refused]
        if points:
            axes.plot(*zip(*points, strict=True), marker, color=color, markersize=4, alpha=0.7, label=label)
    if front:
        x, y, _ = zip(*(trials[trial] for trial in front), strict=True)
        axes.step(x, y, where="pre", color=MUTED, linewidth=1, zorder=0, label="no other exceeds both")
    if 0 in trials:
        axes.plot(*trials[0][:2], "o", color=INK, markersize=8, markerfacecolor="none", label="identity")
