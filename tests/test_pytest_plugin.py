"""The plugin from end to end, in a user's suite: a gain, a report, a gate; nothing imported for other suites."""

import functools
import json
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
from plugin_suite import GAIN

import tarot.objectives.tasks.task_loading
from tarot.evaluation.grid import adapter_cache as cache
from tarot.evaluation.results.results_file import load_comparisons
from tarot.report.results_csv import save_comparisons

pytest_plugins = ["pytester", "plugin_suite"]
pytestmark = pytest.mark.usefixtures("wide_lines")


def test_a_gain_a_report_and_a_gate(
    pytester: pytest.Pytester, small_cell: tuple[str, ...], suite_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(
        """
        def test_gain(tarot_gain, tarot_adapter, tarot_model):
            assert tarot_gain.comparison.adapter == tarot_adapter.fingerprint
            assert tarot_gain.comparison.model == tarot_model.reference
            for gain in (tarot_gain, tarot_gain.over_few_shot, tarot_gain.over_draws):
                for measure in (gain.f1, gain.accuracy, gain.greedy_f1, gain.greedy_accuracy):
                    assert -1 <= measure.low <= measure.value <= measure.high <= 1
            assert tarot_gain.f1.n == 20 and tarot_gain.over_draws.f1.count == 2

        def test_again(tarot_gain):
            assert tarot_gain.comparison.seconds > 0
        """
    )
    reference = pytester.path / "reference.json"
    first = pytester.runpytest_inprocess(
        *small_cell,
        "--tarot-num-fewshot=0,2",
        "--tarot-draws=2",
        "--tarot-report=report",
        f"--tarot-save-reference={reference}",
    )
    first.assert_outcomes(passed=4)
    first.stdout.fnmatch_lines(
        [
            "*= tarot: weighted F1 of the greedy answer =*",
            "model * task *shots*seed*base*few-shot*edited*gain*documents*seconds",
            f"{suite_folder / 'model'} *own_choice * 0 *",
            f"{suite_folder / 'model'} *own_choice * 2 *",
            "mean *of 2*",
            "reference run of 2 cells saved in *reference.json",
            "report: *index.html",
        ]
    )
    assert "own_choice" in (pytester.path / "report" / "index.html").read_text()
    comparisons = load_comparisons(reference)
    assert [comparison.num_fewshot for comparison in comparisons] == [0, 2]
    assert set(comparisons[0].curves) == {"random"}

    # From the cache nothing is tuned again, and the gate passes.
    monkeypatch.setattr(cache, "tune", lambda *_, **__: pytest.fail("tuned again"))
    cells = ("--tarot-num-fewshot=0,2", "--tarot-draws=2")
    again = pytester.runpytest_inprocess(*small_cell, *cells, f"--tarot-reference={reference}")
    again.assert_outcomes(passed=4)
    assert again.ret == pytest.ExitCode.OK
    again.stdout.fnmatch_lines(["*2-shot seed 0: weighted F1 of the greedy answer *0.000*"])

    # If the reference were perfect, this would be a regression: the tests pass, and the run fails.
    perfect = [
        replace(
            comparison,
            arms=tuple(
                replace(arm, predicted=comparison.gold) if arm.name == "edited" else arm for arm in comparison.arms
            ),
        )
        for comparison in comparisons
    ]
    save_comparisons(perfect, reference)
    worse = pytester.runpytest_inprocess(*small_cell, f"--tarot-reference={reference}", "-k", "again")
    worse.assert_outcomes(passed=1, failed=2)
    assert worse.ret == pytest.ExitCode.TESTS_FAILED
    worse.stdout.fnmatch_lines(
        [
            "FAILED *0-shot seed 0: *among the choices fell from *",
            "FAILED *2-shot seed 0: in the reference run, but not measured now*",
        ]
    )
    tolerant = pytester.runpytest_inprocess(
        *small_cell,
        f"--tarot-reference={reference}",
        "-k",
        "again",
        "--override-ini=tarot_tolerance=1",
        "--tarot-allow-missing",
    )
    assert tolerant.ret == pytest.ExitCode.OK


def test_a_part_of_a_suite_may_replace_the_model(pytester: pytest.Pytester, small_cell: tuple[str, ...]) -> None:
    """Two models with one name: neither may be used for the other's cell."""
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
        from tarot.evaluation.results.comparison import ZERO_SHOT

        def test_gain(tarot_gain, tarot_adapter):
            assert tarot_gain.comparison.adapter == tarot_adapter.fingerprint
            pathlib.Path(__file__).with_suffix(".txt").write_text(repr(tarot_gain.comparison.arm(ZERO_SHOT).gold_probability))
    """
    pytester.path.joinpath("a", "conftest.py").write_text(textwrap.dedent(replacing))
    for part in "ab":
        pytester.path.joinpath(part, f"test_{part}.py").write_text(textwrap.dedent(measured))
    answers = {}
    for parts in (("a", "b"), ("b",)):
        pytester.runpytest_inprocess(*small_cell, *parts).assert_outcomes(passed=len(parts))
        answers[parts] = [pytester.path.joinpath(part, f"test_{part}.txt").read_text() for part in parts]
    assert answers["a", "b"][1] == answers["b",][0] != answers["a", "b"][0]


def test_a_failing_assertion_explains_itself(
    pytester: pytest.Pytester, small_cell: tuple[str, ...], suite_folder: Path
) -> None:
    pytester.makepyfile("def test_gain(tarot_gain):\n    assert tarot_gain.f1.low > 2")
    result = pytester.runpytest_inprocess(*small_cell, "--tarot-draws=3")
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
            "edited minus *metric *gain *95% CI *p *gained *lost",  # one line in 80 columns
            "zero-shot *f1 *[[]*]*",
            "few-shot *greedy_accuracy *[[]*]*",
            "mean of 3 draws *greedy_accuracy *[[]*]*",
            "edited minus *95% CI",
            "few-shot 1 of 3 (best) *[[]*]*",
            "gained, likeliest choice: *",
            "lost, greedy answer: *",
            "repeat it with:",
            f"tarot tune --model {suite_folder / 'model'} --tasks own_choice *&& tarot compare *",
        ]
    )
    result.stdout.no_fnmatch_line("*Scoring answers*")


NO_MODEL = "--tarot-model=no/such"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tarot-model="], None),
        (
            [],
            "expected a model and a task to measure, got none*; give --tarot-model and --tarot-tasks, or mark the *",
        ),
        ([NO_MODEL, "--tarot-tasks=synth_color"], "'no/such' is not on this machine*"),
        (
            ["--tarot-tasks=own_choise"],
            "expected a known task, got 'own_choise'; did you mean 'own_choice'[?]",
        ),
        # The study's tests register a search of their own in the same process.
        # These are answered before a model is loaded.
        (
            ["--tarot-search=bayes", NO_MODEL],
            "expected a known search, got 'bayes'; known: adam, bo, bo-gradient, paper*random",
        ),
        (["--tarot-space=heads", NO_MODEL], "expected a known space, got 'heads'; did you mean 'head'[?]"),
        (
            ["--tarot-num-samples=99", NO_MODEL],
            "expected at least 99 samples and 0 shots in the 'train' split of own_choice, got 30*",
        ),
    ],
)
def test_an_error_is_one_line(
    pytester: pytest.Pytester,
    small_cell: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str | None,
) -> None:
    pytester.makepyfile(GAIN)
    if message is None:
        assert pytester.runpytest_inprocess(*arguments).ret == pytest.ExitCode.USAGE_ERROR
        return
    # lm-eval takes seconds to list its own tasks.
    ours = functools.partial(tarot.objectives.tasks.task_loading.TaskManager, include_defaults=False)
    monkeypatch.setattr(
        tarot.objectives.tasks.task_loading, "TaskManager", lambda include_path, **_: ours(include_path=include_path)
    )
    alone = not arguments or arguments[0].startswith("--tarot-model")
    replaced = {argument.partition("=")[0] for argument in arguments}
    kept = [] if alone else [argument for argument in small_cell if argument.partition("=")[0] not in replaced]
    result = pytester.runpytest_inprocess(*kept, *arguments)
    result.assert_outcomes(errors=1)
    result.stdout.no_fnmatch_line("*another exception occurred*")
    result.stdout.fnmatch_lines([message])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_other_plugins_and_tarot_may_be_absent(pytester: pytest.Pytester, small_cell: tuple[str, ...]) -> None:
    pytester.makepyfile("def test_nothing(): pass")
    without = pytester.runpytest_inprocess("-p", "no:tarot")
    without.assert_outcomes(passed=1)
    without.stdout.no_fnmatch_line("*tarot:*")
    pytester.makepyfile(GAIN)
    alone = pytester.runpytest_inprocess(*small_cell, "-p", "no:benchmark", "-p", "no:xdist", "-p", "no:cacheprovider")
    alone.assert_outcomes(passed=1)
    assert not pytester.runpytest_inprocess(*small_cell, "--collect-only", "--tarot-save-reference=none.json").ret
    assert not (pytester.path / "none.json").exists()


def test_a_stopped_run_does_not_replace_a_reference(pytester: pytest.Pytester, small_cell: tuple[str, ...]) -> None:
    """The cells that it did not measure would be missing from the gate."""
    pytester.makepyfile(GAIN + "\n\ndef test_last():\n    import os\n    assert 'BREAK' not in os.environ\n")
    saving = (*small_cell, "--tarot-save-reference=b.json")
    assert pytester.runpytest_inprocess(*saving).ret == pytest.ExitCode.OK
    before = (pytester.path / "b.json").read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BREAK", "1")
        failed = pytester.runpytest_inprocess(*saving, "-x")
    failed.stdout.fnmatch_lines(["*b.json stays as it was: no reference run is saved after * stopped run"])
    assert failed.ret == pytest.ExitCode.TESTS_FAILED and (pytester.path / "b.json").read_bytes() == before


def test_cells_that_are_not_measured_stay(pytester: pytest.Pytester, small_cell: tuple[str, ...]) -> None:
    """A part of a suite updates its own cells only."""
    pytester.makepyfile(GAIN)
    saving = (*small_cell, "--tarot-save-reference=b.json")
    both = pytester.runpytest_inprocess(*saving, "--tarot-seeds=0,1")
    both.stdout.fnmatch_lines(["reference run of 2 cells saved in *b.json"])
    before = (pytester.path / "b.json").read_text()
    one = pytester.runpytest_inprocess(*saving, "--tarot-seeds=1")
    one.stdout.fnmatch_lines(["reference run of 2 cells saved in *b.json, 1 of them unchanged"])
    assert [comparison.seed for comparison in load_comparisons(pytester.path / "b.json")] == [0, 1]
    (pytester.path / "b.json").write_text(before.replace('"seed": 0', '"seed": "0"'))
    broken = pytester.runpytest_inprocess(*saving)
    assert broken.ret == pytest.ExitCode.USAGE_ERROR
    broken.stderr.fnmatch_lines(["*--tarot-save-reference: *b.json is not a file of tarot's results: *"])


def test_nothing_measured_is_a_failure(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_nothing(): pass")
    result = pytester.runpytest_inprocess("--tarot-save-reference=none.json", "--tarot-report=report")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            "FAILED expected cells to save as a reference run, got none; *",
            "FAILED expected cells to report, got none; *",
        ]
    )


PROGRAM = """
import json, sys, pytest
for arguments in json.loads(sys.argv[1]):
    pytest.main(arguments)
    print("IMPORTED", *sorted({name.partition(".")[0] for name in sys.modules}))
"""


def imported(folder: Path, *runs: tuple[str, ...]) -> list[set[str]]:
    """Run pytest several times in one process; return the top-level packages imported after each run."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", PROGRAM, json.dumps(runs)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return [set(line.split()[1:]) for line in done.stdout.splitlines() if line.startswith("IMPORTED ")]


def test_a_run_without_its_fixtures_imports_nothing_heavy(tmp_path: Path, small_cell: tuple[str, ...]) -> None:
    (tmp_path / "test_nothing.py").write_text("def test_nothing(): pass")
    (tmp_path / "test_gain.py").write_text(GAIN)
    (tmp_path / "heavy.py").write_text("import tarot.evaluation.statistics.gains")
    nothing = ("-q", "test_nothing.py")
    # What one run imports stays imported, so the runs go from the least to the most.
    bare = (*nothing, "-p", "no:tarot")
    runs = [bare, ("--version",), nothing, (*small_cell, "--collect-only", "-q"), (*nothing, "-p", "heavy")]
    without, *others = imported(tmp_path, *runs)
    version, used, collected, heavy = (found - without - sys.stdlib_module_names for found in others)
    assert version == set()
    assert used == {"tarot"}
    assert not collected & {"torch", "lm_eval", "botorch", "transformers", "numpy", "scipy"}
    assert "scipy" in heavy  # the check can fail


def test_phases_are_lines_under_v(pytester: pytest.Pytester, small_cell: tuple[str, ...]) -> None:
    pytester.makepyfile(GAIN)
    quiet = pytester.runpytest_inprocess(*small_cell)
    quiet.stdout.no_fnmatch_line("tarot: *")
    loud = pytester.runpytest_inprocess(*small_cell, "-v", "--tarot-cache=another")
    loud.stdout.re_match_lines(
        [
            r"tarot: tuning by random: searching, 3 evaluations",
            r"tarot: zero-shot, arm 1 of \d+",
            r"tarot: edited, arm 3 of \d+",
            r"tarot: edited, arm 3 of \d+: scoring answers",
            r".*1 passed.*",
        ]
    )
