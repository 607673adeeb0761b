"""Cells and candidates on a cluster's machines: as in this process, also when a machine dies in the middle of one."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from checkpoint import save_checkpoint, write_tasks

from tarot.errors import TarotError
from tarot.evaluation.grid import CellRequest, CellResult
from tarot.evaluation.ray import cluster as cluster_module
from tarot.evaluation.ray.candidates import RayScorer
from tarot.evaluation.ray.cells import RayEngine, run_locally
from tarot.evaluation.ray.cluster import Resources
from tarot.evaluation.results import Comparison
from tarot.evaluation.results_file import load_comparisons
from tarot.models.load import load_model
from tarot.objectives.text_scores import read_text_scores
from tarot.search import SearchResult, Trial
from tarot.search.config import TaRotConfig
from tarot.search.folder import TRIALS, read_trials
from tarot.search.tune import tune

psutil = pytest.importorskip("psutil", reason="psutil, which comes with accelerate, is not installed")
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
cluster_utils = pytest.importorskip("ray.cluster_utils", reason="ray is not installed: pip install 'tarot-lm[ray]'")

pytest_plugins = ["pytester"]

NEEDS = Resources(cpus=1, gpus=0, memory=10**9)
BUDGET = 150


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("place")
    save_checkpoint(place / "model")
    write_tasks(place / "tasks", test=6)
    return place


@pytest.fixture(scope="module")
def settings(place: Path) -> list[CellRequest]:
    common = dict(samples=4, budget=BUDGET, search="random", space="head", draws=0, include_path=str(place / "tasks"))
    return [CellRequest(str(place / "model"), "own_choice", seed=seed, **common) for seed in (0, 1)]


@pytest.fixture(scope="module")
def here(settings: list[CellRequest], place: Path) -> dict[CellRequest, CellResult]:
    """What this process measures."""
    return dict(run_locally(settings, place / "here", NEEDS))


@pytest.fixture(scope="module")
def cluster() -> Iterator["cluster_utils.Cluster"]:
    """A head that measures nothing, and two machines with room for a task each."""
    of_node = dict(include_dashboard=False, object_store_memory=80 * 2**20, memory=10**9)
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=dict(num_cpus=0, **of_node))
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1, **of_node)
        yield cluster
    finally:
        cluster.shutdown()


def timeless(outcome: CellResult) -> Comparison:
    assert outcome.comparison, outcome.error
    arms = tuple(replace(arm, seconds=0) for arm in outcome.comparison.arms)
    return replace(outcome.comparison, seconds=0, reference_seconds=0, arms=arms)


def kill_where(cluster: "cluster_utils.Cluster", title: str) -> None:
    """Kill a machine as its power does: Ray's own process, and that of the task with this title."""
    for node in cluster.worker_nodes:
        (raylet,) = (process.process for process in node.all_processes["raylet"])
        for child in psutil.Process(raylet.pid).children():
            if title in " ".join(child.cmdline()):
                raylet.kill()
                child.kill()  # left alone, it might end its search before it sees that its machine has gone
                cluster.remove_node(node, allow_graceful=False)
                return
    raise AssertionError(f"{title} is on no machine")


def test_a_machine_dies_in_the_middle_of_a_cell(
    cluster: "cluster_utils.Cluster", place: Path, settings: list[CellRequest], here: dict[CellRequest, CellResult]
) -> None:
    with RayEngine(place / "there", NEEDS, cluster.address) as engine:
        engine.add(settings[0])
        engine.add(settings[0])
        deadline = time.monotonic() + 300
        while not (
            begun := [log for log in (place / "there").glob(f"*/{TRIALS}") if log.read_bytes().count(b"\n") > 3]
        ):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        before = begun[0].read_bytes()
        kill_where(cluster, f"ray::{settings[0].id}")
        there = dict(engine.run(settings))
    assert {setting: timeless(outcome) for setting, outcome in there.items()} == {
        setting: timeless(outcome) for setting, outcome in here.items()
    }
    # A trial's line has its seconds: what was on the disk when the machine died was not evaluated again.
    after = begun[0].read_bytes()
    kept = before.count(b"\n") - 1
    assert after.startswith(before[: before.rfind(b"\n") + 1])
    assert after.count(b"\n") == 1 + BUDGET and kept < BUDGET
    (words,) = there[settings[0]].words
    assert kept <= int(words.split()[-2]) < BUDGET and words.startswith(f"resumed the search in {begun[0].parent}")
    assert there[settings[1]].words == ()


def test_a_cell_that_fails_leaves_the_others(
    cluster: "cluster_utils.Cluster", place: Path, settings: list[CellRequest], here: dict[CellRequest, CellResult]
) -> None:
    wrong = replace(settings[0], task="own_choise")
    with RayEngine(place / "there", NEEDS, cluster.address) as engine:
        there = dict(engine.run([wrong, settings[1]]))
    assert there[wrong].comparison is None and "did you mean 'own_choice'?" in there[wrong].error
    assert timeless(there[settings[1]]) == timeless(here[settings[1]])


