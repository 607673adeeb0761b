"""The table at the end of a run."""

from typing import TYPE_CHECKING

import pytest

from tarot.pytest_plugin.session import STATE

if TYPE_CHECKING:
    pass


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """One row a cell, the means, and what the gate and the cache had to say; below the tables of other plugins."""
    state = config.stash[STATE]
    if state.comparisons:
        from tarot.evaluation.metrics import METRICS
        from tarot.evaluation.results import HEADLINE
        from tarot.report.table import aligned, summary_rows

        header, rows = summary_rows(list(state.comparisons.values()))
        terminalreporter.section(f"tarot: {METRICS[HEADLINE].title}")
        at = header.index("gain")
        title, *lines = aligned([header, *rows])
        terminalreporter.write_line(title, bold=True)
        for row, line in zip(rows, lines, strict=True):
            terminalreporter.write_line(line, red=row[at].startswith("-"), bold=row[at].startswith("-"))
    elif state.words or state.failures:
        terminalreporter.section("tarot")
    for words in state.words:
        terminalreporter.write_line(words)
    for failure in state.failures:
        terminalreporter.write_line(f"FAILED {failure}", red=True)
