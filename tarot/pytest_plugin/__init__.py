"""The pytest plugin: options, marker, fixtures, gate and summary.

Pytest imports this file in every run of the environment it is installed in, so nothing here imports torch, or anything
that does, before a test asks for a fixture. The rooms that need it are imported by the functions that use them.
"""

from collections.abc import Generator
from contextlib import nullcontext, redirect_stderr
from dataclasses import asdict, dataclass, field
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from tarot._files.paths import check_writable
from tarot.errors import TarotError
from tarot.evaluation import results_file
from tarot.evaluation.grid import Measurer, Models, Setting
from tarot.evaluation.results import Arm, Comparison, number_notes
from tarot.objectives.task_names import check_task_names
from tarot.pytest_plugin import options
from tarot.pytest_plugin.options import OPTIONS, TOLERANCE

if TYPE_CHECKING:
    from tarot.edit.adapter import Adapter
    from tarot.evaluation.ray.cells import RayEngine
    from tarot.evaluation.regression import Verdict
    from tarot.models.loaded_model import LoadedModel
    from tarot.pytest_plugin.measured import TarotGain

MEASURING = {"tarot_adapter", "tarot_gain"}
GATE = "tarot gate"  # the file, as it were, of the items that stand for the gate's failures
# Options with which pytest does not run tests: there is nothing to judge or to save then.
WITHOUT_TESTS = ("collectonly", "setupplan", "showfixtures", "show_fixtures_per_test", "cacheshow")


@dataclass
class State:
    """What one process of a run knows: the options, what is loaded, tuned and measured, what is to be said."""

    values: dict[str, Any]
    baseline: list[Comparison] | None = None
    saved: list[Comparison] | None = None  # what the baseline that is to be saved holds already
    models: Models = field(default_factory=Models)
    measurer: Measurer | None = None
    ray: "RayEngine | None" = None
    outcomes: dict[Setting, tuple["Adapter", Comparison]] = field(default_factory=dict)  # that came from Ray
    gains: dict[tuple[Setting, "LoadedModel | None"], "TarotGain | TarotError"] = field(default_factory=dict)
    unsent_cells: list[Comparison] = field(default_factory=list)
    unsent_words: list[str] = field(default_factory=list)
    # Of the controlling process: what the reports of tests have brought, and what came of it.
    comparisons: dict[Any, Comparison] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    verdicts: list["Verdict"] = field(default_factory=list)
    unproven: bool = False  # whether a test that measures failed, or was expected to
    whole: bool = False  # whether the run came to its end without a failure


STATE = pytest.StashKey[State]()


def pytest_addoption(parser: pytest.Parser) -> None:
    options.add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    keywords = ", ".join(option.marker for option in OPTIONS.values() if option.marker)
    config.addinivalue_line(
        "markers", f"tarot({keywords}): what tarot's fixtures measure in this test, over the options"
    )
    values = options.parsed(config)
    state = config.stash[STATE] = State(values)
    if not _is_worker(config):
        config.pluginmanager.register(Collector(state), "tarot-collector")
        _check_writable("--tarot-report", values["report"], folder=True)
        _check_writable("--tarot-save-baseline", to := values["save-baseline"], folder=False)
        state.baseline = _checked_baseline("--tarot-baseline", values["baseline"])
        state.saved = _checked_baseline("--tarot-save-baseline", to if to and Path(to).exists() else None)


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def _checked_baseline(option: str, path: str | None) -> list[Comparison] | None:
    try:
        return results_file.load(path) if path else None
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


@pytest.fixture(scope="session")
def tarot_setting(request: pytest.FixtureRequest) -> Setting:
    """The cell that a test measures, from its marker and the options."""
    if not hasattr(request, "param"):
        _fail(
            TarotError(
                "a model and a task to measure",
                "none, or a fixture asked for by name at run time",
                "give --tarot-model and --tarot-task, or mark the test with @pytest.mark.tarot(model=..., task=...)",
            )
        )
    setting: Setting = request.param
    if setting.task:
        try:
            check_task_names([setting.task], setting.include_path)
        except TarotError as error:
            _fail(error)
    return setting


