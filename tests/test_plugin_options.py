"""Options and ini values of the pytest plugin: what is accepted, and how a bad value is quoted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tarot.evaluation.grid.grid import parse_seeds, parse_shots
from tarot.evaluation.limit import parse_limit
from tarot.pytest_plugin.options import OPTIONS

pytest_plugins = ["pytester", "plugin_suite"]
pytestmark = pytest.mark.usefixtures("wide_lines")


@given(st.lists(st.integers(0, 99), min_size=1))
def test_lists_of_numbers_are_read_as_written(numbers: list[int]) -> None:
    text = ", ".join(map(str, numbers))
    assert parse_seeds(text) == parse_shots(text) == tuple(numbers)


def test_mixed_shots() -> None:
    assert parse_shots("0,mix") == (0, "mix")


@given(st.integers(1, 10**9), st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_a_limit_is_a_number_or_a_fraction(number: int, fraction: float) -> None:
    assert parse_limit(str(number)) == number
    assert parse_limit(repr(fraction)) == fraction


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--tarot-budget=x", "--tarot-budget: expected a whole number from 1, got 'x'"),
        ("--tarot-num-samples=0", "--tarot-num-samples: expected a whole number from 1, got '0'"),
        ("--tarot-draws=-1", "--tarot-draws: expected a whole number from 0, got '-1'"),
        ("--tarot-limit=-1", "--tarot-limit: expected a whole number from 1, or a fraction below 1, got '-1'"),
        ("--tarot-limit=1.5", "--tarot-limit: expected a whole number from 1, or a fraction below 1, got '1.5'"),
        ("--tarot-max-kl=0", "--tarot-max-kl: expected nats a token such as 0.02, or auto, or none, got '0'"),
        ("--tarot-layers=3", "--tarot-layers: expected a fraction of the layers or a list of them, got '3'"),
        ("--tarot-retain=a,,b", "--tarot-retain: expected a name, got ''"),
        ("--tarot-num-fewshot=0,two", "--tarot-num-fewshot: expected shots as 0,6, got '0,two'"),
        ("--tarot-seeds=0;1", "--tarot-seeds: expected seeds as 0,1,2, got '0;1'"),
        ("--tarot-model= ", "--tarot-model: expected a name, got ' '"),
        (
            "--tarot-reference=nowhere.json",
            "--tarot-reference: Cannot read the results",
        ),
        ("--tarot-reference=newer.json", "--tarot-reference: expected results of format 1 at most, got 7"),
        ("--tarot-reference=broken.json", "--tarot-reference: *broken.json is not a file of tarot's results"),
        ("--tarot-baseline=loar", "--tarot-baseline: *did you mean 'lora'"),
        ("--tarot-baseline=then.json", "--tarot-baseline: *the file of a reference run is --tarot-reference"),
        ("--tarot-report=newer.json", "--tarot-report: *newer.json' is not a folder"),
        ("--tarot-report=newer.json/deep", "--tarot-report: *newer.json/deep' cannot be written"),
        ("--tarot-save-reference=.", "--tarot-save-reference: * is not a regular file"),
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
        "[pytest]\ntarot_model =\n    one\n    two\ntarot_tasks = color\ntarot_seeds = 3\ntarot_num_fewshot = 2\n"
    )
    pytester.makepyfile(
        "def test_cell(tarot_setting): print('CELL', tarot_setting.id)\n\ndef test_gain(tarot_gain): pass"
    )
    result = pytester.runpytest_inprocess("--tarot-num-fewshot=0,4", "--collect-only", "-q")
    result.stdout.fnmatch_lines(
        [f"*::test_gain[[]{model}-color-{k}shot-seed3-adam]" for model in ("one", "two") for k in (0, 4)],
        consecutive=True,
    )


@pytest.mark.parametrize("name", [name for name, option in OPTIONS.items() if option.aliases])
def test_older_names_mean_the_same(pytester: pytest.Pytester, name: str) -> None:
    pytester.makepyfile("def test_gain(tarot_gain): pass")
    cell = {"model": "m", "tasks": "t", "num-fewshot": "3", "num-samples": "7", "work": "folder"}
    collected = []
    for alias in (name, *OPTIONS[name].aliases):
        arguments = [f"--tarot-{alias if key == name else key}={value}" for key, value in cell.items()]
        collected.append(pytester.runpytest_inprocess(*arguments, "--collect-only", "-q").outlines[0])
        pytester.makeini(f"[pytest]\ntarot_{alias.replace('-', '_')} = {cell[name]}\n")
        others = [f"--tarot-{key}={value}" for key, value in cell.items() if key != name]
        collected.append(pytester.runpytest_inprocess(*others, "--collect-only", "-q").outlines[0])
        (pytester.path / "tox.ini").unlink()
    assert set(collected) == {collected[0]} and "m-t-3shot-seed0" in collected[0]


def test_pytest_answers_an_unknown_option(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_inprocess("--tarot-shot=1")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*unrecognized arguments: --tarot-shot=1*"])
