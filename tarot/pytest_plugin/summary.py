"""The table, notes and failures at the end of a run."""

import pytest

from tarot.errors import printable
from tarot.pytest_plugin.session import STATE


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print one row a cell, the means, and notes and failures, below the tables of other plugins."""
    state = config.stash[STATE]
    if state.comparisons:
        from tarot.evaluation.metrics import METRICS
        from tarot.evaluation.results import HEADLINE
        from tarot.report.table import aligned, summary_rows

        header, rows = summary_rows(list(state.comparisons.values()))
        gain = header.index("gain")
        terminalreporter.section(f"tarot: {METRICS[HEADLINE].title}")
        title, *lines = aligned([header, *rows])
        terminalreporter.write_line(title, bold=True)
        for row, line in zip(rows, lines, strict=True):
            is_loss = row[gain].startswith("-")
            terminalreporter.write_line(line, red=is_loss, bold=is_loss)
    elif state.notes or state.failures:
        terminalreporter.section("tarot")
    for note in state.notes:
        terminalreporter.write_line(printable(note))
    for failure in state.failures:
        terminalreporter.write_line(f"FAILED {printable(failure)}", red=True)
