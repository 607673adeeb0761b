"""Figure of a search under a limit of divergence: score against divergence, and the front."""

from collections.abc import Sequence

from markupsafe import Markup
from matplotlib.figure import Figure

from tarot.analysis.results import OBJECTIVE_UNITS
from tarot.objectives.front import find_front
from tarot.report.figures.svg import GAIN, INK, LOSS, MUTED, OTHER, shorten, style, svg


def trade_off_figure(name: str, trials: Sequence[tuple[float, float]], max_kl: float, objective: str) -> Markup:
    """Draw the trials of a search under a limit, the front among them, and the limit.

    Args:
        name: identifier of the figure in the page.
        trials: divergence (nats a token) and score of each trial. The divergence is an estimate where it was not
            measured on all retained prompts.
        max_kl: the limit, in nats a token; 0 draws none.
        objective: what the search maximised.
    """
    points = {i: (-kl, score) for i, (kl, score) in enumerate(trials)}
    front, unit = [trials[i] for i in find_front(points)], OBJECTIVE_UNITS.get(objective)
    with style(name):
        figure = Figure(figsize=(4.1, 2.5))
        axes = figure.add_axes((0, 0, 1, 1))
        if max_kl:
            axes.axvline(max_kl, color=LOSS, linewidth=1, linestyle="--", label="limit")
        axes.plot(*zip(*trials, strict=True), color=OTHER, linewidth=0.7, alpha=0.5, zorder=0)
        axes.plot(*zip(*trials, strict=True), "o", color=OTHER, markersize=4, alpha=0.7, label="trial")
        axes.step(*zip(*front, strict=True), where="post", color=MUTED, linewidth=1, zorder=0)
        axes.plot(*zip(*front, strict=True), "o", color=GAIN, markersize=5, label="no other beats both")
        axes.plot(*trials[0], "o", color=INK, markersize=8, markerfacecolor="none", label="identity")
        axes.set_xlabel("KL(base || edited) on retained prompts, nats a token (mostly estimates)")
        axes.set_ylabel(f"{shorten(objective, 30)}" + f", {unit}" * bool(unit))
        axes.legend(
            frameon=False,
            loc="lower right",
            bbox_to_anchor=(1, 1),
            ncols=4,
            borderaxespad=0,
            fontsize=8,
            columnspacing=1,
            handletextpad=0.3,
        )
        described = "; ".join(f"score {score:.3f} at KL {kl:.3f}" for kl, score in front)
        return svg(figure, name, "Score and divergence of the trials", f"limit {max_kl:g}; " * bool(max_kl) + described)
