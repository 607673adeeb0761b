"""The plugin as a new user has it: options, marker, a short test, a gain, a gate; nothing imported for others."""

import functools
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import lm_eval.utils
import pytest
from checkpoint import byte_model, byte_tokenizer, save_checkpoint, write_tasks
from hypothesis import given
from hypothesis import strategies as st

import tarot.objectives.samples

# An inner run in this process forgets what it imports, and torch cannot be imported twice: everything comes first.
import tarot.pytest_plugin.measured
import tarot.report
from tarot._files.lock import hold_lock
from tarot.edit.adapter import Adapter
from tarot.edit.adapter_folder import METADATA, WEIGHTS
from tarot.errors import TarotError
from tarot.evaluation import adapter_cache as cache
from tarot.evaluation.regression import save_reference
from tarot.evaluation.results import Comparison
from tarot.evaluation.results_file import comparisons_to_json, load_comparisons
from tarot.models.loaded_model import LoadedModel
from tarot.pytest_plugin import options
from tarot.pytest_plugin.hooks import Collector
from tarot.pytest_plugin.measured import TarotGain, explain
from tarot.pytest_plugin.options import OPTIONS
from tarot.pytest_plugin.session import STATE, SessionState
from tarot.pytest_plugin.summary import pytest_terminal_summary
from tarot.search.config import TaRotConfig
from tarot.search.folder import LOCK, TRIALS

pytest_plugins = ["pytester"]

SEARCH = ("--tarot-budget=3", "--tarot-space=head", "--tarot-search=random")
SMALL = ("--tarot-task=own_choice", "--tarot-samples=6", "--tarot-draws=0", *SEARCH)
GAIN = """
def test_gain(tarot_gain):
    assert tarot_gain.cell.keys
"""


@pytest.fixture(scope="module", autouse=True)
def _templates_compiled_once() -> Iterator[None]:
    """lm-eval compiles a template anew for every document: half the time of tasks as small as these."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lm_eval.utils.env, "from_string", functools.cache(lm_eval.utils.env.from_string))
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, task files, and a cache that the tests share."""
    place = tmp_path_factory.mktemp("place")
    save_checkpoint(place / "model")
    for path in write_tasks(place / "tasks", test=20).glob("*.jsonl"):
        path.write_text(path.read_text().replace('"redder"', '"tan"').replace('"blue"', '"sky"'))
    return place


@pytest.fixture
def here(place: Path) -> tuple[str, ...]:
    """Options of a small cell on that model."""
    return (
        *SMALL,
        f"--tarot-model={place / 'model'}",
        f"--tarot-include-path={place / 'tasks'}",
        f"--tarot-cache={place / 'cache'}",
    )


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")  # whole messages in the short summary
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)


# Options


@given(st.lists(st.integers(0, 99), min_size=1))
def test_lists_of_numbers_are_read_as_written(numbers: list[int]) -> None:
    text = ", ".join(map(str, numbers))
    assert options.seeds(text) == options.shots(text) == tuple(numbers)


def test_mixed_shots() -> None:
    assert options.shots("0,mix") == (0, "mix")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--tarot-budget=x", "--tarot-budget: expected a whole number from 1, got 'x'"),
        ("--tarot-samples=0", "--tarot-samples: expected a whole number from 1, got '0'"),
        ("--tarot-draws=-1", "--tarot-draws: expected a whole number from 0, got '-1'"),
        ("--tarot-limit=-1", "--tarot-limit: expected a whole number from 1, got '-1'"),
        ("--tarot-shots=0,two", "--tarot-shots: expected shots as 0,6, got '0,two'"),
        ("--tarot-seeds=0;1", "--tarot-seeds: expected seeds as 0,1,2, got '0;1'"),
        ("--tarot-model= ", "--tarot-model: expected a name, got ' '"),
        (
            "--tarot-baseline=nowhere.json",
            "--tarot-baseline: expected a file of results, got No such file or directory",
        ),
        ("--tarot-baseline=newer.json", "--tarot-baseline: expected results of format 1 at most, got 7"),
        ("--tarot-baseline=broken.json", "--tarot-baseline: expected results as tarot writes them"),
        ("--tarot-report=newer.json", "--tarot-report: expected a folder to write, got '*newer.json', which is none"),
        ("--tarot-report=newer.json/deep", "--tarot-report: expected a place to write, got '*newer.json/deep'"),
        ("--tarot-save-baseline=.", "--tarot-save-baseline: expected a file to write, got '*', which is none"),
        ("--override-ini=tarot_tolerance=2", "tarot_tolerance: expected a fraction from 0 to 1, got '2'"),
        ("--override-ini=tarot_seeds=a", "tarot_seeds: expected seeds as 0,1,2, got 'a'"),
    ],
)
def test_bad_values_are_quoted(pytester: pytest.Pytester, argument: str, message: str) -> None:
    (pytester.path / "newer.json").write_text('{"format": 7, "cells": []}')
    (pytester.path / "broken.json").write_text("{")
    result = pytester.runpytest_inprocess(argument)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {message.replace('[', '[[]')}*"])


