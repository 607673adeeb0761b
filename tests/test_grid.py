"""A grid runs each cell once, keeps what is finished, and goes on after a cell that fails."""

import csv
import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from checkpoint import byte_model, byte_tokenizer, save_checkpoint, write_tasks
from cli_suite import TASK, run_in
from hypothesis import given
from hypothesis import strategies as st

from tarot.errors import TarotError, UnknownName
from tarot.evaluation.grid import grid
from tarot.evaluation.grid.cell_runner import CellRunner, ModelCache
from tarot.evaluation.grid.grid import CellRequest, CellResult, parse_engine
from tarot.evaluation.results.comparison import EDITED, FEW_SHOT, ZERO_SHOT, Arm, Comparison
from tarot.evaluation.results.results_file import load_comparisons
from tarot.models.loaded_model import LoadedModel
from tarot.report.results_csv import save_comparisons
from tarot.search import config

pytest_plugins = ["cli_suite"]

run_grid = functools.partial(grid.run_grid, save=save_comparisons)


def comparison(setting: CellRequest) -> Comparison:
    arms = tuple(Arm(name, 4, (0, 1), (0, -1), (0.5, 0.25), 1.0) for name in (ZERO_SHOT, FEW_SHOT, EDITED))
    return Comparison(
        setting.model,
        setting.task,
        0,
        setting.seed,
        setting.samples,
        setting.budget,
        setting.search,
        "full",
        "log_probability",
        "tarot tune",
        ("a", "b"),
        (0, 1),
        ("A", "B"),
        arms,
        2.0,
        0.1,
        layers=(1,),
        head_angles=((0.5, 0.0),),
        curves={setting.search: (-1.0, -0.5)},
    )


class Run:
    """Make up the results of cells, and remember the requests."""

    def __init__(self, failing: Sequence[CellRequest] = (), stopped_after: int | None = None) -> None:
        self.failing, self.stopped_after = failing, stopped_after
        self.requests: list[CellRequest] = []

    def __call__(self, requests: Sequence[CellRequest]) -> Iterator[tuple[CellRequest, CellResult]]:
        for request in reversed(requests):  # in any order, as a cluster
            if len(self.requests) == self.stopped_after:
                raise KeyboardInterrupt
            self.requests.append(request)
            failed = request in self.failing
            yield request, CellResult(error="no") if failed else CellResult(comparison(request), "folder")


GRID = [CellRequest("model", task, seed=seed) for task in ("color", "navigate") for seed in (0, 1)]

words = st.text(st.characters(exclude_categories=["Cs"]))


@given(words, words, st.lists(words), st.booleans())
def test_a_result_survives_its_text_form(folder: str, error: str, notes: list[str], measured: bool) -> None:
    result = CellResult(comparison(GRID[1]) if measured else None, folder, error, tuple(notes))
    assert CellResult.from_json(result.to_json()) == result


@given(st.sets(st.sampled_from(GRID)), st.sets(st.sampled_from(GRID)), st.sets(st.sampled_from(GRID)))
def test_each_cell_runs_once(
    tmp_path_factory: pytest.TempPathFactory,
    first: set[CellRequest],
    second: set[CellRequest],
    failing: set[CellRequest],
) -> None:
    output = tmp_path_factory.mktemp("grid") / "cells.json"
    one, two = Run(tuple(failing)), Run()
    begun, again = [s for s in GRID if s in first], [s for s in GRID if s in second]
    assert [c.id for c in run_grid(begun, output, one)] == [comparison(s).id for s in begun if s not in failing]
    assert [c.id for c in run_grid(again, output, two)] == [comparison(s).id for s in again]
    assert set(one.requests) == first
    assert set(two.requests) == second - (first - failing)
    measured = {comparison(s).id for s in (first - failing) | second}
    assert output.exists() == bool(measured)
    assert not measured or {c.id for c in load_comparisons(output)} == measured


def test_ctrl_c_keeps_what_is_finished(tmp_path: Path) -> None:
    output = tmp_path / "cells.json"
    with pytest.raises(KeyboardInterrupt):
        run_grid(GRID, output, Run(stopped_after=3))
    finished = load_comparisons(output)
    assert len(finished) == 3
    with output.with_suffix(".csv").open(newline="") as file:  # is not of an earlier run
        assert {row["model"] for row in csv.DictReader(file)} == {each.model for each in finished}
    run, begun = Run(), []
    assert len(run_grid(GRID, output, run, on_start=begun.append)) == 4
    assert run.requests == GRID[:1] and begun == [3]


