"""Which cells `pytest benchmarks` measures; what they cost and gain is for the benchmarks themselves to say."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tarot.search import SEARCHES, Result, maximise

pytest_plugins = ["pytester"]

PROJECT = Path(__file__).parent.parent


def cells(pytester: pytest.Pytester, *arguments: str) -> list[str]:
    """Parameters of the gains that a run with these arguments would measure."""
    where = (
        "-c",
        str(PROJECT / "pyproject.toml"),
        "--rootdir",
        str(PROJECT),
        "-p",
        "no:cacheprovider",
        "-p",
        "no:benchmark",
    )
    # Not in this process, which forgets what a run has loaded: NumPy cannot be loaded twice.
    result = pytester.runpytest_subprocess(
        *where, str(PROJECT / "benchmarks" / "bench_gain.py"), "--collect-only", "-q", *arguments
    )
    assert result.ret == pytest.ExitCode.OK
    return re.findall(r"bench_gain\[(.*)\]", result.stdout.str())


def test_both_models_on_three_tasks_and_one_of_them_with_shots(pytester: pytest.Pytester) -> None:
    models = ("wheel:smollm2-135m", "wheel:gemma3-270m")
    without = [f"synth_{task}-0shot-seed0" for task in ("implicatives", "navigate", "color")]
    expected = [f"{model}-{cell}" for model in models for cell in (*without, "synth_implicatives-6shot-seed0")]
    assert sorted(cells(pytester)) == sorted(expected)


def test_what_is_asked_for_is_measured_whole(pytester: pytest.Pytester) -> None:
    assert sorted(cells(pytester, "--tarot-shots=0,2", "--tarot-model=some/model")) == sorted(
        f"some/model-synth_{task}-{k}shot-seed0" for task in ("implicatives", "navigate", "color") for k in (0, 2)
    )
    assert sorted(cells(pytester, "--tarot-task=mine", "--tarot-model=some/model")) == [
        "some/model-mine-0shot-seed0",
        "some/model-mine-6shot-seed0",
    ]


@pytest.mark.parametrize("rival", ["matern", "spherical linear", "map-saas", "turbo", "cma-es", "nested"])
def test_the_studys_searches_keep_to_the_protocol(rival: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each climbs a bowl from the identity, inside the cube, and again in the same steps."""
    monkeypatch.syspath_prepend(PROJECT)
    from benchmarks.study.searches import RIVALS

    top = torch.full((8,), 0.3, dtype=torch.float64)
    monkeypatch.setitem(SEARCHES, "rival", RIVALS[rival])

    def found() -> Result:
        return maximise(lambda x: -float(((x - top) ** 2).sum()), len(top), search="rival", budget=20, seed=0)

    first, second = found(), found()
    assert [trial.x for trial in first.trials] == [trial.x for trial in second.trials]
    assert first.trials[0].x == (0.5,) * 8
    assert all(0 <= value <= 1 for trial in first.trials for value in trial.x)
    assert first.best.score > first.identity.score
    assert not any(trial.origin == "random" for trial in first.trials)


def test_what_ctrl_c_cuts_short_is_no_result_of_the_study(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A search takes Ctrl-C for its end and keeps its best; a study that kept that too would never finish the cell."""
    monkeypatch.syspath_prepend(PROJECT)
    from benchmarks.study import grid, run
    from benchmarks.study.unseen import whole

    monkeypatch.setattr(run, "tune", lambda *_, **__: SimpleNamespace(provenance={"interrupted": True}))
    with pytest.raises(KeyboardInterrupt):
        run.edited(None, grid.Cell("smollm2", "ag_news", 0, 0), "default", tmp_path)  # type: ignore[arg-type]  # unused

    def stopped(x: torch.Tensor) -> float:
        if calls.append(x) or len(calls) > 3:
            raise KeyboardInterrupt
        return 0.0

    calls: list[torch.Tensor] = []
    with pytest.raises(KeyboardInterrupt):
        whole(maximise(stopped, 2, search="random", budget=9, seed=0))
    assert len(calls) == 4