def test_ini_values_and_the_command_line_over_them(pytester: pytest.Pytester) -> None:
    pytester.makeini(
        "[pytest]\ntarot_model =\n    one\n    two\ntarot_task = color\ntarot_seeds = 3\ntarot_shots = 2\n"
    )
    pytester.makepyfile(
        "def test_cell(tarot_setting): print('CELL', tarot_setting.id)\n\ndef test_gain(tarot_gain): pass"
    )
    result = pytester.runpytest_inprocess("--tarot-shots=0,4", "--collect-only", "-q")
    result.stdout.fnmatch_lines(
        [f"*::test_gain[[]{model}-color-{k}shot-seed3]" for model in ("one", "two") for k in (0, 4)], consecutive=True
    )


# Marker


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ("modell='x'", "expected a known keyword of @pytest.mark.tarot, got 'modell'; did you mean 'model'?"),
        ("'x'", "expected keywords in @pytest.mark.tarot, got 'x' without one; for example task='synth_color'"),
        ("budget='many'", "expected a whole number from 1 for budget in @pytest.mark.tarot, got 'many'"),
        ("num_fewshot=[0, True]", "expected shots as 0,6 for num_fewshot in @pytest.mark.tarot, got 'True'"),
    ],
)
def test_bad_markers_are_quoted(pytester: pytest.Pytester, marker: str, message: str) -> None:
    pytester.makepyfile(f"import pytest\n@pytest.mark.tarot({marker})\ndef test_it(tarot_gain): pass")
    result = pytester.runpytest_inprocess("--strict-markers")
    result.stdout.fnmatch_lines([f"*test_it: {message.replace('[', '[[]').replace('?', '[?]')}"])
    result.assert_outcomes(errors=1)
    result.stdout.no_fnmatch_line("*Traceback*")


