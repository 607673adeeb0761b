"""Which cells `pytest benchmarks` measures; what they cost and gain is for the benchmarks themselves to say."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tarot.search import SEARCHES, Result, maximise
from tarot.space import make_space

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


@given(samples=st.integers(1, 6), r=st.integers(1, 6), seed=st.integers(0, 99))
def test_the_span_of_gradients_goes_uphill_from_the_identity(samples: int, r: int, seed: int) -> None:
    """Orthogonal directions of one length, every gradient inside the span of all, and starts that climb their sum."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(PROJECT)
        from benchmarks.study.spaces import gradient_span
    alive = torch.ones(2, 3, 4, dtype=torch.bool)
    gradients = torch.randn(samples, 2, 3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    space = gradient_span(make_space("full", alive, 0.5, 0), gradients, r)
    assert space.d == min(samples, r)
    directions = torch.stack([space.lift(each) for each in torch.eye(space.d, dtype=torch.float64)])
    torch.testing.assert_close(directions @ directions.T, 24 / space.d * torch.eye(space.d, dtype=torch.float64))
    uphill = gradients.sum(0).flatten()
    assert (directions @ uphill >= 0).all()
    assert not space.angles(torch.full((space.d,), 0.5, dtype=torch.float64)).any()
    assert all(space.lift(2 * start - 1) @ uphill > 0 for start in space.starts)
    if r >= samples:
        each = gradients.flatten(1)
        torch.testing.assert_close(each @ directions.T @ directions * space.d / 24, each)


def test_a_development_run_goes_on_where_it_was_stopped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(PROJECT)
    from benchmarks.study import unseen

    monkeypatch.setattr(
        unseen,
        "load_model",
        lambda path: SimpleNamespace(model=SimpleNamespace(set_attn_implementation=lambda _: None), path=path),
    )
    settings = [{"model": "smollm2", "task": task} for task in "abc"]
    ran = []

    def run(loaded: SimpleNamespace, task: str) -> dict[str, object]:
        if (len(ran), task) == (1, "b"):
            raise KeyboardInterrupt
        ran.append(task)
        return {"found": {"of": loaded.path}}

    path = tmp_path / "runs.jsonl"
    with pytest.raises(KeyboardInterrupt):
        unseen.measure(path, settings, run)
    ran.append("")
    unseen.measure(path, settings, run)
    unseen.measure(path, settings, run)
    assert ran == ["a", "", "b", "c"]
    found = {"found": {"of": "wheel:smollm2-135m"}}
    assert [json.loads(line) for line in path.read_text().splitlines()] == [setting | found for setting in settings]


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


def test_the_studys_searches_are_halved_by_the_cells_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Eight, four, two, and the same when it goes on: later cells, in which the halved do not run, change nothing."""
    monkeypatch.syspath_prepend(PROJECT)
    from benchmarks.study.searches import AGAIN, CELLS, CONTROLS, MORE_SEEDS, RIVALS, settings
    from benchmarks.study.unseen import SEED

    path = tmp_path / "searches.jsonl"
    path.write_text("")
    rivals = [name for name in RIVALS if name not in CONTROLS]

    def walk() -> list[list[str]]:
        """Runs by cell; the further down the list a search is, and the later the cell, the better."""
        ran: dict[tuple[object, ...], list[str]] = {}
        for setting in settings(path):
            cell = (setting["space"], setting["task"])
            ran.setdefault((*cell, setting["seed"]), []).append(setting["search"])
            place = list(RIVALS).index(setting["search"]) + 100 * CELLS.index(cell)
            with path.open("a") as file:
                file.write(json.dumps(setting | {"best": {"120": place}}) + "\n")
        assert list(ran) == [(*cell, SEED) for cell in CELLS] + [(*c, seed) for seed in MORE_SEEDS for c in AGAIN]
        return list(ran.values())

    *first, one, two, three, four = walk()
    assert [searches[len(CONTROLS) :] for searches in first] == [rivals] * 2 + [rivals[4:]] * 2 + [rivals[6:]] * 2
    assert all(searches[: len(CONTROLS)] == list(CONTROLS) for searches in first)
    assert one == two == three == four == ["bo", rivals[-1]]
    assert walk() == [*first, one, two, three, four]


def test_the_results_are_those_of_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the command writes them, but for what another processor rounds otherwise."""
    monkeypatch.syspath_prepend(PROJECT)
    from benchmarks.study import results

    number = re.compile(r"[+-]?\d+\.\d+")
    kept, written = (PROJECT / "RESULTS.md").read_text(), results.text(*results.load(results.HERE / "cells"))
    assert number.sub("#", written) == number.sub("#", kept), "run python -m benchmarks.study.results"
    values = [list(map(float, number.findall(text))) for text in (kept, written)]
    assert values[0] == pytest.approx(values[1], abs=0.0021)


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
