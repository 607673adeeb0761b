"""Test the benchmarks on a tiny model, with a clock that counts work; then the study."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from checkpoint import byte_model, byte_tokenizer, save_checkpoint
from filelock import FileLock
from task_files import write_paper_data

from tarot.errors import TarotError
from tarot.evaluation.grid import adapter_cache
from tarot.models.loaded_model import LoadedModel
from tarot.search.algorithms.registry import SEARCHES
from tarot.search.loop import SearchResult, run_search

PROJECT = Path(__file__).parent.parent
HERE = ("-c", str(PROJECT / "pyproject.toml"), "--rootdir", str(PROJECT), "-p", "no:cacheprovider")


class Names:
    """Collect the names of the items that a pytest run would run."""

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.found = [item.name for item in session.items]


@cache
def collected(*arguments: str) -> Sequence[str]:
    """Return the names of the benchmarks that a run with these arguments would time."""
    names, before = Names(), sys.path[:]
    collect = ("--import-mode=importlib", "-p", "no:benchmark", "--collect-only", "-q")
    sys.path.insert(0, str(PROJECT / "benchmarks"))
    try:
        code = pytest.main([*HERE, *collect, str(PROJECT / "benchmarks"), *arguments], plugins=[names])
    finally:
        sys.path[:] = before
    assert code == pytest.ExitCode.OK
    return names.found


def comparisons(*arguments: str) -> list[str]:
    """Return the parameters of the cells that a run with these arguments would measure."""
    return [name[len("bench_gain[") : -1] for name in collected(*arguments) if name.startswith("bench_gain[")]


def test_default_run_measures_both_models_on_three_tasks() -> None:
    models = ("wheel:smollm2-135m", "wheel:gemma3-270m")
    without = [f"synth_{task}-0shot-seed0-adam" for task in ("implicatives", "navigate", "color")]
    expected = [
        f"{model}-{comparison}" for model in models for comparison in (*without, "synth_implicatives-6shot-seed0-adam")
    ]
    assert sorted(comparisons()) == sorted(expected)


def test_given_options_replace_the_defaults() -> None:
    assert sorted(comparisons("--tarot-num-fewshot=2,0", "--tarot-model=some/model")) == sorted(
        f"some/model-synth_{task}-{k}shot-seed0-adam" for task in ("implicatives", "navigate", "color") for k in (0, 2)
    )
    assert sorted(comparisons("--tarot-tasks=mine", "--tarot-model=some/model")) == [
        "some/model-mine-0shot-seed0-adam",
        "some/model-mine-6shot-seed0-adam",
    ]


def test_default_run_measures_what_depends_little_on_the_model_once() -> None:
    assert not re.search(r"bench_(harness|limit|scaling|search|switch)\[.*gemma", "\n".join(collected()))
    chosen = collected("--tarot-model=one", "--tarot-model=another")
    for benchmark in ("harness", "limit", "scaling", "search", "switch", "overhead", "objective"):
        models = [re.search(r"one|another", name).group() for name in chosen if name.startswith(f"bench_{benchmark}[")]
        assert models.count("one") == models.count("another") > 0


class Run:
    """One run of the benchmarks: what the JSON file holds, by name, and what the terminal showed."""

    def __init__(self, path: Path, output: str) -> None:
        self.file: dict[str, Any] = json.loads(path.read_text())
        self.benchmarks: dict[str, dict[str, Any]] = {each["name"]: each for each in self.file["benchmarks"]}
        self.output = output

    def shortest(self, name: str) -> float:
        """Return the shortest round of a benchmark, in elements that torch computed."""
        return self.benchmarks[name]["stats"]["min"]

    def extra_info(self, name: str) -> dict[str, Any]:
        return self.benchmarks[name]["extra_info"]


# Not 40, 80 and 160 labels, 12 shots, and commands in processes of their own, whose work the clock does not see.
FAST = "not bo] and not 40 and not 80 and not 160 and not 12 and not startup"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run all benchmarks but the slow ones on a tiny model, and cells of a task that does not exist."""
    folder = tmp_path_factory.mktemp("benchmarks")
    save_checkpoint(folder / "tiny", layers=2, heads=2)
    arguments = (
        *("--benchmark-json", "timed.json", "--benchmark-timer", "work_clock.elements", "-k", FAST),
        *("-p", "few_prompts", "-p", "short_runs"),
        *("--tarot-model", "tiny", "--tarot-tasks", "synth_implicatives", "--tarot-tasks", "nosuch"),
        *("--tarot-num-fewshot=2,0", "--tarot-budget=6", "--tarot-num-samples=4", "--tarot-limit=4", "--tarot-draws=0"),
    )
    # pytest-benchmark measures nothing in a process that looks like a worker of xdist.
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "TAROT_"))}
    environment = inherited | {"PYTHONPATH": str(PROJECT / "tests"), "OMP_NUM_THREADS": "1"}
    command = (sys.executable, "-m", "pytest", *HERE, str(PROJECT / "benchmarks"), *arguments)
    done = subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True)
    assert re.search(r"\d+ passed, 10 deselected, 2 errors", done.stdout), done.stdout + done.stderr
    return Run(folder / "timed.json", done.stdout)


