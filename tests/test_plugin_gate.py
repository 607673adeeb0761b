"""The gate: what fails a run, how a failure is reported, and when a reference run is saved."""

from dataclasses import replace
from xml.etree import ElementTree

import pytest
from plugin_suite import GAIN, right_answers

from tarot.evaluation.results.comparison import Comparison
from tarot.evaluation.results.results_file import load_comparisons
from tarot.report.results_csv import save_comparisons

pytest_plugins = ["pytester", "plugin_suite"]
pytestmark = pytest.mark.usefixtures("wide_lines")

# Cells come from a file, so that these tests measure nothing.
FROM_FILE = """
import pathlib, pytest
from tarot.evaluation.results.results_file import load_comparisons
from tarot.evaluation.grid.cell_runner import CellRunner
from tarot.pytest_plugin.session import SessionState

@pytest.fixture(scope="session", autouse=True)
def unchecked():  # the model and the task stand for nothing
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CellRunner, "check", lambda runner, request: None)
        yield

@pytest.fixture(scope="session")
def tarot_model():
    return "model"

@pytest.fixture(autouse=True)
def from_file(monkeypatch):
    comparisons = load_comparisons(pathlib.Path(__file__).with_name("now.json"))
    by_seed = {comparison.seed: comparison for comparison in comparisons}
    monkeypatch.setattr(SessionState, "measure", lambda state, request, model: by_seed[request.seed])
"""
CELLS = ("--tarot-model=m", "--tarot-tasks=synth_color", "--tarot-seeds=0,1", "--tarot-work=cache")
GATED = (*CELLS, "--tarot-reference=then.json")


@pytest.fixture
def gated(pytester: pytest.Pytester) -> pytest.Pytester:
    """A suite of two cells; every answer of the second is wrong, and was right in the reference run."""
    pytester.makeconftest(FROM_FILE)
    pytester.makepyfile(GAIN + "\n\ndef test_other(): pass\n")
    save_comparisons([right_answers(40, 0), right_answers(40, 1)], pytester.path / "then.json")
    save_comparisons([right_answers(40, 0), right_answers(0, 1)], pytester.path / "now.json")
    return pytester


@pytest.mark.parametrize("options", [(), ("-q",), ("-v", "-ra"), ("-x",), ("--tb=no", "-rN"), ("-p", "no:terminal")])
def test_a_failed_gate_is_a_failed_item(gated: pytest.Pytester, options: tuple[str, ...]) -> None:
    result = gated.runpytest_inprocess(*GATED, *options, "--junitxml=junit.xml", "--tarot-report=report")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    if "no:terminal" not in options:
        result.assert_outcomes(passed=3, failed=1)
        assert "1 failed, 3 passed" in result.outlines[-1]
    if "-rN" not in options and "no:terminal" not in options:
        result.stdout.fnmatch_lines(["FAILED tarot gate::m t 0-shot seed 1 - *"])
    (suite,) = ElementTree.parse(gated.path / "junit.xml").getroot().iter("testsuite")
    assert (suite.get("failures"), suite.get("errors"), suite.get("tests")) == ("1", "0", "4")
    failed = [case.get("name") for case in suite.iter("testcase") if case.find("failure") is not None]
    assert failed == ["m t 0-shot seed 1"]
    page = (gated.path / "report" / "index.html").read_text()
    assert "FAILED m t 0-shot seed 1: " in page and "FAILED, compared with the reference run" in page
    assert "The test run failed." in page  # and no test did
    (failure,) = suite.iter("failure")
    shown = failure.text or ""
    assert "fell from 1.000 to 0.000" in (failure.get("message") or "")
    assert "right then and wrong now: 40" in shown and "and 37 more" in shown
    assert "repeat it with:" in shown and "--tarot-save-reference=then.json" in shown