@pytest.fixture(scope="session")
def tarot_model(tarot_setting: Setting, request: pytest.FixtureRequest) -> "LoadedModel":
    """Model and tokenizer, loaded once a session."""
    try:
        return request.config.stash[STATE].models[tarot_setting.model]
    except TarotError as error:
        _fail(error)


# These two are a test's own, and what they give is kept elsewhere: a fixture of the session would be one for all models
# that parts of a suite may have put in the place of `tarot_model`.


@pytest.fixture
def tarot_adapter(tarot_setting: Setting, request: pytest.FixtureRequest) -> "Adapter":
    """The edit that the search of this cell finds, from the cache where it has been found before."""
    try:
        if request.config.stash[STATE].values["engine"] == "ray":
            return _from_ray(request.config, tarot_setting)[0]
        return _measurer(request.config).tuned(tarot_setting, request.getfixturevalue("tarot_model"))[0]
    except TarotError as error:
        _fail(error)


@pytest.fixture
def tarot_gain(tarot_setting: Setting, request: pytest.FixtureRequest) -> "TarotGain":
    """Base, in-context and edited answers to the same documents, and the gains between them."""
    state = request.config.stash[STATE]
    # The model as a fixture, which a suite may have replaced; it is not needed here when Ray's machines load it.
    model = None if state.values["engine"] == "ray" else request.getfixturevalue("tarot_model")
    if (tarot_setting, model) not in state.gains:
        from tarot.pytest_plugin.measured import TarotGain

        try:
            comparison = _measured(request.config, tarot_setting, model)
            state.unsent_cells.append(comparison)
            state.gains[tarot_setting, model] = TarotGain(comparison)
        except TarotError as error:
            state.gains[tarot_setting, model] = error
    found = state.gains[tarot_setting, model]
    if isinstance(found, TarotError):
        _fail(found)
    return found


def _measured(config: pytest.Config, setting: Setting, model: "LoadedModel | None") -> Comparison:
    if model is None:
        return _from_ray(config, setting)[1]
    # Unless they are wanted, lm-eval's progress bars would fill the captured output of every failure.
    shown = config.getoption("capture") == "no"
    with nullcontext() if shown else redirect_stderr(StringIO()):
        return _measurer(config).comparison(setting, model)


def _measurer(config: pytest.Config) -> Measurer:
    state = config.stash[STATE]
    if state.measurer is None:
        state.measurer = Measurer(_cache(config), state.models, state.unsent_words)
    return state.measurer


def pytest_collection_finish(session: pytest.Session) -> None:
    """Submit all cells that the tests will ask for; a worker's, of which others may ask too, wait until they do."""
    config = session.config
    state = config.stash[STATE]
    if state.values["engine"] != "ray" or _is_worker(config) or config.option.collectonly:
        return
    measured = (item for item in session.items if MEASURING & set(getattr(item, "fixturenames", ())))
    called = (getattr(item, "callspec", None) for item in measured)
    asked = [call.params["tarot_setting"] for call in called if call and "tarot_setting" in call.params]
    try:
        for setting in dict.fromkeys(asked):
            _ray(config).add(setting)
    except TarotError as error:
        raise pytest.UsageError(f"--tarot-engine: {error}") from None


def _ray(config: pytest.Config) -> "RayEngine":
    state = config.stash[STATE]
    if state.ray is None:
        from tarot.evaluation.ray.cells import RayEngine
        from tarot.evaluation.ray.cluster import Resources

        values = state.values
        needs = Resources.parse(values["cpus"], values["gpus"], values["memory"])
        state.ray = RayEngine(_cache(config), needs, values["address"])
    return state.ray


def _from_ray(config: pytest.Config, setting: Setting) -> tuple["Adapter", Comparison]:
    state = config.stash[STATE]
    if setting not in state.outcomes:
        from tarot.edit.adapter import Adapter

        outcome = _ray(config).outcome(setting)
        state.unsent_words += outcome.words
        if outcome.comparison is None:
            pytest.fail(outcome.error, pytrace=False)
        state.outcomes[setting] = Adapter.from_pretrained(outcome.folder), outcome.comparison
    return state.outcomes[setting]


