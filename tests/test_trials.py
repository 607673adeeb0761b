"""The log of trials: exact restoration, durability, and files that are damaged or belong to something else."""

import errno
import json
import math
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from landscapes import comparable
from torch import Tensor

from tarot.errors import TarotError
from tarot.search.loop import run_search
from tarot.search.trials import Trial, TrialLog

SETTINGS = {"seed": 3, "search": "random", "layers": [0, 1]}
steady = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])


def run(path: Path, budget: int) -> list[tuple]:
    """Run a random search that starts or resumes at `path`, and return all its trials."""
    log = TrialLog.open(path, SETTINGS, resume=True)
    return comparable(run_search(lambda x: float(x.sum()), 3, search="random", budget=budget, seed=3, log=log).trials)


def rows(d: int) -> st.SearchStrategy[list[dict]]:
    """Draw the fields of some trials of d coordinates."""
    fields = st.fixed_dictionaries(
        {
            "x": st.tuples(*[st.floats(0, 1)] * d),
            "score": st.floats(-1e30, 1e30) | st.just(math.nan),
            "origin": st.sampled_from(["identity", "sobol", "random", "acquisition"]),
            "propose_seconds": st.floats(0, 1e6),
            "evaluate_seconds": st.floats(0, 1e6),
            "gradient": st.just(()) | st.tuples(*[st.floats(-1e9, 1e9)] * d),
        }
    )
    return st.lists(fields, max_size=4)


@steady
@given(st.integers(1, 4).flatmap(rows))
def test_trials_are_restored_exactly(tmp_path: Path, rows: list[dict]) -> None:
    path = tmp_path / "trials.jsonl"
    path.unlink(missing_ok=True)
    log = TrialLog.open(path, SETTINGS, resume=False)
    written = [Trial(index=index, **row) for index, row in enumerate(rows)]
    for trial in written:
        log.append(trial)
    for restored in (log, TrialLog.read(path), TrialLog.open(path, SETTINGS, resume=True)):
        assert comparable(restored.trials) == comparable(written)
        assert [t.propose_seconds for t in restored.trials] == [t.propose_seconds for t in written]
        assert [t.gradient for t in restored.trials] == [t.gradient for t in written]
    assert TrialLog.read(path).settings == SETTINGS


def test_form_of_the_file(tmp_path: Path) -> None:
    log = TrialLog.open(tmp_path / "trials.jsonl", {"task": "näve"}, resume=False)
    log.append(Trial(0, (0.5, 0.1), math.nan, "identity", 0.25, 1.5))
    settings_line, trial_line = log.path.read_text().splitlines()
    assert json.loads(settings_line) == {"format": 1, "settings": {"task": "näve"}}
    assert json.loads(trial_line) == {
        "index": 0,
        "x": [0.5, 0.1],
        "score": None,
        "origin": "identity",
        "propose_seconds": 0.25,
        "evaluate_seconds": 1.5,
    }


def test_every_trial_is_synced_before_the_next_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    log = TrialLog.open(tmp_path / "trials.jsonl", {}, resume=False)

    def f(x: Tensor) -> float:
        assert synced[-1] == log.path.stat().st_size and len(synced) == len(log.trials) + 1
        return 0.0

    run_search(f, 2, search="random", budget=4, seed=0, log=log)
    assert len(synced) == 5


