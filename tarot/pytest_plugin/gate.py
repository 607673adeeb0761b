"""The regression gate: judge, save and report what a run measured."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tarot.errors import TarotError
from tarot.evaluation.results import Comparison
from tarot.pytest_plugin.options import TOLERANCE
from tarot.pytest_plugin.session import STATE, SessionState, is_worker

if TYPE_CHECKING:
    pass


GATE = "tarot gate"  # the file, as it were, of the items that stand for the gate's failures


# Options with which pytest does not run tests: there is nothing to judge or to save then.
WITHOUT_TESTS = ("collectonly", "setupplan", "showfixtures", "show_fixtures_per_test", "cacheshow")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Judge, save and report whatever was measured, also if the run was stopped.

    Each failure is reported as an item that failed, so that the last line, the short summary, JUnit XML and the exit
    code count it as they count a test. First of all plugins, since the others write their files in this hook.
    """
    config = session.config
    if is_worker(config) or any(getattr(config.option, name, False) for name in WITHOUT_TESTS):
        return
    state = config.stash[STATE]
    ended = session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
    state.whole = ended and not (session.shouldstop or session.shouldfail or session.testsfailed or state.unproven)
    comparisons = sorted(state.comparisons.values(), key=lambda comparison: comparison.id)
    for name, outcome in (("judge", _judge), ("--tarot-save-baseline", _save), ("--tarot-report", _write_report)):
        try:
            outcome(state, comparisons)
        except TarotError as error:
            _fail_item(session, state, name, str(error))
        for verdict in state.verdicts if outcome is _judge else ():
            if verdict.failed:
                _fail_item(session, state, verdict.comparison, "; ".join(verdict.words))
    if state.failures and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _fail_item(session: pytest.Session, state: SessionState, name: str, message: str) -> None:
    """Report a failed item `tarot gate::NAME` to all plugins."""
    state.failures.append(message if name.startswith("--") else f"{name}: {message}")
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


def _judge(state: SessionState, comparisons: list[Comparison]) -> None:
    if state.baseline is None:
        return
    from tarot.evaluation.regression import check_regressions

    state.verdicts = check_regressions(
        state.baseline, comparisons, state.values[TOLERANCE], allow_missing=state.values["allow-missing"]
    )
    state.words += [
        f"{verdict.comparison}: {'; '.join(verdict.words)}" for verdict in state.verdicts if not verdict.failed
    ]


def _save(state: SessionState, comparisons: list[Comparison]) -> None:
    if path := state.values["save-baseline"]:
        from tarot.evaluation.regression import save_reference, update_reference

        if comparisons and (state.failures or not state.whole):
            kept = "stays as it was" if Path(path).exists() else "is not written"
            reason = "no baseline is saved where a test or the gate failed or the run was stopped"
            state.words.append(f"{path} {kept}: {reason}")
            return
        # A test that could not measure, or was not asked to, takes no cell from what is guarded.
        whole = update_reference(state.saved or [], comparisons) if comparisons else []
        save_reference(whole, path)
        kept = f", {len(whole) - len(comparisons)} of them as they were" if len(whole) > len(comparisons) else ""
        state.words.append(f"baseline of {len(whole)} cells saved in {path}{kept}")


def _write_report(state: SessionState, comparisons: list[Comparison]) -> None:
    if not (folder := state.values["report"]):
        return
    if not (comparisons or state.verdicts):
        raise TarotError("cells to report", "none", "run a test that uses tarot_gain")
    from tarot.report.page import write_report

    verdicts = [(verdict.comparison, verdict.failed, "; ".join(verdict.words)) for verdict in state.verdicts]
    state.words.append(f"report: {write_report(comparisons, folder, verdicts=verdicts)}")