def test_markers_over_options_and_the_nearest_over_both(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest
        pytestmark = pytest.mark.tarot(model=["a", "b"], task="module", seed=(1, 2))

        @pytest.mark.tarot(task="function", num_fewshot="mix", seed=7)
        def test_near(tarot_gain): pass

        def test_far(tarot_adapter): pass

        def test_model(tarot_model): pass
        """
    )
    result = pytester.runpytest_inprocess(
        "--tarot-model=c", "--tarot-shots=3", "--collect-only", "-q", "--strict-markers"
    )
    ids = re.findall(r"::(\S+\[.*\])", result.stdout.str())
    assert sorted(ids) == sorted(
        [
            *(f"test_near[{model}-function-mix-seed7]" for model in "ab"),
            *(f"test_far[{model}-module-3shot-seed{seed}]" for model in "ab" for seed in (1, 2)),
            *(f"test_model[{model}]" for model in "ab"),
        ]
    )


def test_a_setting_is_what_a_marker_says() -> None:
    values = {key: option.default for key, option in OPTIONS.items()}
    given_ = {
        "model": "m",
        "task": "t",
        "samples": 4,
        "limit": 9,
        "include_path": "tasks",
        "control": ["random"],
    }
    (setting,) = options.settings(values, [pytest.mark.tarot(**given_).mark], Path("/folder"), True)
    assert setting == CellRequest("m", "t", samples=4, limit=9, include_path="/folder/tasks", control=("random",))
    assert setting.draws == 5  # of few-shot prompts, unless somebody says otherwise
    given_ = {**given_, "space": None, "search": None, "limit": None}
    (plain,) = options.settings(values | {"space": "head"}, [pytest.mark.tarot(**given_).mark], Path("/folder"), True)
    assert (plain.space, plain.search, plain.limit) == ("", "adam", None)  # None is as if nothing had been said


# Errors of what is asked for


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tarot-model="], None),
        (
            [],
            "expected a model and a task to measure, got none*; give --tarot-model and --tarot-task, or mark the test*",
        ),
        (["--tarot-model=no/such", *SMALL], "expected *no/such*"),
        (
            ["--tarot-task=own_choise"],
            "expected a known task, got 'own_choise'; did you mean 'own_choice'[?]",
        ),
        (["--tarot-search=bayes"], "expected a known search, got 'bayes'; known: adam, bo, paper, published, random"),
        (["--tarot-space=heads"], "expected a known space, got 'heads'; did you mean 'head'[?]"),
        (
            ["--tarot-samples=99"],
            "expected at least 99 samples and 0 shots in the 'train' split of own_choice, got 30*",
        ),
    ],
)
def test_what_there_is_not_is_one_line(
    pytester: pytest.Pytester,
    here: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str | None,
) -> None:
    pytester.makepyfile(GAIN)
    if message is None:
        assert pytester.runpytest_inprocess(*arguments).ret == pytest.ExitCode.USAGE_ERROR
        return
    # lm-eval takes seconds to list its own tasks, among which this one is not either.
    ours = functools.partial(tarot.objectives.samples.TaskManager, include_defaults=False)
    monkeypatch.setattr(
        tarot.objectives.samples, "TaskManager", lambda include_path, **_: ours(include_path=include_path)
    )
    alone = not arguments or arguments[0].startswith("--tarot-model")
    replaced = {argument.partition("=")[0] for argument in arguments}
    kept = [] if alone else [argument for argument in here if argument.partition("=")[0] not in replaced]
    result = pytester.runpytest_inprocess(*kept, *arguments)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([message])
    result.stdout.no_fnmatch_line("*Traceback*")


# From end to end


def test_a_gain_a_report_and_a_gate(
    pytester: pytest.Pytester, here: tuple[str, ...], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(
        """
        def test_gain(tarot_gain, tarot_adapter, tarot_model):
            assert tarot_gain.cell.adapter == tarot_adapter.fingerprint
            assert tarot_gain.cell.model == tarot_model.reference
            for gain in (tarot_gain, tarot_gain.over_few_shot, tarot_gain.over_draws):
                for measure in (gain.f1, gain.accuracy, gain.greedy_f1, gain.greedy_accuracy):
                    assert -1 <= measure.low <= measure.value <= measure.high <= 1
            assert tarot_gain.f1.n == 20 and tarot_gain.over_draws.f1.count == 2

        def test_again(tarot_gain):
            assert tarot_gain.cell.seconds > 0
        """
    )
    baseline = pytester.path / "baseline.json"
    first = pytester.runpytest_inprocess(
        *here,
        "--tarot-shots=0,2",
        "--tarot-control=bo",
        "--tarot-draws=2",
        "--tarot-report=report",
        f"--tarot-save-baseline={baseline}",
    )
    first.assert_outcomes(passed=4)
    first.stdout.fnmatch_lines(
        [
            "*= tarot: weighted F1 of the greedy answer =*",
            "model * task *shots*seed*base*few-shot*edited*gain*documents*seconds",
            f"{place / 'model'} *own_choice * 0 *",
            f"{place / 'model'} *own_choice * 2 *",
            "mean * edited *2 cells*",
            "mean * bo search *",
            "mean * few-shot, mean of 2 draws *",
            "mean * few-shot 1 of 2 (best) *",
            "mean * few-shot 2 of 2 (worst) *",
            "baseline of 2 cells saved in *baseline.json",
            "report: *index.html",
        ]
    )
    assert "own_choice" in (pytester.path / "report" / "index.html").read_text()
    comparisons = load_comparisons(baseline)
    assert [comparison.num_fewshot for comparison in comparisons] == [0, 2]
    assert set(comparisons[0].curves) == {"random", "bo"} and comparisons[0].arm("bo search").labels == 6

    # The same again, from the cache: nothing is tuned, and the gate is content.
    monkeypatch.setattr(cache, "tune", lambda *_, **__: pytest.fail("tuned again"))
    again = pytester.runpytest_inprocess(*here, "--tarot-shots=0,2", "--tarot-draws=2", f"--tarot-baseline={baseline}")
    again.assert_outcomes(passed=4)
    assert again.ret == pytest.ExitCode.OK
    again.stdout.fnmatch_lines(
        ["*2-shot seed 0: weighted F1 of the greedy answer +0.000 since then; takes * times as long"]
    )

    # Had it been perfect then, it would be a regression now: the tests pass, and the run fails.
    perfect = [
        replace(
            comparison,
            arms=tuple(
                replace(arm, predicted=comparison.gold) if arm.name == "edited" else arm for arm in comparison.arms
            ),
        )
        for comparison in comparisons
    ]
    save_reference(perfect, baseline)
    worse = pytester.runpytest_inprocess(*here, f"--tarot-baseline={baseline}", "-k", "again")
    worse.assert_outcomes(passed=1, failed=2)
    assert worse.ret == pytest.ExitCode.TESTS_FAILED
    worse.stdout.fnmatch_lines(
        [
            "FAILED *0-shot seed 0: *among the choices fell by *",
            "FAILED *2-shot seed 0: in the baseline, but not measured now*",
        ]
    )
    tolerant = pytester.runpytest_inprocess(
        *here,
        f"--tarot-baseline={baseline}",
        "-k",
        "again",
        "--override-ini=tarot_tolerance=1",
        "--tarot-allow-missing",
    )
    assert tolerant.ret == pytest.ExitCode.OK


def test_a_model_that_a_part_of_a_suite_replaces_is_that_parts_alone(
    pytester: pytest.Pytester, here: tuple[str, ...]
) -> None:
    """One name, two models: neither may stand in the other's cell, which is the same setting."""
    for part in "ab":
        pytester.mkdir(part)
    replacing = """
        import pytest, torch
        from dataclasses import replace
        from checkpoint import byte_model

        @pytest.fixture(scope="session")
        def tarot_model(tarot_model):
            return replace(tarot_model, model=byte_model(seed=1))
    """
    measured = """
        import pathlib
        from tarot.evaluation.results import ZERO_SHOT

        def test_gain(tarot_gain, tarot_adapter):
            assert tarot_gain.cell.adapter == tarot_adapter.fingerprint
            pathlib.Path(__file__).with_suffix(".txt").write_text(repr(tarot_gain.cell.arm(ZERO_SHOT).gold_probability))
    """
    pytester.path.joinpath("a", "conftest.py").write_text(textwrap.dedent(replacing))
    for part in "ab":
        pytester.path.joinpath(part, f"test_{part}.py").write_text(textwrap.dedent(measured))
    answers = {}
    for parts in (("a", "b"), ("b",)):
        pytester.runpytest_inprocess(*here, *parts).assert_outcomes(passed=len(parts))
        answers[parts] = [pytester.path.joinpath(part, f"test_{part}.txt").read_text() for part in parts]
    assert answers["a", "b"][1] == answers["b",][0] != answers["a", "b"][0]


# How the gate looks: cells from a file in place of measured ones


FROM_FILE = """
import pathlib, pytest, tarot.pytest_plugin.fixtures
from tarot.evaluation.results_file import load

@pytest.fixture(scope="session")
def tarot_model():
    return "model"

@pytest.fixture(autouse=True)
def from_file(monkeypatch):
    cells = {cell.seed: cell for cell in load(pathlib.Path(__file__).with_name("now.json"))}
    monkeypatch.setattr(tarot.pytest_plugin.fixtures, "measured", lambda config, setting, model: cells[setting.seed])
"""
CELLS = ("--tarot-model=m", "--tarot-task=synth_color", "--tarot-seeds=0,1", "-p", "no:cacheprovider")
GATED = (*CELLS, "--tarot-baseline=then.json")


def right(n: int, seed: int, documents: int = 40) -> Comparison:
    """A cell of which the edit answers the first `n` documents right."""
    gold = (0, 1) * (documents // 2)
    answered = tuple(g if i < n else 1 - g for i, g in enumerate(gold))
    arms = [
        tarot.evaluation.results.Arm(name, 0, gold, gold, (0.5,) * documents, 1.0) for name in ("zero-shot", "edited")
    ]
    arms[1] = replace(arms[1], predicted=answered, greedy=answered)
    keys = tuple(map(str, range(documents)))
    return replace(example(), seed=seed, keys=keys, gold=gold, texts=keys, arms=tuple(arms))


@pytest.fixture
def gated(pytester: pytest.Pytester) -> pytest.Pytester:
    """A suite of two cells, of which the second has lost every answer since the baseline."""
    pytester.makeconftest(FROM_FILE)
    pytester.makepyfile(GAIN + "\n\ndef test_other(): pass\n")
    save_reference([right(40, 0), right(40, 1)], pytester.path / "then.json")
    save_reference([right(40, 0), right(0, 1)], pytester.path / "now.json")
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
    assert "FAILED m t 0-shot seed 1: " in page and "FAILED, compared with the baseline" in page


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
        (("-k", "seed1", "--tarot-allow-missing"), 1, 1),  # measured, and lost
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
    result = gated.runpytest_inprocess(*GATED, option, "--tarot-save-baseline=new.json")
    assert result.ret == pytest.ExitCode.OK
    assert "tarot gate" not in result.stdout.str() and not (gated.path / "new.json").exists()


def test_an_interrupted_run_fails_its_gate_too(gated: pytest.Pytester) -> None:
    gated.makepyfile(GAIN + "\n\ndef test_other(): raise KeyboardInterrupt\n")
    result = gated.runpytest_inprocess(*GATED, "--tarot-save-baseline=then.json", no_reraise_ctrlc=True)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.assert_outcomes(passed=2, failed=1)
    assert [comparison.arm("edited").greedy for comparison in load_comparisons(gated.path / "then.json")] == [
        right(40, 0).gold
    ] * 2


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
def test_a_failed_test_writes_no_baseline(gated: pytest.Pytester, kind: str, exists: bool) -> None:
    gated.makepyfile(FAILING[kind])
    if kind == "collection":
        gated.makepyfile(test_broken="import nothing_of_that_name")
    path = gated.path / "then.json"
    before = path.read_bytes()
    if not exists:
        path.unlink()
    options = ("--continue-on-collection-errors",) if kind == "collection" else ()
    result = gated.runpytest_inprocess(*CELLS, "--tarot-save-baseline=then.json", *options)
    result.stdout.fnmatch_lines([f"*then.json {'stays as it was' if exists else 'is not written'}: no baseline is *"])
    assert path.exists() == exists
    assert not exists or path.read_bytes() == before


def test_documents_without_a_number_are_named_and_gated(gated: pytest.Pytester) -> None:
    broken = right(40, 1)
    broken = replace(broken, arms=(broken.arms[0], replace(broken.arms[1], without_number=(3, 5))))
    save_reference([right(40, 0), broken], gated.path / "now.json")
    note = "m t 0-shot seed 1, edited: 2 of 40 documents without a number (NaN or infinite): 3, 5"
    result = gated.runpytest_inprocess(*GATED, "--tarot-report=report")
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines([note])
    assert note in (gated.path / "report" / "index.html").read_text()
    save_reference([right(40, 0), broken], gated.path / "then.json")
    gated.runpytest_inprocess(*GATED).assert_outcomes(passed=3)


def test_a_failing_assertion_explains_itself(pytester: pytest.Pytester, here: tuple[str, ...], place: Path) -> None:
    pytester.makepyfile("def test_gain(tarot_gain):\n    assert tarot_gain.f1.low > 2")
    result = pytester.runpytest_inprocess(*here, "--tarot-draws=3")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*<TarotGain over zero-shot of *own_choice 0-shot seed 0>*",
            "*- tarot_gain -*",
            "arm *labels *f1 *acc *greedy_f1 *greedy_acc",
            "zero-shot *0 *",
            "edited *6 *",
            "few-shot, mean of 3 draws *6 *",
            "few-shot 1 of 3 (best) *6 *",
            "edited minus *measure *gain *95% interval*",
            "zero-shot *f1 *[[]*]*",
            "few-shot *greedy_accuracy *",
            "few-shot, mean of 3 draws *f1 *[[]*]* 20",
            "gained, likeliest choice: *",
            "lost, greedy answer: *",
            "repeat it with:",
            f"tarot tune --model {place / 'model'} --task own_choice *&& tarot compare *",
        ]
    )
    result.stdout.no_fnmatch_line("*Scoring answers*")