def test_another_model_in_the_same_folder_is_run(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("one")
    setting = replace(GRID[0], model=str(tmp_path / "model"))
    runs = [Run(), Run(), Run()]
    for i, run in enumerate(runs):
        if i == 2:
            (tmp_path / "model" / "weights").write_text("other")
        run_grid([setting], tmp_path / "cells.json", run)
    assert [len(run.requests) for run in runs] == [1, 0, 1]


def test_cells_of_another_default_limit_are_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unlimited = [replace(each, search="random") for each in GRID]
    cells = [*GRID, *unlimited]
    run_grid(cells, tmp_path / "cells.json", Run())
    monkeypatch.setattr(config, "MAX_KL", 0.03)
    run_grid(cells, tmp_path / "cells.json", run := Run())
    assert {*run.requests} == {*cells} - {*unlimited}


def test_other_data_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("some", "all"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "test.jsonl").write_text(f"{folder}\n")
    for folder, measured in (("some", GRID), ("all", GRID), ("all", [])):
        monkeypatch.setenv("TAROT_DATA", str(tmp_path / folder))
        run_grid(GRID, tmp_path / "cells.json", run := Run())
        assert sorted(run.requests, key=GRID.index) == measured


def test_another_file_is_refused_before_a_cell_runs(tmp_path: Path) -> None:
    (tmp_path / "cells.json").write_text("{")
    run = Run()
    with pytest.raises(TarotError, match="is not a file of tarot's results"):
        run_grid(GRID, tmp_path / "cells.json", run)
    with pytest.raises(TarotError, match="cannot be written"):
        run_grid(GRID, tmp_path / "cells.json" / "deep", run)
    assert not run.requests


def test_a_task_without_right_answers_is_refused_before_a_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_tasks(tmp_path) / "generate.yaml"
    file.write_text(file.read_text().replace("exact_match", "bleu"))
    runner = CellRunner(tmp_path / "work", ModelCache())
    monkeypatch.setattr(runner, "tune", lambda *_: pytest.fail("searched"))
    request = CellRequest("model", "own_generate", include_path=str(tmp_path))
    with pytest.raises(TarotError, match="expected choices or the metric exact_match in own_generate, got bleu"):
        runner.compare(request, LoadedModel("bytes", byte_model(), byte_tokenizer()))


def test_a_cell_is_tuned_with_the_settings_of_its_edit(tmp_path: Path) -> None:
    """Also where only what a name stands for has changed."""
    tasks, prompts = str(write_tasks(tmp_path / "tasks", test=4)), tmp_path / "prompts.txt"
    runner = CellRunner(tmp_path / "work", ModelCache())
    loaded = LoadedModel("bytes", byte_model(), byte_tokenizer())
    request = CellRequest("bytes", "own_choice", include_path=tasks, samples=4, budget=3, layers=0.5)
    request = replace(request, max_kl=0.5, retain=(str(prompts),))
    folders, digests = set(), set()
    for text in ("one", "another"):
        prompts.write_text(f"{text} prompt\n")
        adapter, folder = replace(runner, adapters={}).tune(request, loaded)
        folders.add(folder)
        digests.add(grid.request_digest(request))
    assert (adapter.edit.layers, adapter.provenance["max_kl"]) == ((0, 1), 0.5)
    assert adapter.provenance["retain"] == [str(prompts)]
    assert len(folders) == len(digests) == 2


def test_a_cell_runs_again_where_the_bundled_prompts_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request, prompts = CellRequest("bytes", "own_choice"), tmp_path / "prompts.json"
    before = grid.request_digest(request)
    prompts.write_text(grid.RETAINED_PROMPTS.read_text())
    monkeypatch.setattr(grid, "RETAINED_PROMPTS", prompts)
    assert grid.request_digest(request) == before
    prompts.write_text("{}")
    assert grid.request_digest(request) != before


def test_a_cell_has_the_trade_off_of_its_search(tmp_path: Path) -> None:
    """Divergence and score of each trial under the limit."""
    tasks = str(write_tasks(tmp_path / "tasks", test=4))
    runner = CellRunner(tmp_path / "work", ModelCache())
    loaded = LoadedModel("bytes", byte_model(), byte_tokenizer())
    request = CellRequest("bytes", "own_choice", include_path=tasks, samples=4, budget=6, limit=2)
    limited = runner.compare(request, loaded)
    assert limited.trade_off[0][0] == 0 < limited.max_kl and len(limited.trade_off) == 2
    assert all(score in limited.curves["adam"] for _, score in limited.trade_off)


def test_engines_have_names() -> None:
    assert parse_engine("ray") == "ray"
    with pytest.raises(UnknownName, match="did you mean 'local'"):
        parse_engine("locl")


def test_two_runs_with_one_file_keep_each_others_results(tmp_path: Path) -> None:
    output = tmp_path / "cells.json"

    def run(requests: Sequence[CellRequest]) -> Iterator[tuple[CellRequest, CellResult]]:
        for request in requests:
            if request.model == "a":  # meanwhile another run writes its own
                run_grid([CellRequest("b", "task")], output, run)
            yield request, CellResult(comparison(request))

    assert [comparison.model for comparison in run_grid([CellRequest("a", "task")], output, run)] == ["a"]
    assert {comparison.model for comparison in load_comparisons(output)} == {"a", "b"}


def test_a_cell_that_two_runs_finish_is_kept_once(tmp_path: Path) -> None:
    output = tmp_path / "cells.json"

    def run(requests: Sequence[CellRequest]) -> Iterator[tuple[CellRequest, CellResult]]:
        for request in requests:
            if not output.exists() or not load_comparisons(output):  # another run finishes the same cell first
                run_grid([request], output, Run())
            yield request, CellResult(comparison(request))

    assert len(run_grid(GRID[:1], output, run)) == len(load_comparisons(output)) == 1


def test_the_command_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Run a grid of two searches, then a larger one with a task without data, then the same again."""
    save_checkpoint(tmp_path / "model")
    write_tasks(tmp_path / "tasks", test=4)
    bench = ("bench", "--model", "model", "--include-path", "tasks", "--output", "cells.json", "--cpus", "1")
    small = ("--samples", "4", "--budget", "3", "--space", "head", "--draws", "0", "--search", "random")
    missing = (
        "task: dataless\ndataset_path: json\ndataset_kwargs: {data_files: {test: nowhere.jsonl}}\ntest_split: test\n"
    )
    (tmp_path / "tasks" / "dataless.yaml").write_text(missing)
    tasks = ("--task", "own_choice", "--task", "dataless")
    assert run_in(tmp_path, *bench, *small, *tasks[:2], "--seeds", "0,1") == 0
    printed = capsys.readouterr()
    assert "2 of 2 cells in cells.json" in printed.out and "cell 2 of 2: edited, arm 3 of 5" in printed.err
    first = load_comparisons(tmp_path / "cells.json")
    assert [(c.seed, c.search, len(c.gold)) for c in first] == [(0, "random", 4), (1, "random", 4)]
    os.remove(next((tmp_path / "cells.json.work").glob("*-0-0-*/tarot.json")))  # a needless search would write it again
    assert run_in(tmp_path, *bench, *small, *tasks) == 1
    printed = capsys.readouterr()
    assert "1 of 2 cells in cells.json" in printed.out and "already: 1" in printed.err
    assert "failed: model-dataless-0shot-seed0-random: " in printed.err and "Traceback" not in printed.err
    assert load_comparisons(tmp_path / "cells.json") == first
    assert not list((tmp_path / "cells.json.work").glob("*-0-0-*/tarot.json"))


def test_a_grid_without_a_cell_leaves_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(home.iterdir())
    bench = ("bench", "--model", "model", *TASK, "--num-samples", "400", "--output-path", "no-cell.json")
    assert run_in(home, *bench) == 1
    assert "400 samples" in " ".join(capsys.readouterr().err.split())
    assert sorted(home.iterdir()) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "own_chioce"}, "did you mean 'own_choice'"),
        ({"samples": 40}, "40"),
        ({"search": "adma"}, "'adma'"),
        ({"include_path": "nowhere"}, "'nowhere'"),
        ({"limit": 0}, "limit"),
        ({"layers": 2.0}, "layers"),
        ({"retain": ("own_choice",)}, "cannot be retained"),
        ({"search": "random", "max_kl": 0.1}, "need a search that holds a limit"),
        ({"budget": 0}, "budget"),
    ],
)
def test_a_request_that_cannot_be_run_is_refused_without_its_model(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    models = ModelCache()  # loading "nowhere" would raise another error
    request = CellRequest("nowhere", "own_choice", include_path=str(write_tasks(tmp_path / "tasks")), samples=5)
    result = CellRunner(tmp_path, models).run(replace(request, **change))
    assert result.comparison is None and message in result.error and not models