# Candidates of one search


@pytest.fixture
def planted(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "planted.py").write_text(
        "import os, time\n"
        "def vowels(prompts, continuations):\n"
        "    while os.path.exists('wait'):  # to be killed\n"
        "        time.sleep(0.05)\n"
        "    return [sum(t.count(v) for v in 'aeiou') / max(len(t), 1) for t in continuations]\n"
    )
    monkeypatch.chdir(place)


def searched(place: Path, config: TaRotConfig, output: str, **there: Any) -> list[tuple[object, ...]]:
    """What a search of ten candidates found, here or `there`."""
    loaded = load_model(str(place / "model"), device="cpu")
    with NEEDS.threads():
        tune(
            loaded.model,
            loaded.tokenizer,
            config,
            output_dir=place / output,
            budget=10,
            include_path=place / "tasks",
            **there,
        )
    return [(trial.index, trial.x, trial.score, trial.origin) for trial in read_trials(place / output)]


CHOSEN = TaRotConfig("own_choice", num_samples=4, space="head", search="bo", trials_per_step=3)
WRITTEN = replace(CHOSEN, task="own_generate", objective="planted:vowels", search="random")


def scorers(cluster: "cluster_utils.Cluster", place: Path, config: TaRotConfig) -> RayScorer:
    return RayScorer(str(place / "model"), config, NEEDS, cluster.address, include_path=str(place / "tasks"))


def test_candidates_score_there_what_they_score_here(cluster: "cluster_utils.Cluster", place: Path) -> None:
    with scorers(cluster, place, CHOSEN) as there:
        assert searched(place, CHOSEN, "there-chosen", candidates=there) == searched(place, CHOSEN, "here-chosen")
        # What a candidate raises there comes back in one line.
        with pytest.raises(TarotError, match=r"expected angles of shape \(.*\), got shape \(1, 1, 1\)"):
            list(there([torch.zeros(1, 1, 1)]))


@pytest.mark.usefixtures("planted")
def test_a_machine_dies_while_it_scores_a_candidate(cluster: "cluster_utils.Cluster", place: Path) -> None:
    cluster.add_node(num_cpus=1, include_dashboard=False, object_store_memory=80 * 2**20, memory=10**9)
    machines = len(cluster.worker_nodes)

    def kill() -> None:
        while len(cluster.worker_nodes) == machines:
            with suppress(AssertionError):
                kill_where(cluster, "ray::candidate")
        (place / "wait").unlink()

    def after(trial: Trial, result: SearchResult) -> None:
        if trial.index == 2:  # the last of its batch
            (place / "wait").touch()
            killer.start()

    killer = Thread(target=kill, daemon=True)
    with scorers(cluster, place, WRITTEN) as there:
        found = searched(place, WRITTEN, "there-written", candidates=there, on_trial=after)
    killer.join(60)
    assert len(cluster.worker_nodes) == machines - 1
    assert found == searched(place, WRITTEN, "here-written")
    assert read_text_scores(place / "there-written") == read_text_scores(place / "here-written")
    assert len(read_text_scores(place / "there-written")) == 10


def test_a_cluster_for_one_candidate_at_a_time_is_refused() -> None:
    with pytest.raises(TarotError) as caught:
        RayScorer("model", replace(CHOSEN, batch=1), NEEDS)
    assert str(caught.value) == "expected batches of at least 2 candidates for a cluster, got 1; try --batch 4"


