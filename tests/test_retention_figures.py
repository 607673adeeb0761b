"""The figure of a search under a limit of divergence."""

from tarot.report.retention_figures import retention_front_figure


def test_draws_the_trials_the_front_and_the_limit() -> None:
    trials = [(0.0, -2.0), (0.02, -1.0), (0.05, -1.5)]
    drawn = retention_front_figure("front", trials, trials[:2], 0.03)
    assert drawn.startswith("<svg") or "<svg" in drawn
    assert "limit" in drawn and "score -1.000 at KL 0.020" in drawn
    assert drawn == retention_front_figure("front", trials, trials[:2], 0.03)
    assert drawn != retention_front_figure("front", trials, trials[:2], 0.04)