def test_a_failed_gate_under_xdist(gated: pytest.Pytester) -> None:
    result = gated.runpytest_subprocess(*GATED, "-n2", "--junitxml=junit.xml")
    result.assert_outcomes(passed=3, failed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    (suite,) = ElementTree.parse(gated.path / "junit.xml").getroot().iter("testsuite")
    assert (suite.get("failures"), suite.get("tests")) == ("1", "4")


@pytest.mark.parametrize(
    ("options", "passed", "failed"),
    [
        (("-k", "seed0"), 1, 1),  # the other cell is not measured
        (("-k", "other"), 1, 2),
        (("-k", "nothing"), 0, 2),
        (("-k", "seed0", "--tarot-allow-missing"), 1, 0),
        (("-k", "seed0", "--override-ini=tarot_allow_missing=true"), 1, 0),
        (("-k", "seed1", "--tarot-allow-missing"), 1, 1),  # measured, and worse
        (("-k", "other", "--tarot-allow-missing"), 1, 2),  # nothing was compared at all
    ],
)
def test_cells_that_were_not_selected_fail(
    gated: pytest.Pytester, options: tuple[str, ...], passed: int, failed: int
) -> None:
    result = gated.runpytest_inprocess(*GATED, *options)
    result.assert_outcomes(passed=passed, failed=failed, deselected=3 - passed)
    assert result.ret == (pytest.ExitCode.TESTS_FAILED if failed else pytest.ExitCode.OK)


@pytest.mark.parametrize("option", ["--collect-only", "--setup-plan", "--fixtures"])
def test_a_run_without_tests_judges_nothing(gated: pytest.Pytester, option: str) -> None:
    result = gated.runpytest_inprocess(*GATED, option, "--tarot-save-reference=new.json")
    assert result.ret == pytest.ExitCode.OK
    assert "tarot gate" not in result.stdout.str() and not (gated.path / "new.json").exists()


def test_an_interrupted_run_fails_its_gate_too(gated: pytest.Pytester) -> None:
    gated.makepyfile(GAIN + "\n\ndef test_other(): raise KeyboardInterrupt\n")
    result = gated.runpytest_inprocess(*GATED, "--tarot-save-reference=then.json", no_reraise_ctrlc=True)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.assert_outcomes(passed=2, failed=1)
    reference = load_comparisons(gated.path / "then.json")
    assert [comparison.arm("edited").greedy for comparison in reference] == [right_answers(40, 0).gold] * 2


@pytest.mark.parametrize(
    ("body", "options"), [("assert 0", ("--setup-only",)), ("pytest.exit('enough', returncode=0)", ())]
)
def test_a_run_that_leaves_tests_out_saves_no_reference(
    gated: pytest.Pytester, body: str, options: tuple[str, ...]
) -> None:
    gated.makepyfile(f"import pytest\n{GAIN}\n\ndef test_other(tarot_gain):\n    {body}\n")
    result = gated.runpytest_inprocess(
        *CELLS, "--tarot-save-reference=new.json", "--tarot-report=report", *options, no_reraise_ctrlc=True
    )
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*new.json is not written: no reference run is *"])
    assert not (gated.path / "new.json").exists()
    assert "The test run did not finish." in (gated.path / "report" / "index.html").read_text()


FAILING = {
    "assertion": "def test_it(tarot_gain):\n    assert tarot_gain.greedy_f1.low > 0\n",
    "xfail": "import pytest\n@pytest.mark.xfail\ndef test_it(tarot_gain):\n    assert tarot_gain.f1.low > 0\n",
    "teardown": "import pytest\n@pytest.fixture\ndef end():\n    yield\n    raise OSError\n"
    "def test_it(end, tarot_gain): pass\n",
    "other test": GAIN + "\n\ndef test_other():\n    assert False\n",
    "collection": GAIN,
}


@pytest.mark.parametrize("kind", FAILING)
@pytest.mark.parametrize("exists", [True, False])
def test_a_failed_test_saves_no_reference(gated: pytest.Pytester, kind: str, exists: bool) -> None:
    gated.makepyfile(FAILING[kind])
    if kind == "collection":
        gated.makepyfile(test_broken="import missing_module")
    path = gated.path / "then.json"
    before = path.read_bytes()
    if not exists:
        path.unlink()
    options = ("--continue-on-collection-errors",) if kind == "collection" else ()
    result = gated.runpytest_inprocess(*CELLS, "--tarot-save-reference=then.json", *options)
    result.stdout.fnmatch_lines(
        [f"*then.json {'stays as it was' if exists else 'is not written'}: no reference run is *"]
    )
    assert path.exists() == exists
    assert not exists or path.read_bytes() == before


def test_documents_without_a_number_are_named_and_gated(gated: pytest.Pytester) -> None:
    broken = right_answers(40, 1)
    broken = replace(broken, arms=(broken.arms[0], replace(broken.arms[1], without_number=(3, 5))))
    save_comparisons([right_answers(40, 0), broken], gated.path / "now.json")
    note = "m t 0-shot seed 1, edited: 2 of 40 documents without a number (NaN or infinite): 3, 5"
    result = gated.runpytest_inprocess(*GATED, "--tarot-report=report")
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines([note])
    assert note in (gated.path / "report" / "index.html").read_text()
    save_comparisons([right_answers(40, 0), broken], gated.path / "then.json")
    gated.runpytest_inprocess(*GATED).assert_outcomes(passed=3)


def test_a_failed_gate_is_not_a_failed_test(gated: pytest.Pytester) -> None:
    gated.makepyfile(GAIN + "\n\ndef test_other(): assert 0\n")
    result = gated.runpytest_inprocess(*GATED, "--tarot-report=report")
    result.assert_outcomes(passed=2, failed=2)
    assert "The test run failed: 1 of 3 tests." in (gated.path / "report" / "index.html").read_text()


@pytest.mark.parametrize(
    ("before", "is_forgotten"),
    [
        pytest.param(replace(right_answers(40, 1), budget=6), False, id="another budget"),
        pytest.param(right_answers(60, 1, documents=60), False, id="another limit"),
        pytest.param(right_answers(40, 2), True, id="no test measures it any longer"),
    ],
)
def test_the_advice_how_to_accept_a_change_makes_the_gate_pass(
    gated: pytest.Pytester, before: Comparison, is_forgotten: bool
) -> None:
    save_comparisons([right_answers(40, 0), before], gated.path / "then.json")
    save_comparisons([right_answers(40, 0), right_answers(40, 1)], gated.path / "now.json")
    failed = gated.runpytest_inprocess(*GATED)
    assert failed.ret == pytest.ExitCode.TESTS_FAILED
    advice = next(line for line in failed.outlines if line.startswith("to accept an intended change: "))
    assert ("delete it first" in advice) == is_forgotten
    if is_forgotten:
        (gated.path / "then.json").unlink()
    saved = gated.runpytest_inprocess(*CELLS, "--tarot-save-reference=then.json")
    assert saved.ret == pytest.ExitCode.OK
    if before.budget == 6:
        saved.stdout.fnmatch_lines(["m t 0-shot seed 1*budget 6: replaced by a cell with other settings"])
    assert gated.runpytest_inprocess(*GATED).ret == pytest.ExitCode.OK


def test_names_from_a_reference_are_escaped(gated: pytest.Pytester) -> None:
    save_comparisons([replace(right_answers(40, 0), task="\x1b[2Jt\u202e")], gated.path / "then.json")
    result = gated.runpytest_inprocess(*GATED)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    text = result.stdout.str()
    assert "\x1b[2J" not in text and "\u202e" not in text and r"\x1b[2Jt\u202e" in text


def test_a_reference_that_is_not_measured_at_all_fails_once(gated: pytest.Pytester) -> None:
    gated.makepyfile("def test_other(): pass\n")
    gated.runpytest_inprocess(*GATED).assert_outcomes(passed=1, failed=2)
