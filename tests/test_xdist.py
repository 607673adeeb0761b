"""Under pytest-xdist: workers return their cells, share the cache of adapters, and may die without losing trials."""

from pathlib import Path

import pytest
from checkpoint import save_checkpoint, write_tasks

pytest_plugins = ["pytester"]

GAIN = """
def test_gain(tarot_gain):
    assert tarot_gain.comparison.keys
"""
CONFTEST = """
import os, pathlib, pytest

@pytest.fixture(scope="session", autouse=True)
def counted():
    from tarot.evaluation.grid import adapter_cache as cache
    from tarot.search.callbacks import Callback
    tune = cache.tune

    def counting(model, tokenizer, config, **options):
        with open("tunings.txt", "a") as file:
            file.write(f"{config.seed}\\n")

        class Die(Callback):
            def on_trial(self, trial, result):
                if config.seed == 1 and trial.index == 1 and not pathlib.Path("died").exists():
                    pathlib.Path("died").touch()
                    os._exit(9)

        return tune(model, tokenizer, config, **options | {"callbacks": [Die()]})

    cache.tune = counting
    yield
    cache.tune = tune
"""


def test_workers_share_a_cache_and_may_die(
    pytester: pytest.Pytester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers need each of two cells; each cell is tuned once, except the one whose worker dies."""
    monkeypatch.setenv("COLUMNS", "400")  # one line a row of the table, whatever the length of the path
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_one=GAIN, test_two=GAIN)
    model, tasks = save_checkpoint(tmp_path / "model"), write_tasks(tmp_path / "tasks")
    cell = (
        f"--tarot-model={model}",
        f"--tarot-include-path={tasks}",
        "--tarot-tasks=own_choice",
        "--tarot-num-samples=6",
        "--tarot-draws=0",
    )
    search = ("--tarot-search=random", "--tarot-space=head", "--tarot-budget=3", "--tarot-seeds=0,1", "--tarot-limit=4")
    # If the test fails, xdist must not replace dead workers forever.
    workers = ("-n2", "--max-worker-restart=1", "-W", "error")
    result = pytester.runpytest_subprocess(*cell, *search, *workers, timeout=120)
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*worker 'gw?' crashed while running*",
            "*own_choice * 0 * 0 *",
            "*own_choice * 0 * 1 *",
            "mean *of 2*",
        ]
    )
    result.stdout.fnmatch_lines(["resumed the search in *.pytest_cache/d/tarot/model-own_choice-0-1-* after 2 trials"])
    assert sorted((pytester.path / "tunings.txt").read_text().split()) == ["0", "1", "1"]