def example() -> Comparison:
    comparison = Comparison("m", "t", 0, 0, 20, 60, "bo", "head", "margin", "tarot tune", (), (), (), (), 1.0, 1.0)
    gold, texts = (0, 1, 0, 1, 1), ("first " + "long " * 40, "second", "third", "fourth", "fifth")
    arm = tarot.evaluation.results.Arm("zero-shot", 0, (1, 1, 0, 0, 0), (-1,) * 5, (0.5,) * 5, 1.0)
    return replace(
        comparison,
        keys=tuple("abcde"),
        gold=gold,
        texts=texts,
        arms=(arm, replace(arm, name="edited", predicted=(0, 1, 1, 1, 1))),
    )


def test_flipped_documents_are_named_both_ways() -> None:
    text = explain(example())
    assert "gained, likeliest choice: 3\n  0: first long long" in text
    assert " ... (right 0, zero-shot 1, edited 0)\n  3: fourth (right 1, zero-shot 0, edited 1)" in text
    assert "lost, likeliest choice: 1\n  2: third (right 0, zero-shot 0, edited 1)" in text
    assert "gained, greedy answer: 0\n" in text and "few-shot" not in text
    assert max(map(len, text.splitlines())) < 200


class Written:
    """A terminal that keeps what is written to it."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, bool]] = []

    def section(self, title: str) -> None:
        self.write_line(title)

    def write_line(self, line: str, *, red: bool = False, bold: bool = False) -> None:
        self.lines.append((line, red))


def test_the_summary_is_sorted_and_losses_are_red(pytestconfig: pytest.Config) -> None:
    good = example()
    swapped = {"zero-shot": "edited", "edited": "zero-shot"}
    bad = replace(good, seed=1, arms=tuple(replace(arm, name=swapped[arm.name]) for arm in good.arms[::-1]))
    greedy = [replace(arm, greedy=arm.predicted) for comparison in (bad, good) for arm in comparison.arms]
    bad, good = replace(bad, arms=tuple(greedy[:2])), replace(good, arms=tuple(greedy[2:]))
    state = SessionState({}, words=["said"], failures=["failed"])
    state.comparisons |= {1: bad, 0: good}
    stash = pytest.Stash()
    stash[STATE] = state
    written = Written()
    pytest_terminal_summary(written, type("Config", (), {"stash": stash}))
    title, header, first, second, mean, *rest = written.lines
    assert title[0] == "tarot: weighted F1 of the greedy answer"
    assert header[0].split()[:7] == ["model", "task", "shots", "seed", "base", "few-shot", "edited"]
    assert (first[0].split()[3], first[1]) == ("0", False) and " +0.381" in first[0]
    assert (second[0].split()[3], second[1]) == ("1", True) and " -0.381" in second[0]
    assert mean[0].startswith("mean   edited") and "2 cells" in mean[0]
    assert rest == [("said", False), ("FAILED failed", True)]


def test_a_gain_has_plain_names() -> None:
    gain = TarotGain(example())
    assert (gain.accuracy.value, gain.accuracy.gained, gain.accuracy.lost) == (pytest.approx(0.4), 3, 1)
    assert gain.greedy_f1.value == gain.greedy_accuracy.value == 0
    assert repr(gain) == "<TarotGain over zero-shot of m t 0-shot seed 0>"
    with pytest.raises(TarotError, match="expected an arm among zero-shot, edited, got 'few-shot'"):
        _ = gain.over_few_shot
    with pytest.raises(
        TarotError, match=r"expected draws of few-shot prompts, got none in m t .*; give --tarot-draws 5"
    ):
        _ = gain.over_draws


# The cache


@pytest.fixture
def tuned(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Tune, or not, into a cache of the test's own: -> adapter, folder, what was said, number of evaluations."""
    loaded = LoadedModel("bytes", byte_model(), byte_tokenizer())
    config = TaRotConfig("own_choice", num_samples=6, space="head", search="random")
    evaluated: list[int] = []
    tune = cache.tune

    def counting(*args: object, on_trial: object, **options: object) -> Adapter:
        return tune(
            *args, on_trial=lambda trial, result: (evaluated.append(trial.index), on_trial(trial, result)), **options
        )

    monkeypatch.setattr(cache, "tune", counting)

    def run(
        change: dict[str, object] | None = None, model: LoadedModel = loaded
    ) -> tuple[Adapter, Path, list[str], list[int]]:
        said: list[str] = []
        evaluated.clear()
        changed = replace(config, **(change or {}))
        adapter, folder = cache.tune_cached(
            model, changed, tmp_path / "cache", budget=4, include_path=str(place / "tasks"), notify=said.append
        )
        return adapter, folder, said, [*evaluated]

    return run


