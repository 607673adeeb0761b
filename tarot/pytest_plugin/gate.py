"""The end of a run: judge it by the reference run, save it as one, write a report."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tarot.errors import TarotError, printable
from tarot.pytest_plugin.options import TOLERANCE
from tarot.pytest_plugin.session import STATE, SessionState, is_worker

if TYPE_CHECKING:
    from tarot.evaluation.results.comparison import Comparison

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
    # `--setup-only` calls no test, and `pytest.exit(returncode=0)` leaves tests out of a run that seems to pass.
    all_ended = len(state.ended_tests) >= session.testscollected
    ended = session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) and all_ended
    failed = session.shouldstop or session.shouldfail or session.testsfailed or state.measuring_failed
    comparisons = sorted(state.comparisons.values(), key=lambda comparison: comparison.id)
    for cell, lines in _judge(state, comparisons):
        fail_item(session, cell, lines)
        state.failures.append(f"{cell}: {lines[0]}")
    try:
        _save(state, comparisons, complete=bool(ended and not failed))
    except TarotError as error:
        fail_item(session, "--tarot-save-reference", [str(error)])
        state.failures.append(str(error))
    try:
        _write_report(state, comparisons, _outcome(session, state, all_ended))
    except TarotError as error:
        fail_item(session, "--tarot-report", [str(error)])
        state.failures.append(str(error))
    if state.failures and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _judge(state: SessionState, comparisons: "list[Comparison]") -> list[tuple[str, list[str]]]:
    """Compare with the reference run; return the cells that fail, each with its reasons, the short form first."""
    if state.reference is None:
        return []
    from tarot.evaluation.regression.reference import check_regressions
    from tarot.report.verdict_text import verdict_lines

    try:
        state.verdicts = check_regressions(
            state.reference, comparisons, state.values[TOLERANCE], allow_missing=state.values["allow-missing"]
        )
    except TarotError as error:
        return [("--tarot-reference", [str(error)])]
    passed = [verdict for verdict in state.verdicts if not verdict.failed]
    state.notes += [f"{verdict.name}: {'; '.join(verdict.reasons)}" for verdict in passed]
    accept = accept_change(state)
    return [(verdict.name, verdict_lines(verdict, accept)) for verdict in state.verdicts if verdict.failed]


def accept_change(state: SessionState) -> str:
    """Say how to make this run the reference run."""
    from tarot.evaluation.regression.reference import update_reference

    name, folder = state.values["reference"], state.config.invocation_params.dir
    if name and Path(name).is_relative_to(folder):
        name = Path(name).relative_to(folder)
    command = f"run pytest with --tarot-save-reference={name} instead of --tarot-reference, and commit the file"
    measured = list(state.comparisons.values())
    if len(update_reference(state.reference or [], measured)) > len(measured):
        command += "; it keeps the cells that this run did not measure: to forget them, delete it first"
    return command


def _save(state: SessionState, comparisons: "list[Comparison]", *, complete: bool) -> None:
    """Save the run as a reference run, if that is requested, every test has passed and the gate has not failed."""
    path = state.values["save-reference"]
    if not path:
        return
    from tarot.evaluation.regression.reference import update_reference
    from tarot.report.results_csv import save_comparisons

    if comparisons and (state.failures or not complete):
        outcome = "stays as it was" if Path(path).exists() else "is not written"
        reason = "no reference run is saved after a failed test, a failed gate or a stopped run"
        state.notes.append(f"{path} {outcome}: {reason}")
        return
    # Cells of the old file that this run did not measure stay in it.
    if not comparisons:
        raise TarotError("cells to save as a reference run", "none", "run a test that uses tarot_gain")
    cells = update_reference(state.saved or [], comparisons)
    save_comparisons(cells, path)
    unchanged = len(cells) - len(comparisons)
    state.notes += _changed_settings(state.saved or [], cells)
    state.notes.append(
        f"reference run of {len(cells)} cell{'s' * (len(cells) != 1)} saved in {path}"
        + (f", {unchanged} of them unchanged" if unchanged else "")
    )


def _changed_settings(before: "list[Comparison]", after: "list[Comparison]") -> list[str]:
    """Name each cell of the old file that one with other settings replaces."""
    from tarot.evaluation.results.comparison import comparison_names

    identities = {comparison.identity for comparison in after}
    replaced = [comparison for comparison in before if comparison.identity not in identities]
    names = comparison_names([*replaced, *after])[: len(replaced)]
    return [f"{name}: replaced by a cell with other settings" for name in names]


def _outcome(session: pytest.Session, state: SessionState, all_ended: bool) -> str:
    """Say how the run ends, as its exit code will or because tests were left out; "" if it passes."""
    if session.exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED):
        return "The test run did not finish."
    # pytest counts the failed items of the gate, but they are no tests.
    failed, collected = (n - len(state.failures) for n in (session.testsfailed, session.testscollected))
    if failed:
        return f"The test run failed: {failed} of {collected} tests."
    if state.failures:
        return "The test run failed."
    return "" if all_ended else "The test run did not finish."


def _write_report(state: SessionState, comparisons: "list[Comparison]", outcome: str) -> None:
    folder = state.values["report"]
    if not folder:
        return
    if not (comparisons or state.verdicts):
        raise TarotError("cells to report", "none", "run a test that uses tarot_gain")
    from tarot.report.page import Gate, write_report

    page = write_report(comparisons, folder, gate=Gate(state.verdicts, accept_change(state), outcome))
    state.notes.append(f"report: {page}")


GATE = "tarot gate"  # stands where the node ids of tests have a file


def fail_item(session: pytest.Session, name: str, lines: Sequence[str]) -> None:
    """Report a failed item `tarot gate::NAME` to all plugins."""
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
