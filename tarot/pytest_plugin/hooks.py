"""The hooks before and during tests: options, marker, parameters, and what a test's report carries."""

from collections.abc import Generator, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tarot._files.paths import check_writable
from tarot.errors import TarotError
from tarot.pytest_plugin.marker import cell_requests
from tarot.pytest_plugin.options import MARKER_KEYWORDS, add_options, parse_options
from tarot.pytest_plugin.session import STATE, SessionState, is_worker

if TYPE_CHECKING:
    from tarot.evaluation.results.comparison import Comparison

MEASURING_FIXTURES = frozenset({"tarot_adapter", "tarot_gain"})


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options and ini values."""
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Parse the options, and check files before anything is measured."""
    config.addinivalue_line(
        "markers", f"tarot({', '.join(MARKER_KEYWORDS)}): what tarot's fixtures measure, instead of the options"
    )
    values = parse_options(config)
    state = config.stash[STATE] = SessionState(config, values)
    if not is_worker(config):
        config.pluginmanager.register(Collector(state), "tarot-collector")
        _check_writable("--tarot-report", values["report"], folder=True)
        _check_writable("--tarot-save-reference", values["save-reference"], folder=False)
        state.reference = _load("--tarot-reference", values["reference"])
        if (path := values["save-reference"]) and Path(path).exists():
            state.saved = _load("--tarot-save-reference", path)


def _check_writable(option: str, path: str | None, *, folder: bool) -> None:
    try:
        if path is not None:
            check_writable(Path(path), folder=folder)
    except TarotError as error:
        raise pytest.UsageError(f"{option}: {error}") from None


def _load(option: str, path: str | None) -> "list[Comparison] | None":
    if not path:
        return None
    from tarot.evaluation.results.results_file import load_comparisons

    try:
        return load_comparisons(path)
    except TarotError as error:
        raise pytest.UsageError(f"{option}: {error}") from None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test once for each cell of its marker and the options."""
    if "tarot_setting" not in metafunc.fixturenames:
        return
    state = metafunc.config.stash[STATE]
    markers = list(metafunc.definition.iter_markers("tarot"))[::-1]
    measures = _measures(metafunc.fixturenames)
    try:
        requests = cell_requests(state.values, markers, metafunc.definition.path.parent, measures=measures)
    except TarotError as error:
        raise pytest.Collector.CollectError(f"{metafunc.definition.nodeid}: {error}") from None
    # Without a model or a task there are no cells; the fixture reports that when the test runs.
    if requests:
        names = [request.id for request in requests]
        metafunc.parametrize("tarot_setting", requests, indirect=True, ids=names, scope="session")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Submit all cells to a Ray cluster at once; a worker of xdist submits each when its test runs."""
    config = session.config
    state = config.stash[STATE]
    if not state.uses_ray or is_worker(config) or config.option.collectonly:
        return
    calls = [getattr(item, "callspec", None) for item in session.items if _measures(getattr(item, "fixturenames", ()))]
    requests = [call.params["tarot_setting"] for call in calls if call and "tarot_setting" in call.params]
    try:
        for request in dict.fromkeys(requests):
            state.ray.add(request)
    except TarotError as error:
        raise pytest.UsageError(f"--tarot-engine: {error}") from None


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say how xdist slows a run on a Ray cluster down."""
    if config.stash[STATE].uses_ray and getattr(config.option, "numprocesses", None):
        return "tarot: with -n, each worker submits one cell to Ray at a time; without -n all are submitted at once"
    return None


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave the Ray cluster."""
    if state := config.stash.get(STATE, None):
        state.close()


class Collector:
    """Plugin of the controlling process that adds what tests measured to its state, wherever they ran."""

    def __init__(self, state: SessionState) -> None:
        self.state = state

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add a report's comparisons and notes, and the test's id if it has ended.

        If a cell was measured twice, keep the comparison with more arms, or else the later one: the arms that both have
        are equal.
        """
        if report.when == "call" or (report.when == "setup" and not report.passed):
            self.state.ended_tests.add(report.nodeid)
        notes: list[str] = []
        for values in getattr(report, "tarot_cells", ()):
            from tarot.evaluation.results.comparison import Arm, Comparison
            from tarot.evaluation.results.notes import missing_number_notes  # only in runs that measure

            comparison = Comparison(**{**values, "arms": tuple(Arm(**arm) for arm in values["arms"])})
            key = (comparison.identity, comparison.adapter, comparison.keys)
            known = self.state.comparisons.get(key)
            if known is None or len(known.arms) <= len(comparison.arms):
                self.state.comparisons[key] = comparison
            notes += missing_number_notes(comparison)
        notes += getattr(report, "tarot_notes", ())
        self.state.notes += [note for note in dict.fromkeys(notes) if note not in self.state.notes]
        self.state.measuring_failed |= getattr(report, "tarot_failed", False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach to a test's report what it measured, and to a failed assertion what explains it.

    Reports carry the measurements because a worker of xdist may die later.
    """
    report = yield
    state = item.config.stash[STATE]
    measures = _measures(getattr(item, "fixturenames", ()))
    carried = {
        "tarot_cells": [asdict(comparison) for comparison in state.unsent],
        "tarot_notes": [*state.unsent_notes],
        "tarot_failed": (report.failed or hasattr(report, "wasxfail")) and measures,
    }
    vars(report).update({name: value for name, value in carried.items() if value})
    state.unsent.clear()
    state.unsent_notes.clear()
    gain = getattr(item, "funcargs", {}).get("tarot_gain")
    if report.when == "call" and report.failed and gain is not None:
        from tarot.pytest_plugin.explanation import explain

        report.sections.append(("tarot_gain", explain(gain.comparison)))
    return report


def _measures(fixture_names: Iterable[str]) -> bool:
    return not MEASURING_FIXTURES.isdisjoint(fixture_names)