def test_every_benchmark_times_work(run: Run) -> None:
    """No function that does nothing: the clock stands still for it."""
    functions = {name.partition("[")[0] for name in run.benchmarks}
    sources = (PROJECT / "benchmarks").glob("bench_*.py")
    defined = re.findall(r"^def (bench_\w+)", "".join(map(Path.read_text, sources)), re.MULTILINE)
    assert functions | {"bench_startup"} == set(defined)
    assert all(min(each["stats"]["data"]) > 0 for each in run.benchmarks.values())


def test_times_grow_with_the_work(run: Run) -> None:
    for how in ("plain", "bare", "ours"):
        without, with_shots = (run.shortest(f"bench_objective[{shots}shot-tiny-{how}]") for shots in (0, 6))
        assert without < with_shots
    for shots in (0, 6):
        plain, bare, ours = (
            run.shortest(f"bench_objective[{shots}shot-tiny-{how}]") for how in ("plain", "bare", "ours")
        )
        assert bare < plain
        assert ours < plain
    for work in ("forward", "generate"):
        unedited, hooked, merged = (
            run.shortest(f"bench_overhead[tiny-{work}-{edit}]") for edit in ("unedited", "hooked", "merged")
        )
        assert unedited == merged < hooked
    hooked, merged, forward = (run.shortest(f"bench_switch[tiny-{how}]") for how in ("hooked", "merged", "forward"))
    assert hooked < merged < forward
    assert run.shortest("bench_harness[tiny-tarot]") < run.shortest("bench_harness[tiny-stock]")
    for name, values in {"labels": (10, 20), "shots": (0, 3, 6, 20)}.items():
        steps = [run.shortest(f"bench_scaling[tiny-{value} {name}]") for value in values]
        assert steps == sorted(steps)
    assert run.shortest("bench_scaling[tiny-0.5 layers]") < run.shortest("bench_scaling[tiny-1.0 layers]")
    # Adam evaluates at most 40 gradients, and loading, drawing and saving compute little.
    assert run.shortest("bench_search[tiny-adam]") > 20 * run.shortest("bench_objective[0shot-tiny-ours]")


def test_ratios_are_those_of_the_shortest_rounds_in_a_group(run: Run) -> None:
    ratios = [
        (f"bench_objective[{shots}shot-tiny-ours]", key, f"bench_objective[{shots}shot-tiny-{other}]", inverse)
        for shots in (0, 6)
        for key, other, inverse in (("ours_over_bare", "bare", False), ("plain_over_ours", "plain", True))
    ]
    ratios += [
        (f"bench_overhead[tiny-{work}-{edit}]", "over_unedited", f"bench_overhead[tiny-{work}-unedited]", False)
        for work in ("forward", "generate")
        for edit in ("hooked", "merged")
    ]
    ratios += [
        (f"bench_switch[tiny-{how}]", "over_forward", "bench_switch[tiny-forward]", False)
        for how in ("hooked", "merged")
    ]
    ratios += [("bench_harness[tiny-tarot]", "stock_over_tarot", "bench_harness[tiny-stock]", True)]
    for name, key, other, inverse in ratios:
        assert run.benchmarks[name]["group"] == run.benchmarks[other]["group"]
        ratio = run.shortest(name) / run.shortest(other)
        assert run.extra_info(name)[key] == pytest.approx(1 / ratio if inverse else ratio, rel=1e-2, abs=1e-3)
        assert f"{key}={run.extra_info(name)[key]}" in run.output


