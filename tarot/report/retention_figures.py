"""Figure of a search under a limit of divergence: score against divergence, and the front."""

from collections.abc import Sequence

from markupsafe import Markup
from matplotlib.figure import Figure

from tarot.report.svg import GAIN, INK, LOSS, MUTED, style, svg


def retention_front_figure(
    name: str, trials: Sequence[tuple[float, float]], front: Sequence[tuple[float, float]], max_kl: float
) -> Markup:
    """Draw the trials of a search, the front among them, and the limit.

    Args:
        name: identifier of the figure in the page.
        trials: divergence (nats a token) and score of each trial.
        front: those of the trials on the front, in rising divergence.
        max_kl: the limit, in nats a token.
    """
    with style(name):
        figure = Figure(figsize=(4.6, 2.8))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.axvline(max_kl, color=LOSS, linewidth=0.8, linestyle="--")
        axes.plot(*zip(*trials, strict=True), "o", color=MUTED, markersize=3)
        axes.plot(*zip(*front, strict=True), "o-", color=GAIN, markersize=4)
        axes.text(max_kl, 1, " limit", color=INK, va="top", transform=axes.get_xaxis_transform())
        axes.set_xlabel("KL(base || edited) on retained prompts, nats a token")
        axes.set_ylabel("score on the samples")
        described = "; ".join(f"score {score:.3f} at KL {kl:.3f}" for kl, score in front)
        return svg(figure, name, "Score and divergence of the trials (line: the front)", described)
