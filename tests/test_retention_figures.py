"""The figure of a search under a limit of divergence, in the page."""

from fabricated import Page, fabricated, render

from tarot.report.figures.retention import trade_off_figure
from tarot.report.page import write_report

TRIALS = ((0.0, -2.0), (0.02, -1.0), (0.05, -1.5))


def test_draws_the_trials_the_front_and_the_limit() -> None:
    drawn = trade_off_figure("front", TRIALS, 0.03, "log_probability")
    assert "limit 0.03" in drawn and "score -1.000 at KL 0.020" in drawn and "at KL 0.050" not in drawn
    assert drawn == trade_off_figure("front", TRIALS, 0.03, "log_probability")
    assert drawn != trade_off_figure("front", TRIALS, 0.04, "log_probability")
    assert "limit" not in trade_off_figure("front", TRIALS, 0.0, "log_probability")


def test_only_the_page_of_a_limited_search_shows_it(tmp_path) -> None:
    limited = fabricated(trade_off=TRIALS, max_kl=0.03)
    page = Page(render([limited]))
    assert "Score and divergence of the trials" in page.texts_of("title")
    facts = dict(zip(page.texts_of("dt"), page.texts_of("dd"), strict=True))
    assert facts["limit of divergence"] == "0.03 nats a token on retained prompts"
    assert facts["edited"].endswith(", within 0.03 nats a token on retained prompts")
    write_report([limited], tmp_path)
    assert (tmp_path / "trade-off.csv").read_text().splitlines()[1].endswith(",0,-2")
    assert "Score and divergence of the trials" not in render([fabricated()])


def test_the_page_shows_what_arms_cost() -> None:
    comparison = fabricated()
    cells = Page(render([comparison])).texts_of("td")
    assert cells.count("1.00") == len(comparison.arms)  # seconds, as a multiple of the base's