def test_extra_info_holds_errors_and_gains(run: Run) -> None:
    assert run.extra_info("bench_objective[6shot-tiny-ours]")["log_probability_error"] < 1e-4
    assert run.extra_info("bench_harness[tiny-tarot]")["log_probability_error"] < 1e-3
    search = run.extra_info("bench_search[tiny-adam]")
    assert search["trials"] > 1
    assert 0 < search["proposing"] < 1
    assert search["memory_growth"] >= 1
    for how in ("tarot", "lora", "published"):
        assert 0 <= run.extra_info(f"bench_time_to_score[tiny-{how}]")["last"] <= 1
    comparison = run.extra_info("bench_gain[tiny-synth_implicatives-0shot-seed0-adam]")
    assert comparison["low"] <= comparison["gain"] <= comparison["high"]
    assert comparison["documents"] == 4
    assert {
        "zero-shot greedy_f1",
        "few-shot greedy_f1",
        "edited greedy_f1",
        "over_few_shot",
        "seconds",
    } <= comparison.keys()


def test_the_performance_page_is_made_from_a_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(PROJECT)
    from benchmarks import performance

    page = performance.render(json.loads(json.dumps(performance.shorten(run.file))))
    ours = run.benchmarks["bench_objective[6shot-tiny-ours]"]["extra_info"]
    assert f"| tiny, 6 shots | {ours['tokens']:,} |" in page
    assert f"| {ours['plain_over_ours']:.1f} | {ours['ours_over_bare']:.2f} |" in page
    for row in (
        "| adam | tiny |",
        "| forward | tiny |",
        "| tiny | lm-eval in one batch |",
        "| labels | tokens |",
        "| lora | tiny |",
    ):
        assert row in page
    assert "nan" not in page and "{" not in page