def test_what_determines_an_adapter_is_its_key(tuned) -> None:
    first, folder, said, evaluated = tuned()
    assert (said, evaluated) == ([], [0, 1, 2, 3])
    again, same, said, evaluated = tuned()
    assert (again.fingerprint, same, said, evaluated) == (first.fingerprint, folder, [], [])
    assert len({folder, *(tuned(change)[1] for change in ({"seed": 1}, {"num_fewshot": 2}, {"space": "layer"}))}) == 4
    model = byte_model()
    model.model.layers[3].mlp.down_proj.weight[0, 0] += 1  # trained on, under the same name
    assert tuned(model=LoadedModel("bytes", model, byte_tokenizer()))[1] != folder
    assert tuned(model=LoadedModel("bytes", byte_model(), byte_tokenizer(chat=False)))[1] != folder


@pytest.mark.parametrize("damaged", [b"", b"{}", b'{"format": 99}', b"\xff" * 40, None])
@pytest.mark.parametrize("names", [[METADATA], [WEIGHTS], [METADATA, WEIGHTS]])
def test_a_damaged_adapter_is_written_again_from_its_trials(tuned, names: list[str], damaged: bytes | None) -> None:
    first, folder, _, _ = tuned()
    for name in names:
        (folder / name).unlink()
        if damaged is not None:
            (folder / name).write_bytes(damaged)
    again, same, messages, evaluated = tuned()
    assert (again.fingerprint, same, evaluated) == (first.fingerprint, folder, [])
    assert messages[-1] == f"resumed the search in {folder} after 4 trials"
    assert Adapter.from_pretrained(folder).fingerprint == first.fingerprint and tuned()[2:] == ([], [])


