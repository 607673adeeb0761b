"""The table, notes and failures at the end of a run."""

import pytest

from tarot.errors import printable
from tarot.pytest_plugin.session import STATE


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print one row a cell, the means, and notes and failures, below the tables of other plugins."""
    state = config.stash[STATE]
    if state.comparisons:
        from tarot.evaluation.results.comparison import HEADLINE
        from tarot.evaluation.results.metrics import METRICS
        from tarot.report.columns import aligned
        from tarot.report.table import summary_rows

        header, rows = summary_rows(list(state.comparisons.values()))
        gain = header.index("gain")
        terminalreporter.section(f"tarot: {METRICS[HEADLINE].title}")
        titles, *lines_of_rows = aligned([header, *rows], config.get_terminal_writer().fullwidth)
        for line in titles:
            terminalreporter.write_line(line, bold=True)
        for row, lines in zip(rows, lines_of_rows, strict=True):
            is_loss = row[gain].startswith("-")
            for line in lines:
                terminalreporter.write_line(line, red=is_loss, bold=is_loss)
    elif state.notes or state.failures:
        terminalreporter.section("tarot")
    for note in state.notes:
        terminalreporter.write_line(printable(note))
    for failure in state.failures:
        terminalreporter.write_line(f"FAILED {printable(failure)}", red=True)
