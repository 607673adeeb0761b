"""The hooks: options, marker, collection and reports."""

from collections.abc import Generator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tarot._files.paths import check_writable
from tarot.errors import TarotError
from tarot.evaluation import results_file
from tarot.evaluation.results import Arm, Comparison, missing_number_notes
from tarot.pytest_plugin import options
from tarot.pytest_plugin.options import OPTIONS
from tarot.pytest_plugin.session import STATE, SessionState, is_worker, ray_engine

if TYPE_CHECKING:
    pass


MEASURING = {"tarot_adapter", "tarot_gain"}


def pytest_addoption(parser: pytest.Parser) -> None:
    options.add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    keywords = ", ".join(option.marker for option in OPTIONS.values() if option.marker)
    config.addinivalue_line(
        "markers", f"tarot({keywords}): what tarot's fixtures measure in this test, over the options"
    )
    values = options.parsed(config)
    state = config.stash[STATE] = SessionState(values)
    if not is_worker(config):
        config.pluginmanager.register(Collector(state), "tarot-collector")
        _check_writable("--tarot-report", values["report"], folder=True)
        _check_writable("--tarot-save-baseline", to := values["save-baseline"], folder=False)
        state.baseline = _checked_baseline("--tarot-baseline", values["baseline"])
        state.saved = _checked_baseline("--tarot-save-baseline", to if to and Path(to).exists() else None)


def _checked_baseline(option: str, path: str | None) -> list[Comparison] | None:
    try:
        return results_file.load_comparisons(path) if path else None
    except TarotError as error:
        raise pytest.UsageError(f"{option}: {error}") from None


def _check_writable(option: str, target: str | None, *, folder: bool) -> None:
    """Told before an hour of measuring, not after it."""
    if target is None:
        return
    try:
        check_writable(Path(target), folder=folder)
    except TarotError as error:
        raise pytest.UsageError(f"{option}: {error}") from None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "tarot_setting" not in metafunc.fixturenames:
        return
    state = metafunc.config.stash[STATE]
    markers = list(metafunc.definition.iter_markers("tarot"))[::-1]
    comparisons = bool(MEASURING & set(metafunc.fixturenames))
    try:
        settings = options.settings(state.values, markers, metafunc.definition.path.parent, comparisons)
    except TarotError as error:
        raise pytest.Collector.CollectError(f"{metafunc.definition.nodeid}: {error}") from None
    # Without a model or task there is nothing to parametrise over: the fixture says so when the test runs.
    if settings:
        metafunc.parametrize("tarot_setting", settings, indirect=True, ids=[s.id for s in settings], scope="session")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Submit all cells that the tests will ask for; a worker's, of which others may ask too, wait until they do."""
    config = session.config
    state = config.stash[STATE]
    if state.values["engine"] != "ray" or is_worker(config) or config.option.collectonly:
        return
    measured = (item for item in session.items if MEASURING & set(getattr(item, "fixturenames", ())))
    called = (getattr(item, "callspec", None) for item in measured)
    asked = [call.params["tarot_setting"] for call in called if call and "tarot_setting" in call.params]
    try:
        for setting in dict.fromkeys(asked):
            ray_engine(config).add(setting)
    except TarotError as error:
        raise pytest.UsageError(f"--tarot-engine: {error}") from None


def pytest_report_header(config: pytest.Config) -> str | None:
    if config.stash[STATE].values["engine"] == "ray" and getattr(config.option, "numprocesses", None):
        return "tarot: each of xdist's workers asks Ray for one cell at a time; without -n all are submitted at once"
    return None


def pytest_unconfigure(config: pytest.Config) -> None:
    if (state := config.stash.get(STATE, None)) and state.ray:
        state.ray.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Send along what was measured, since a worker may die later, and say why an assertion on a gain failed."""
    report = yield
    state = item.config.stash[STATE]
    if state.unsent_cells:
        # Plain values, which a worker can send.
        report.tarot_cells = [asdict(comparison) for comparison in state.unsent_cells]  # type: ignore[attr-defined]  # what plugins add
    if state.unsent_words:
        report.tarot_words = [*state.unsent_words]  # type: ignore[attr-defined]  # the same
    state.unsent_cells.clear()
    state.unsent_words.clear()
    if (report.failed or hasattr(report, "wasxfail")) and MEASURING & set(getattr(item, "fixturenames", ())):
        report.tarot_unproven = True  # type: ignore[attr-defined]  # the same
    gain = getattr(item, "funcargs", {}).get("tarot_gain")
    if report.when == "call" and report.failed and gain is not None:
        from tarot.pytest_plugin.measured import explain

        report.sections.append(("tarot_gain", explain(gain.comparison)))
    return report


class Collector:
    """Takes what tests have measured off their reports, wherever they ran."""

    def __init__(self, state: SessionState) -> None:
        self.state = state

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Of the same cell measured twice the later one stays, unless it has fewer arms: the others are equal."""
        for values in getattr(report, "tarot_cells", ()):
            from tarot.evaluation.regression import identity  # takes NumPy along: only where something was measured

            comparison = Comparison(**{**values, "arms": tuple(Arm(**arm) for arm in values["arms"])})
            key = (identity(comparison), comparison.adapter, comparison.keys)
            if key not in self.state.comparisons or len(self.state.comparisons[key].arms) <= len(comparison.arms):
                self.state.comparisons[key] = comparison
            self.state.words += [words for words in missing_number_notes(comparison) if words not in self.state.words]
        self.state.words += [words for words in getattr(report, "tarot_words", ()) if words not in self.state.words]
        self.state.unproven |= getattr(report, "tarot_unproven", False)