def test_trials_before_a_damaged_line_are_kept(tuned) -> None:
    first, folder, _, _ = tuned()
    lines = (folder / TRIALS).read_bytes().splitlines(keepends=True)
    damaged = b"".join([*lines[:3], b'{"index": 2\n', *lines[4:]])
    (folder / TRIALS).write_bytes(damaged)
    again, _, messages, evaluated = tuned()
    assert (again.fingerprint, evaluated) == (first.fingerprint, [2, 3])
    assert messages[0].startswith(f"kept the intact trials in {folder / TRIALS}")
    assert (folder / f"{TRIALS}.damaged").read_bytes() == damaged


def test_an_entry_without_trials_is_set_aside(tuned) -> None:
    first, folder, _, _ = tuned()
    content = (folder / TRIALS).read_bytes()
    (folder / TRIALS).write_bytes(content[:20])
    again, same, messages, evaluated = tuned()
    assert (again.fingerprint, same, evaluated) == (first.fingerprint, folder, [0, 1, 2, 3])
    assert len(messages) == 1 and messages[0].startswith("set a damaged cache entry aside as ")
    assert (folder.with_name(f"{folder.name}.damaged-1") / TRIALS).read_bytes() == content[:20]


def test_an_entry_in_use_is_left_alone(tuned) -> None:
    _, folder, _, _ = tuned()
    (folder / METADATA).write_bytes(b"")
    before = {each.name: each.read_bytes() for each in folder.iterdir()}
    with hold_lock(folder / LOCK), pytest.raises(TarotError, match="another process that writes there"):
        tuned()
    assert {each.name: each.read_bytes() for each in folder.iterdir()} == before


