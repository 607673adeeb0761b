"""The pages that the study writes: they match its files, and hold no number that a file does not."""

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent


def test_results_pages_match_the_recorded_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare the pages with a fresh computation, up to what another processor rounds differently."""
    monkeypatch.syspath_prepend(PROJECT)
    from benchmarks.study import results
    from benchmarks.study.effect_tables import RecordedEffects
    from benchmarks.study.recorded import RecordedCells

    cells = RecordedCells.load(results.HERE / "cells")
    number = re.compile(r"[+-]?\d+\.\d+")
    for path, written in results.write_pages(cells, RecordedEffects.load(results.HERE / "effects")).items():
        kept = path.read_text()
        assert number.sub("#", written) == number.sub("#", kept), "run python -m benchmarks.study.results"
        values = [list(map(float, number.findall(text))) for text in (kept, written)]
        assert values[0] == pytest.approx(values[1], abs=0.0021)


TYPED_NUMBERS = {"-0.1", ".40", ".20", ".01", ".04", ".05"}
"""Constants of the study's texts that no file holds: the stopping level, the goals, and rough standard errors."""


def test_numbers_in_the_studys_prose_come_from_its_files() -> None:
    for page in ("RESULTS.in.md", "README.in.md"):
        text = (PROJECT / "benchmarks" / "study" / page).read_text()
        typed = set(re.findall(r"-?\d*\.\d+", re.sub(r"\{[^}]*\}|`[^`]*`", "", text)))
        assert typed <= TYPED_NUMBERS, page


def test_a_larger_model_stands_in_the_table_as_soon_as_a_task_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(PROJECT)
    from benchmarks.study import grid, run, sizes
    from benchmarks.study.recorded import RecordedCells

    declared = run.declared("wheel:qwen2.5-coder-0.5b", (6, 0), grid.SEEDS, list(grid.METHODS))
    assert [cell.shots for _, cell in declared] == sorted((cell.shots for _, cell in declared), reverse=True)
    assert {method for method, cell in declared if cell.shots == 0} == set(grid.SIZE_METHODS[0])
    cells = RecordedCells.load(run.HERE / "cells")
    small = cells.records[grid.Cell("smollm2", "navigate", 0, 0)]
    cells.records[grid.Cell("qwen0.5b", "navigate", 0, 0)] = {method: small[method] for method in ("base", "default")}
    all_tasks, one_task = sizes.measured_groups(cells, 0)
    assert [size.model for size in all_tasks] == ["smollm2", "gemma3"] and all_tasks[0].tasks == grid.TASKS
    assert {size.tasks for size in one_task} == {("navigate",)}  # compared on the same tasks
    assert [size.parameters for size in one_task] == sorted(size.parameters for size in one_task)
    larger = one_task[-1]
    assert (larger.model, larger.prompting) == ("qwen0.5b", None)
    assert larger.edited - larger.base == pytest.approx(larger.gain.value, abs=1e-3)
