"""A grid of cells: what is there is not measured again, what is finished stays, a cell that fails leaves the others."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from checkpoint import byte_model, byte_tokenizer, save_checkpoint, write_tasks
from hypothesis import given
from hypothesis import strategies as st
from test_cli import run_in

from tarot.errors import TarotError, UnknownName
from tarot.evaluation.cell_runner import CellRunner, ModelCache
from tarot.evaluation.grid import CellRequest, CellResult, parse_engine, run_grid
from tarot.evaluation.results import EDITED, FEW_SHOT, ZERO_SHOT, Arm, Comparison
from tarot.evaluation.results_file import load_comparisons
from tarot.models.loaded_model import LoadedModel


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
    """Measures by making cells up, and remembers of what."""

    def __init__(self, failing: Sequence[CellRequest] = (), stopped_after: int | None = None) -> None:
        self.failing, self.stopped_after = failing, stopped_after
        self.asked: list[CellRequest] = []

    def __call__(self, settings: Sequence[CellRequest]) -> Iterator[tuple[CellRequest, CellResult]]:
        for setting in reversed(settings):  # as a cluster, in any order
            if len(self.asked) == self.stopped_after:
                raise KeyboardInterrupt
            self.asked.append(setting)
            yield (
                setting,
                CellResult(error="no") if setting in self.failing else CellResult(comparison(setting), "folder"),
            )


GRID = [CellRequest("model", task, seed=seed) for task in ("color", "navigate") for seed in (0, 1)]

words = st.text(st.characters(exclude_categories=["Cs"]))


@given(words, words, st.lists(words), st.booleans())
def test_an_outcome_comes_back_from_its_text(folder: str, error: str, said: list[str], measured: bool) -> None:
    outcome = CellResult(comparison(GRID[1]) if measured else None, folder, error, tuple(said))
    assert CellResult.from_json(outcome.to_json()) == outcome


@given(st.sets(st.sampled_from(GRID)), st.sets(st.sampled_from(GRID)), st.sets(st.sampled_from(GRID)))
def test_each_cell_is_measured_once(
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
    assert set(one.asked) == first
    assert set(two.asked) == second - (first - failing)
    assert {c.id for c in load_comparisons(output)} == {comparison(s).id for s in (first - failing) | second}


def test_ctrl_c_leaves_what_is_finished(tmp_path: Path) -> None:
    output = tmp_path / "cells.json"
    with pytest.raises(KeyboardInterrupt):
        run_grid(GRID, output, Run(stopped_after=3))
    assert len(load_comparisons(output)) == 3
    run, begun = Run(), []
    assert len(run_grid(GRID, output, run, on_start=begun.append)) == 4
    assert run.asked == GRID[:1] and begun == [3]


def test_another_model_in_the_same_place_is_measured(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("one")
    setting = replace(GRID[0], model=str(tmp_path / "model"))
    runs = [Run(), Run(), Run()]
    for i, run in enumerate(runs):
        if i == 2:
            (tmp_path / "model" / "weights").write_text("other")
        run_grid([setting], tmp_path / "cells.json", run)
    assert [len(run.asked) for run in runs] == [1, 0, 1]


def test_other_data_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("some", "all"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "test.jsonl").write_text(f"{folder}\n")
    for folder, measured in (("some", GRID), ("all", GRID), ("all", [])):
        monkeypatch.setenv("TAROT_DATA", str(tmp_path / folder))
        run_grid(GRID, tmp_path / "cells.json", run := Run())
        assert sorted(run.asked, key=GRID.index) == measured


def test_a_file_that_is_no_results_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "cells.json").write_text("{")
    run = Run()
    with pytest.raises(TarotError, match="expected results as tarot writes them"):
        run_grid(GRID, tmp_path / "cells.json", run)
    with pytest.raises(TarotError, match="expected to write"):
        run_grid(GRID, tmp_path / "cells.json" / "deep", run)
    assert not run.asked


def test_what_nothing_judges_is_refused_before_a_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_tasks(tmp_path) / "generate.yaml"
    file.write_text(file.read_text().replace("exact_match", "bleu"))
    measurer = CellRunner(tmp_path / "work", ModelCache())
    monkeypatch.setattr(measurer, "tuned", lambda *_: pytest.fail("something was searched"))
    setting = CellRequest("model", "own_generate", include_path=str(tmp_path))
    with pytest.raises(TarotError, match="expected choices or the metric exact_match in own_generate, got bleu"):
        measurer.comparison(setting, LoadedModel("bytes", byte_model(), byte_tokenizer()))


def test_engines_have_names() -> None:
    assert parse_engine("ray") == "ray"
    with pytest.raises(UnknownName, match="did you mean 'local'"):
        parse_engine("locl")


def test_two_runs_into_one_file_keep_each_others_cells(tmp_path: Path) -> None:
    output = tmp_path / "cells.json"

    def run(todo: Sequence[CellRequest]) -> Iterator[tuple[CellRequest, CellResult]]:
        for setting in todo:
            if setting.model == "a":  # while this one is measured, another run measures its own
                run_grid([CellRequest("b", "task")], output, run)
            yield setting, CellResult(comparison(setting))

    assert [comparison.model for comparison in run_grid([CellRequest("a", "task")], output, run)] == ["a"]
    assert {comparison.model for comparison in load_comparisons(output)} == {"a", "b"}


def test_what_two_runs_measured_at_once_stands_there_once(tmp_path: Path) -> None:
    output = tmp_path / "cells.json"

    def run(todo: Sequence[CellRequest]) -> Iterator[tuple[CellRequest, CellResult]]:
        for setting in todo:
            if not output.exists() or not load_comparisons(output):  # another run has the same idea
                run_grid([setting], output, lambda asked: ((each, CellResult(comparison(each))) for each in asked))
            yield setting, CellResult(comparison(setting))

    assert len(run_grid(GRID[:1], output, run)) == len(load_comparisons(output)) == 1


def test_the_command_goes_on_where_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A grid of two searches; then a larger one, of which one task has no data; then the same again."""
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
    said = capsys.readouterr()
    assert "2 of 2 cells in cells.json" in said.out and "2/2" in said.err
    first = load_comparisons(tmp_path / "cells.json")
    assert [(c.seed, c.search, len(c.gold)) for c in first] == [(0, "random", 4), (1, "random", 4)]
    os.remove(next((tmp_path / "cells.json.work").glob("*-0-0-*/tarot.json")))  # a search for nothing would show
    assert run_in(tmp_path, *bench, *small, *tasks) == 1
    said = capsys.readouterr()
    assert "1 of 2 cells in cells.json" in said.out and "cells that are there already: 1" in said.err
    assert "data that lm-eval can load for dataless" in " ".join(said.err.split()) and "Traceback" not in said.err
    assert load_comparisons(tmp_path / "cells.json") == first
    assert not list((tmp_path / "cells.json.work").glob("*-0-0-*/tarot.json"))
    assert run_in(tmp_path, *bench, *tasks[:2], "--engine", "rays") == 2
    assert "did you mean 'ray'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "own_chioce"}, "did you mean 'own_choice'"),
        ({"samples": 40}, "40 samples"),
        ({"search": "adma"}, "'adma'"),
        ({"control": ("radnom",)}, "'radnom'"),
        ({"include_path": "nowhere"}, "'nowhere'"),
        ({"limit": 0}, "a limit of at least 1 document"),
        ({"budget": 0}, "a budget of at least"),
    ],
)
def test_a_setting_that_cannot_be_measured_is_refused_without_its_model(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    models = ModelCache()  # which would say that there is no such model
    setting = CellRequest("nowhere", "own_choice", include_path=str(write_tasks(tmp_path / "tasks")), samples=5)
    outcome = CellRunner(tmp_path, models).run(replace(setting, **change))  # type: ignore[arg-type]  # fields
    assert outcome.comparison is None and message in outcome.error and not models
