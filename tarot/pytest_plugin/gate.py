"""The end of a run: judge by the baseline, save a baseline, write a report."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tarot.errors import TarotError
from tarot.pytest_plugin.gate_item import fail_item
from tarot.pytest_plugin.options import TOLERANCE
from tarot.pytest_plugin.session import STATE, SessionState, is_worker

if TYPE_CHECKING:
    from tarot.evaluation.results import Comparison

# Options with which pytest runs no tests, so there is nothing to judge or save.
WITHOUT_TESTS = ("collectonly", "setupplan", "showfixtures", "show_fixtures_per_test", "cacheshow")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Judge, save and report what was measured, even if the run was stopped.

    Each failure becomes a failed item, so that the last line, the short summary, JUnit XML and the exit code count it.
    This runs before other plugins' hooks because those write their files then.
    """
    config = session.config
    if is_worker(config) or any(getattr(config.option, name, False) for name in WITHOUT_TESTS):
        return
    state = config.stash[STATE]
    ended = session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
    failed = session.shouldstop or session.shouldfail or session.testsfailed or state.measuring_failed
    comparisons = sorted(state.comparisons.values(), key=lambda comparison: comparison.id)
    for cell, message in _judge(state, comparisons):
        fail_item(session, cell, message)
        state.failures.append(f"{cell}: {message}")
    try:
        _save(state, comparisons, complete=bool(ended and not failed))
    except TarotError as error:
        fail_item(session, "--tarot-save-baseline", str(error))
        state.failures.append(str(error))
    try:
        _write_report(state, comparisons)
    except TarotError as error:
        fail_item(session, "--tarot-report", str(error))
        state.failures.append(str(error))
    if state.failures and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _judge(state: SessionState, comparisons: "list[Comparison]") -> list[tuple[str, str]]:
    """Compare with the baseline; return the cells that fail, and why."""
    if state.baseline is None:
        return []
    from tarot.evaluation.regression import check_regressions

    try:
        state.verdicts = check_regressions(
            state.baseline, comparisons, state.values[TOLERANCE], allow_missing=state.values["allow-missing"]
        )
    except TarotError as error:
        return [("--tarot-baseline", str(error))]
    texts = [(verdict.name, "; ".join(verdict.reasons), verdict.failed) for verdict in state.verdicts]
    state.notes += [f"{cell}: {text}" for cell, text, failed in texts if not failed]
    return [(cell, text) for cell, text, failed in texts if failed]


def _save(state: SessionState, comparisons: "list[Comparison]", *, complete: bool) -> None:
    """Save a baseline, if one is requested, every test has passed and the gate has not failed."""
    path = state.values["save-baseline"]
    if not path:
        return
    from tarot.evaluation.regression import save_reference, update_reference

    if comparisons and (state.failures or not complete):
        outcome = "stays as it was" if Path(path).exists() else "is not written"
        reason = "no baseline is saved after a failed test, a failed gate or a stopped run"
        state.notes.append(f"{path} {outcome}: {reason}")
        return
    # Cells of the old file that this run did not measure stay in it.
    cells = update_reference(state.saved or [], comparisons) if comparisons else []
    save_reference(cells, path)
    unchanged = len(cells) - len(comparisons)
    state.notes.append(
        f"baseline of {len(cells)} cells saved in {path}" + (f", {unchanged} of them unchanged" if unchanged else "")
    )


def _write_report(state: SessionState, comparisons: "list[Comparison]") -> None:
    folder = state.values["report"]
    if not folder:
        return
    if not (comparisons or state.verdicts):
        raise TarotError("cells to report", "none", "run a test that uses tarot_gain")
    from tarot.report.page import write_report

    verdicts = [(verdict.name, verdict.failed, "; ".join(verdict.reasons)) for verdict in state.verdicts]
    state.notes.append(f"report: {write_report(comparisons, folder, verdicts=verdicts)}")