def test_a_search_that_died_goes_on(tuned, monkeypatch: pytest.MonkeyPatch) -> None:
    first, folder, _, _ = tuned()
    lines = (folder / TRIALS).read_bytes().splitlines(keepends=True)
    for left, resumed, made in (([*lines[:3], b'{"ind'], 2, [2, 3]), (lines, 4, []), (lines[:1], 0, [0, 1, 2, 3])):
        (folder / METADATA).unlink()
        (folder / TRIALS).write_bytes(b"".join(left))
        again, _, said, evaluated = tuned()
        assert again.fingerprint == first.fingerprint
        assert evaluated == made
        assert said == ([f"resumed the search in {folder} after {resumed} trials"] if resumed else [])


def test_ctrl_c_stops_the_run_and_keeps_the_trials(tuned, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(message: str, index: int, *_: object) -> None:
        if index == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache.logger, "info", stop)
        with pytest.raises(KeyboardInterrupt):
            tuned()
    _, folder, said, evaluated = tuned()
    assert evaluated == [2, 3] and "after 2 trials" in said[0]
    assert not Adapter.from_pretrained(folder).provenance["interrupted"]


def test_a_cache_that_cannot_be_written(place: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    loaded = LoadedModel("bytes", byte_model(), byte_tokenizer())
    config = TaRotConfig("own_choice", num_samples=6, space="head")
    for folder, reason in ((tmp_path / "file", "File exists"), (tmp_path / "file" / "deep", "Not a directory")):
        with pytest.raises(TarotError, match=rf"expected to write in {folder}, got {reason}; choose another folder"):
            cache.tune_cached(loaded, config, folder, budget=3, include_path=str(place / "tasks"), notify=print)


# In other company


def test_without_it_and_without_others(pytester: pytest.Pytester, here: tuple[str, ...]) -> None:
    pytester.makepyfile("def test_nothing(): pass")
    without = pytester.runpytest_inprocess("-p", "no:tarot")
    without.assert_outcomes(passed=1)
    without.stdout.no_fnmatch_line("*tarot:*")
    pytester.makepyfile(GAIN)
    alone = pytester.runpytest_inprocess(*here, "-p", "no:benchmark", "-p", "no:xdist", "-p", "no:cacheprovider")
    alone.assert_outcomes(passed=1)
    assert not pytester.runpytest_inprocess(*here, "--collect-only", "--tarot-save-baseline=none.json").ret
    assert not (pytester.path / "none.json").exists()


def test_a_run_that_was_stopped_does_not_replace_a_baseline(pytester: pytest.Pytester, here: tuple[str, ...]) -> None:
    """What it did not come to would be gone from the gate. Nor does one that the gate has failed."""
    pytester.makepyfile(GAIN + "\n\ndef test_last():\n    import os\n    assert 'BREAK' not in os.environ\n")
    saving = (*here, "--tarot-save-baseline=b.json")
    assert pytester.runpytest_inprocess(*saving).ret == pytest.ExitCode.OK
    before = (pytester.path / "b.json").read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BREAK", "1")
        failed = pytester.runpytest_inprocess(*saving, "-x")
    failed.stdout.fnmatch_lines(["*b.json stays as it was: no baseline is saved where * the run was stopped"])
    assert failed.ret == pytest.ExitCode.TESTS_FAILED and (pytester.path / "b.json").read_bytes() == before


def test_what_was_not_measured_stays_in_a_baseline(pytester: pytest.Pytester, here: tuple[str, ...]) -> None:
    """A part of a suite renews its own cells: those of the others are guarded as before."""
    pytester.makepyfile(GAIN)
    saving = (*here, "--tarot-save-baseline=b.json")
    both = pytester.runpytest_inprocess(*saving, "--tarot-seeds=0,1")
    both.stdout.fnmatch_lines(["baseline of 2 cells saved in *b.json"])
    before = (pytester.path / "b.json").read_text()
    one = pytester.runpytest_inprocess(*saving, "--tarot-seeds=1")
    one.stdout.fnmatch_lines(["baseline of 2 cells saved in *b.json, 1 of them as they were"])
    assert [comparison.seed for comparison in load_comparisons(pytester.path / "b.json")] == [0, 1]
    (pytester.path / "b.json").write_text(before.replace('"seed": 0', '"seed": "0"'))
    broken = pytester.runpytest_inprocess(*saving)
    assert broken.ret == pytest.ExitCode.USAGE_ERROR
    broken.stderr.fnmatch_lines(["*--tarot-save-baseline: expected results as tarot writes them in *b.json, got *"])


def test_nothing_measured_is_nothing_saved(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_nothing(): pass")
    result = pytester.runpytest_inprocess("--tarot-save-baseline=none.json", "--tarot-report=report")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        ["FAILED expected cells to save as a baseline, got none; *", "FAILED expected cells to report, got none; *"]
    )


PROGRAM = """
import json, sys, pytest
for arguments in json.loads(sys.argv[1]):
    pytest.main(arguments)
    print("IMPORTED", *sorted({name.partition(".")[0] for name in sys.modules}))
"""


def imported(folder: Path, *runs: tuple[str, ...]) -> list[set[str]]:
    """Top-level packages imported at the end of each of these runs of pytest, one after the other in one process."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", PROGRAM, json.dumps(runs)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return [set(line.split()[1:]) for line in done.stdout.splitlines() if line.startswith("IMPORTED ")]


def test_it_imports_nothing_for_those_who_do_not_use_it(tmp_path: Path, here: tuple[str, ...]) -> None:
    (tmp_path / "test_nothing.py").write_text("def test_nothing(): pass")
    (tmp_path / "test_gain.py").write_text(GAIN)
    (tmp_path / "heavy.py").write_text("import tarot.evaluation.statistics.gains")
    nothing = ("-q", "test_nothing.py")
    # From the least to the most: what one run imports stays for the next.
    bare = (*nothing, "-p", "no:tarot")
    runs = [bare, ("--version",), nothing, (*here, "--collect-only", "-q"), (*nothing, "-p", "heavy")]
    without, *others = imported(tmp_path, *runs)
    version, used, collected, heavy = (found - without - sys.stdlib_module_names for found in others)
    assert version == set()
    assert used == {"tarot"}
    assert not collected & {"torch", "lm_eval", "botorch", "transformers", "numpy", "scipy"}
    assert "scipy" in heavy  # the check can fail


def test_cells_survive_the_way_from_a_worker() -> None:
    from dataclasses import asdict

    state = SessionState({})
    report = type("Report", (), {"tarot_cells": [asdict(example())], "tarot_words": ["word"]})()
    Collector(state).pytest_runtest_logreport(report)
    Collector(state).pytest_runtest_logreport(report)
    assert [*state.comparisons.values()] == [example()]
    fewer = replace(example(), arms=example().arms[:-1])  # of a test that asked for fewer
    other = type("Report", (), {"tarot_cells": [asdict(fewer)], "tarot_words": []})()
    Collector(state).pytest_runtest_logreport(other)
    assert [*state.comparisons.values()] == [example()]
    assert json.loads(comparisons_to_json([*state.comparisons.values()]))["cells"][0]["texts"][1] == "second"