def test_reading_ignores_and_keeps_an_incomplete_line(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    run(path, budget=3)
    torn = path.read_bytes()[:-5]
    path.write_bytes(torn)
    assert len(TrialLog.read(path).trials) == 2
    assert path.read_bytes() == torn


def replace_line(path: Path, line: int, text: str) -> None:
    lines = path.read_text().splitlines()
    lines[line - 1] = text
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("line", "text", "message"),
    [
        (1, "no", "Line 1"),
        (1, "[]", "Line 1"),
        (1, '{"format": true, "settings": {}}', "Line 1"),
        (1, '{"format": 1e999}', "Line 1"),
        (1, '{"format": 2, "settings": {}}', "format 2"),
        (2, '{"index"', "Line 2 .* trial 0"),
        (3, "", "Line 3 .* trial 1"),
        (4, "{}", "Line 4 .* trial 2"),
        (4, "null", "Line 4 .* trial 2"),
    ],
)
def test_damaged_lines_are_named(tmp_path: Path, line: int, text: str, message: str) -> None:
    path = tmp_path / "trials.jsonl"
    run(path, budget=3)
    replace_line(path, line, text)
    before = path.read_bytes()
    with pytest.raises(TarotError, match=message):
        TrialLog.open(path, SETTINGS, resume=True)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("index", 7),
        ("index", True),
        ("x", [1]),
        ("x", ["a", "b"]),
        ("x", [0.5, 10**400]),
        ("x", [0.5, 1.5]),
        ("score", "a"),
        ("score", 1e300),
        ("score", float("inf")),
        ("origin", "dream"),
        ("gradient", [0.5]),
        ("evaluate_seconds", None),
        ("unknown", 1),
    ],
)
def test_a_wrong_field_of_a_trial_is_named(tmp_path: Path, field: str, value: object) -> None:
    path = tmp_path / "trials.jsonl"
    trials = [Trial(i, (0.5, 0.25), 0.5 * i, "random", 0.5, 0.5) for i in range(2)]
    log = TrialLog.open(path, SETTINGS, resume=False)
    for trial in trials:
        log.append(trial)
    assert TrialLog.read(path).trials == trials
    lines = path.read_text().splitlines()
    lines[2] = json.dumps(json.loads(lines[2]) | {field: value})
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(TarotError, match=rf"Line 3 .*({field}|integer|number)"):
        TrialLog.read(path)


def test_a_missing_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    run(path, budget=4)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:2] + lines[3:]))
    with pytest.raises(TarotError, match="Line 3"):
        TrialLog.open(path, SETTINGS, resume=True)


def test_a_file_that_is_no_log_is_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    path.write_text("my notes")
    with pytest.raises(TarotError, match="Line 1"):
        TrialLog.open(path, SETTINGS, resume=True)
    assert path.read_text() == "my notes"


def test_existing_log_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    TrialLog.open(path, SETTINGS, resume=False)
    with pytest.raises(TarotError, match="resume it"):
        TrialLog.open(path, SETTINGS, resume=False)


def test_other_settings_are_named(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    TrialLog.open(path, SETTINGS, resume=False)
    with pytest.raises(TarotError, match="seed 4 instead of 3, task 'a' instead of None"):
        TrialLog.open(path, {"seed": 4, "search": "random", "layers": (0, 1), "task": "a"}, resume=True)


def test_settings_of_which_only_a_digest_is_known_are_named_in_words(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    digests = ("prompts", "retained", "shapes", "weights")
    TrialLog.open(path, dict.fromkeys(digests, "0a1b"), resume=False)
    for name in digests:
        with pytest.raises(TarotError, match=r"got other [a-z ]+; resume"):
            TrialLog.open(path, {**dict.fromkeys(digests, "0a1b"), name: "2c3d"}, resume=True)


def test_reading_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TarotError, match="No such file"):
        TrialLog.read(tmp_path / "none.jsonl")


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TarotError, match="No such file"):
        TrialLog.open(tmp_path / "none" / "trials.jsonl", {}, resume=False)


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Limit every file to `size` bytes: like a full disk, it cuts a longer write short."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_a_complete_log(tmp_path: Path) -> None:
    complete = run(tmp_path / "complete.jsonl", budget=6)
    path = tmp_path / "trials.jsonl"
    run(path, budget=3)
    size = path.stat().st_size
    with file_size_limit(size + 30), pytest.raises(TarotError, match=os.strerror(errno.EFBIG)):
        run(path, budget=6)
    assert path.stat().st_size == size
    assert run(path, budget=6) == complete


def test_a_full_disk_leaves_no_log_without_settings(tmp_path: Path) -> None:
    with file_size_limit(10), pytest.raises(TarotError):
        TrialLog.open(tmp_path / "trials.jsonl", SETTINGS, resume=False)
    assert not (tmp_path / "trials.jsonl").exists()
