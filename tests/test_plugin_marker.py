"""The marker `tarot`: which cells a test measures."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tarot.evaluation.grid.grid import CellRequest
from tarot.pytest_plugin.marker import cell_requests
from tarot.pytest_plugin.options import OPTIONS

pytest_plugins = ["pytester", "plugin_suite"]
pytestmark = pytest.mark.usefixtures("wide_lines")


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


def test_the_nearest_marker_takes_precedence_over_others_and_over_options(pytester: pytest.Pytester) -> None:
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
        "--tarot-model=c", "--tarot-num-fewshot=3", "--collect-only", "-q", "--strict-markers"
    )
    ids = re.findall(r"::(\S+\[.*\])", result.stdout.str())
    assert sorted(ids) == sorted(
        [
            *(f"test_near[{model}-function-mix-seed7-adam]" for model in "ab"),
            *(f"test_far[{model}-module-3shot-seed{seed}-adam]" for model in "ab" for seed in (1, 2)),
            *(f"test_model[{model}]" for model in "ab"),
        ]
    )


def test_a_marker_sets_every_field_of_a_cell() -> None:
    values = {key: option.default for key, option in OPTIONS.items()}
    keywords = {"model": "m", "task": "t", "num_samples": 4, "limit": 0.5, "include_path": "tasks", "search": ["bo"]}
    keywords |= {"max_kl": "none", "layers": [0, 3], "retain": ["other", "mine.txt"]}
    (request,) = cell_requests(values, [pytest.mark.tarot(**keywords).mark], Path("/folder"), measures=True)
    cell = CellRequest("m", "t", samples=4, limit=0.5, include_path="/folder/tasks", search="bo")
    assert request == replace(cell, max_kl="none", layers=(0, 3), retain=("other", "mine.txt"))
    assert replace(request, retain=()).config().max_kl is None
    keywords["layers"] = [3]  # one layer, and not all of them
    (one,) = cell_requests(values, [pytest.mark.tarot(**keywords).mark], Path("/folder"), measures=True)
    assert one == replace(request, layers=(3,))
    keywords["layers"] = [0, 3]
    older = {key: value for key, value in keywords.items() if key != "num_samples"} | {"samples": 4}
    assert cell_requests(values, [pytest.mark.tarot(**older).mark], Path("/folder"), measures=True) == [request]


def test_none_in_a_marker_restores_the_default() -> None:
    values = {key: option.default for key, option in OPTIONS.items()} | {"space": "head", "limit": 3}
    marker = pytest.mark.tarot(model="m", task="t", space=None, search=None, limit=None).mark
    (request,) = cell_requests(values, [marker], Path("/folder"), measures=True)
    assert (request.space, request.search, request.limit) == ("", "adam", None)