def test_pytest_takes_its_cells_from_the_cluster(
    cluster: "cluster_utils.Cluster",
    pytester: pytest.Pytester,
    place: Path,
    settings: list[CellRequest],
    here: dict[CellRequest, CellResult],
) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_gain(tarot_gain, tarot_adapter):
            assert tarot_gain.cell.adapter == tarot_adapter.fingerprint
        """
    )
    asked = (f"--tarot-model={settings[0].model}", "--tarot-task=own_choice", "--tarot-seeds=0,1")
    small = ("--tarot-samples=4", f"--tarot-budget={BUDGET}", "--tarot-search=random", "--tarot-space=head")
    paths = (f"--tarot-include-path={place / 'tasks'}", f"--tarot-cache={place / 'there'}", "--tarot-draws=0")
    there = ("--tarot-engine=ray", f"--tarot-address={cluster.address}", "--tarot-cpus=1", "--tarot-memory=1GB")
    result = pytester.runpytest_subprocess(
        *asked, *small, *paths, *there, "--tarot-save-baseline=cells.json", "-W", "error", timeout=300
    )
    result.assert_outcomes(passed=2)
    measured = [timeless(CellResult(comparison)) for comparison in load_comparisons(pytester.path / "cells.json")]
    assert measured == [timeless(here[setting]) for setting in settings]


def test_ctrl_c_leaves_the_cluster_and_the_command_goes_on_later(
    cluster: "cluster_utils.Cluster", place: Path, settings: list[CellRequest]
) -> None:
    line = f"""--model {settings[0].model} --task own_choice --include-path {place / "tasks"}
        --samples 4 --budget 1500 --search random --space head --draws 0 --output {place / "grid.json"}
        --work {place / "stopped"} --engine ray --address {cluster.address} --cpus 1 --memory 1GB"""

    def bench() -> subprocess.Popen[str]:
        # A shell's background jobs are deaf to Ctrl-C, and so is what they start unless it is told to listen.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return subprocess.Popen(
                [sys.executable, "-m", "tarot", "bench", *shlex.split(line)],
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        finally:
            signal.signal(signal.SIGINT, before)

    first = bench()
    deadline = time.monotonic() + 300
    while not (begun := [log for log in (place / "stopped").glob(f"*/{TRIALS}") if log.read_bytes().count(b"\n") > 3]):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(first.pid, signal.SIGINT)  # as a terminal does
    said = first.communicate(timeout=60)[1]
    assert first.returncode == 130 and "Traceback" not in said, said
    assert "the same command goes on from here" in said and said.endswith("interrupted\n")
    before = begun[0].read_bytes()
    said = (second := bench()).communicate(timeout=300)[1]
    assert second.returncode == 0 and "resumed the search in" in said
    after = begun[0].read_bytes()
    assert after.startswith(before[: before.rfind(b"\n") + 1]) and after.count(b"\n") == 1 + 1500
    assert len(load_comparisons(place / "grid.json")) == 1


def test_more_than_the_cluster_has_is_refused(cluster: "cluster_utils.Cluster", place: Path) -> None:
    with pytest.raises(
        TarotError,
        match=r"expected a machine in the cluster with 64 CPU, 0 GPU and 1 GB for a task, "
        r"got 0 CPU, 0 GPU and 1 GB; 1 CPU, 0 GPU and 1 GB; ask for less of cpus, gpus and memory",
    ):
        RayEngine(place, replace(NEEDS, cpus=64), cluster.address)


def test_a_cluster_that_shrinks_below_a_cell_is_told(
    cluster: "cluster_utils.Cluster", place: Path, settings: list[CellRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last test of the cluster: it has no machine left afterwards."""
    monkeypatch.setattr(cluster_module, "CHECK_SECONDS", 0.2)
    monkeypatch.setattr(cluster_module, "PATIENCE_SECONDS", 0.5)
    with RayEngine(place / "gone", NEEDS, cluster.address) as engine:
        for node in list(cluster.worker_nodes):
            cluster.remove_node(node, allow_graceful=False)
        with pytest.raises(TarotError, match=r"expected a machine in the cluster .*, got 0 CPU, 0 GPU and 1 GB; ask"):
            list(engine.run(settings))


# Without a cluster


def test_no_ray_and_no_cluster(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TarotError, match=r"expected a Ray cluster at 127.0.0.1:1, got .*refused; `ray start --head`"):
        RayEngine(place, NEEDS, "127.0.0.1:1")
    with pytest.raises(TarotError, match=r"expected a Ray cluster at nowhere, got Invalid address"):
        RayEngine(place, NEEDS, "nowhere")
    monkeypatch.setattr(cluster_module, "find_spec", lambda name: None)
    with pytest.raises(
        TarotError, match=r"expected ray, which .*, got none installed; python -m pip install 'tarot-lm\[ray\]'"
    ):
        RayEngine(place, NEEDS, "auto")


@pytest.mark.parametrize(
    ("cpus", "gpus", "memory", "message"),
    [
        (0, 0, "1GB", "expected 1 to 4096 CPUs for a task, got 0"),
        (10**6, 0, "1GB", "expected 1 to 4096 CPUs for a task, got 1000000"),
        (1, float("inf"), "1GB", "expected GPUs for a task: 0, a share such as 0.5, or whole ones, got inf"),
        (1, -1, "1GB", "expected GPUs for a task: 0, a share such as 0.5, or whole ones, got -1"),
        (1, 1.5, "1GB", "expected GPUs for a task: 0, a share such as 0.5, or whole ones, got 1.5"),
        (1, 0, "much", "expected a size of memory such as 500MB or 4GB, got 'much'"),
    ],
)
def test_needs_that_cannot_be_are_quoted(cpus: int, gpus: float, memory: str, message: str) -> None:
    with pytest.raises(TarotError) as caught:
        Resources.parse(cpus, gpus, memory)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("gpus", "device", "device_map"), [(0, "cpu", None), (0.5, "auto", None), (1, "auto", None), (2, "auto", "auto")]
)
def test_a_model_is_where_its_needs_say(gpus: float, device: str, device_map: str | None) -> None:
    models = Resources.parse(1, gpus, "4GB").models()
    assert (models.device, models.device_map) == (device, device_map)