def pytest_report_header(config: pytest.Config) -> str | None:
    if config.stash[STATE].values["engine"] == "ray" and getattr(config.option, "numprocesses", None):
        return "tarot: each of xdist's workers asks Ray for one cell at a time; without -n all are submitted at once"
    return None


def pytest_unconfigure(config: pytest.Config) -> None:
    if (state := config.stash.get(STATE, None)) and state.ray:
        state.ray.close()


def _cache(config: pytest.Config) -> Path:
    if given := config.stash[STATE].values["cache"]:
        return Path(given)
    cache: pytest.Cache | None = getattr(config, "cache", None)
    if cache is None:
        raise TarotError(
            "a cache for tuned adapters", "-p no:cacheprovider and no --tarot-cache", "give --tarot-cache a folder"
        )
    return cache.mkdir("tarot")


def _fail(error: TarotError) -> NoReturn:
    pytest.fail(str(error), pytrace=False)


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

    def __init__(self, state: State) -> None:
        self.state = state

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Of the same cell measured twice the later one stays, unless it has fewer arms: the others are equal."""
        for values in getattr(report, "tarot_cells", ()):
            from tarot.evaluation.regression import identity  # takes NumPy along: only where something was measured

            comparison = Comparison(**{**values, "arms": tuple(Arm(**arm) for arm in values["arms"])})
            key = (identity(comparison), comparison.adapter, comparison.keys)
            if key not in self.state.comparisons or len(self.state.comparisons[key].arms) <= len(comparison.arms):
                self.state.comparisons[key] = comparison
            self.state.words += [words for words in number_notes(comparison) if words not in self.state.words]
        self.state.words += [words for words in getattr(report, "tarot_words", ()) if words not in self.state.words]
        self.state.unproven |= getattr(report, "tarot_unproven", False)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Judge, save and report whatever was measured, also if the run was stopped.

    Each failure is reported as an item that failed, so that the last line, the short summary, JUnit XML and the exit
    code count it as they count a test. First of all plugins, since the others write their files in this hook.
    """
    config = session.config
    if _is_worker(config) or any(getattr(config.option, name, False) for name in WITHOUT_TESTS):
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


def _fail_item(session: pytest.Session, state: State, name: str, message: str) -> None:
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


def _judge(state: State, comparisons: list[Comparison]) -> None:
    if state.baseline is None:
        return
    from tarot.evaluation.regression import check_regressions

    state.verdicts = check_regressions(
        state.baseline, comparisons, state.values[TOLERANCE], allow_missing=state.values["allow-missing"]
    )
    state.words += [
        f"{verdict.comparison}: {'; '.join(verdict.words)}" for verdict in state.verdicts if not verdict.failed
    ]


def _save(state: State, comparisons: list[Comparison]) -> None:
    if path := state.values["save-baseline"]:
        from tarot.evaluation.regression import renewed, save

        if comparisons and (state.failures or not state.whole):
            kept = "stays as it was" if Path(path).exists() else "is not written"
            reason = "no baseline is saved where a test or the gate failed or the run was stopped"
            state.words.append(f"{path} {kept}: {reason}")
            return
        # A test that could not measure, or was not asked to, takes no cell from what is guarded.
        whole = renewed(state.saved or [], comparisons) if comparisons else []
        save(whole, path)
        kept = f", {len(whole) - len(comparisons)} of them as they were" if len(whole) > len(comparisons) else ""
        state.words.append(f"baseline of {len(whole)} cells saved in {path}{kept}")


def _write_report(state: State, comparisons: list[Comparison]) -> None:
    if not (folder := state.values["report"]):
        return
    if not (comparisons or state.verdicts):
        raise TarotError("cells to report", "none", "run a test that uses tarot_gain")
    from tarot.report.page import write_report

    verdicts = [(verdict.comparison, verdict.failed, "; ".join(verdict.words)) for verdict in state.verdicts]
    state.words.append(f"report: {write_report(comparisons, folder, verdicts=verdicts)}")


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """One row a cell, the means, and what the gate and the cache had to say; below the tables of other plugins."""
    state = config.stash[STATE]
    if state.comparisons:
        from tarot.evaluation.metrics import HEADLINE, METRICS
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
