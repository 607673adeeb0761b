"""A failure of the gate as a failed item, which every plugin counts as it counts a failed test."""

from collections.abc import Sequence

import pytest

from tarot.errors import printable

GATE = "tarot gate"  # stands where the node ids of tests have a file


def fail_item(session: pytest.Session, name: str, lines: Sequence[str]) -> None:
    """Report a failed item `tarot gate::NAME` to all plugins.

    Args:
        session: the run.
        name: the cell that fails, or an option.
        lines: why; the short summary shows the first. Names from files are escaped.
    """
    name, message = printable(name), "\n".join(map(printable, lines))
    try:
        pytest.fail(message, pytrace=False)
    except pytest.fail.Exception:
        shown = pytest.ExceptionInfo.from_current().getrepr(style="value")
    nodeid, location, hook = f"{GATE}::{name}", (GATE, None, name), session.config.hook
    session.testscollected += 1  # or the progress would exceed 100%
    if terminal := session.config.pluginmanager.get_plugin("terminalreporter"):
        terminal.ensure_newline()
    for when in ("setup", "call", "teardown"):
        failed = when == "call"
        report = pytest.TestReport(
            nodeid, location, {}, "failed" if failed else "passed", shown if failed else None, when
        )
        hook.pytest_runtest_logreport(report=report)