def test_a_later_run_replaces_its_benchmarks_in_the_record(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(PROJECT)
    from benchmarks import performance

    record = performance.shorten(run.file)
    first, *others = record["benchmarks"]
    later = {"date": "2030-01-01", "machine": record["machine"], "benchmarks": [first | {"seconds": 7.0}]}
    merged = performance.merge(record, later)
    assert merged == {**later, "benchmarks": [first | {"seconds": 7.0}, *others]}
    assert performance.merge(merged, later) == merged
    alone = later | {"benchmarks": [first | {"info": {}}]}  # without the alternative that a ratio is to
    assert performance.merge(record, alone)["benchmarks"][0]["info"] == first["info"]
    with pytest.raises(TarotError, match="another processor"):
        performance.merge(record, later | {"machine": {"processor": "another processor", "cores": 2}})


def test_failed_cells_do_not_keep_others_from_the_file(run: Run) -> None:
    assert "bench_gain[tiny-nosuch-0shot-seed0-adam]" in run.output
    assert not any("nosuch" in name for name in run.benchmarks)


def test_development_run_resumes_after_an_interrupt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(PROJECT)
    from benchmarks.study import held_out

    monkeypatch.setattr(
        held_out,
        "load_model",
        lambda path: SimpleNamespace(model=SimpleNamespace(set_attn_implementation=lambda _: None), path=path),
    )
    settings = [{"model": "smollm2", "task": task} for task in "abc"]
    ran = []

    def run(loaded: SimpleNamespace, task: str) -> dict[str, object]:
        if (len(ran), task) == (1, "b"):
            raise KeyboardInterrupt
        ran.append(task)
        return {"result": {"model_path": loaded.path}}

    path = tmp_path / "runs.jsonl"
    with pytest.raises(KeyboardInterrupt):
        held_out.measure_missing(path, settings, run)
    ran.append("")
    held_out.measure_missing(path, settings, run)
    held_out.measure_missing(path, settings, run)
    assert ran == ["a", "", "b", "c"]
    result = {"result": {"model_path": "wheel:smollm2-135m"}}
    assert [json.loads(line) for line in path.read_text().splitlines()] == [setting | result for setting in settings]


def test_records_are_measured_once_and_by_one_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A record that is there or that another process measures is skipped; an interrupt leaves no part of a file."""
    monkeypatch.syspath_prepend(PROJECT)
    from benchmarks.study.records import measure_records

    records, work = tmp_path / "records", tmp_path / "work"
    ran = []

    def measure(name: str) -> dict[str, object]:
        ran.append(name)
        if ran == ["a", "b"]:
            raise KeyboardInterrupt
        return {"name": name}

    todo = {name: partial(measure, name) for name in "abc"}
    with pytest.raises(KeyboardInterrupt):
        measure_records(records, work, todo)
    with FileLock(work / "c.lock", is_singleton=False):
        measure_records(records, work, todo)
    assert sorted(file.name for file in records.iterdir()) == ["a.json", "b.json"]
    measure_records(records, work, todo)
    assert ran == ["a", "b", "b", "c"]
    assert [json.loads((records / f"{name}.json").read_text()) for name in "abc"] == [{"name": n} for n in "abc"]


@pytest.mark.parametrize("method", ["base", "few-shot", "all-shots", "default", "random", "oft", "eigenpruning"])
def test_the_study_measures_a_method_on_a_tiny_model(
    method: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A record has the answers to all documents; what one program has tuned, the others find by its configuration."""
    monkeypatch.syspath_prepend(PROJECT)
    from benchmarks.study import grid, retention, run

    monkeypatch.setenv("TAROT_DATA", str(write_paper_data(tmp_path / "data")))
    for name, value in {"SAMPLES": 6, "BUDGET": 6, "DOCUMENTS": 4, "FEW_SHOT": 2}.items():
        monkeypatch.setattr(grid, name, value)
    loaded, cell = LoadedModel("bytes", byte_model(), byte_tokenizer()), grid.Cell("smollm2", "navigate", 0, 0)
    record = run.measure_cell(loaded, cell, method, tmp_path)
    assert len(record["gold"]) == len(record["greedy"]) == len(record["predicted"]) == 4
    if method in grid.SEARCHES:
        assert len(record["curve"]) == 6 and record["stored_bytes"] > 0
    if method == "default":
        monkeypatch.setattr(adapter_cache, "tune", None)
        edit = retention.make_arm(loaded, cell, retention.NO_LIMIT, tmp_path)
        assert edit.fingerprint == run.edit_with(loaded, cell, method, tmp_path)[0].fingerprint


@pytest.mark.parametrize(
    "baseline", ["matern", "spherical linear", "infinite width", "map-saas", "turbo", "cma-es", "nested"]
)
def test_study_searches_follow_the_protocol(baseline: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each search climbs a bowl from the identity, stays inside the cube, and repeats its steps."""
    monkeypatch.syspath_prepend(PROJECT)
    from benchmarks.study.search_baselines import BASELINES, KERNELS

    top = torch.full((8,), 0.3, dtype=torch.float64)
    monkeypatch.setitem(SEARCHES, "baseline", (BASELINES | KERNELS)[baseline])

    def search(budget: int) -> SearchResult:
        return run_search(lambda x: -float(((x - top) ** 2).sum()), len(top), search="baseline", budget=budget, seed=0)

    first, second = search(16), search(11)
    assert [trial.x for trial in first.trials[:11]] == [trial.x for trial in second.trials]
    assert first.trials[0].x == (0.5,) * 8
    assert all(0 <= value <= 1 for trial in first.trials for value in trial.x)
    assert first.best.score > first.identity.score
    assert not any(trial.origin == "random" for trial in first.trials)


def test_study_searches_are_halved_after_every_second_cell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Eight, four, then two searches run, then two kernels in `head`; a resumed study makes the same choices."""
    monkeypatch.syspath_prepend(PROJECT)
    from benchmarks.study.grid import DEVELOPMENT_SEED
    from benchmarks.study.search_baselines import BASELINES, CONTROLS, KERNELS
    from benchmarks.study.searches import CELLS, MORE_SEEDS, REPEATED, settings

    path = tmp_path / "searches.jsonl"
    path.write_text("")
    compared = [name for name in BASELINES if name not in CONTROLS]

    def walk() -> list[list[str]]:
        """Runs by cell; the further down the list a search is, and the later the cell, the better."""
        ran: dict[tuple[object, ...], list[str]] = {}
        for setting in settings(path):
            comparison = (setting["space"], setting["task"])
            ran.setdefault((*comparison, setting["seed"]), []).append(setting["search"])
            place = list(BASELINES | KERNELS).index(setting["search"]) + 100 * CELLS.index(comparison)
            with path.open("a") as file:
                file.write(json.dumps(setting | {"best": {"120": place}}) + "\n")
        assert list(ran) == [(*comparison, DEVELOPMENT_SEED) for comparison in CELLS] + [
            (*c, seed) for seed in MORE_SEEDS for c in REPEATED
        ]
        return list(ran.values())

    *first, one, two, three, four = walk()
    halved = [compared] * 2 + [compared[4:]] * 2 + [compared[6:]] * 2
    kernels = [[]] * 3 + [list(KERNELS)] * 3
    assert [each[len(CONTROLS) :] for each in first] == [one + two for one, two in zip(halved, kernels, strict=True)]
    assert all(searches[: len(CONTROLS)] == list(CONTROLS) for searches in first)
    assert one == two == three == four == ["bo", compared[-1]]
    assert walk() == [*first, one, two, three, four]


def test_study_settings_are_those_of_its_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule gives each recorded method its cell, and its configuration has the recorded search and labels."""
    monkeypatch.syspath_prepend(PROJECT)
    from benchmarks.study import grid, run
    from benchmarks.study.published_search import Published
    from benchmarks.study.recorded import RecordedCells

    monkeypatch.setitem(SEARCHES, "published", Published)
    cells = RecordedCells.load(run.HERE / "cells")
    parts = [*cells.records.items(), *cells.repeated.items()]
    recorded = {(cell, method) for cell, records in parts for method in records}
    assert recorded == {(cell, method) for cell in grid.cells() for method in grid.methods(cell)}
    for cell, method in recorded:
        record = (cells.records[cell] | cells.repeated[cell])[method]
        assert run.labels_of(cell, method) == record["labels"]
        if method in grid.SEARCHES:
            config = run.make_config(cell, method)
            assert (config.search, config.space) == (record["search"], record["space"])


def test_interrupted_search_is_not_recorded_by_the_study(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search keeps its best on Ctrl-C; a study that recorded it would never finish the cell."""
    monkeypatch.syspath_prepend(PROJECT)
    from benchmarks.study.held_out import completed

    def stopped(x: torch.Tensor) -> float:
        if calls.append(x) or len(calls) > 3:
            raise KeyboardInterrupt
        return 0.0

    calls: list[torch.Tensor] = []
    with pytest.raises(KeyboardInterrupt):
        completed(run_search(stopped, 2, search="random", budget=9, seed=0))
    assert len(calls) == 4


def test_the_gpu_script_runs_on_the_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every path agrees with itself, a path that does not is reported, and the file has a figure for each kind."""
    monkeypatch.syspath_prepend(PROJECT)
    from benchmarks import gpu

    output = tmp_path / "gpu.json"
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--tiny", "--device", "cpu", "--output", str(output)])
    monkeypatch.setattr(gpu, "REPEATS", 1)
    monkeypatch.setattr(gpu, "PROMPTS", 2)
    gpu.main()
    result = json.loads(output.read_text())
    paths = {check["path"]: check["difference"] for check in result["checks"]}
    assert paths.pop("device_map") is None  # accelerate has no second device here
    assert paths == dict.fromkeys(["hooks", "generation", "merge", "scorer", "objective", "gradient"], 0.0)
    figures = result["models"]["tiny"]
    assert {name for name in figures if name.endswith("_seconds")} == {
        f"{work}_seconds" for work in ("evaluation", "gradient_step", "plain_loop", "bare_passes")
    }
    monkeypatch.setattr(gpu, "check_paths", lambda device: [gpu.Check("hooks", 1.0)])
    with pytest.raises(SystemExit, match="hooks"):
        gpu.main()
