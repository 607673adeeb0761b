"""Cells and candidates on the machines of a cluster give the results of this process, even if a machine dies."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import Any, NamedTuple

import pytest
import torch
from after_trial import AfterTrial
from checkpoint import save_checkpoint, write_tasks

from tarot.errors import TarotError
from tarot.evaluation.grid.adapter_cache import entry_name
from tarot.evaluation.grid.grid import CellRequest, CellResult
from tarot.evaluation.ray import cluster as cluster_module
from tarot.evaluation.ray.candidates import RayScorer
from tarot.evaluation.ray.cells import RayEngine, run_locally
from tarot.evaluation.ray.cluster import Resources
from tarot.evaluation.results.comparison import Comparison
from tarot.evaluation.results.results_file import load_comparisons
from tarot.models.load import load_model
from tarot.objectives.rewards.text_scores import TextScoreLog
from tarot.search.config import TaRotConfig
from tarot.search.folder import TRIALS, read_trials
from tarot.search.loop import SearchResult
from tarot.search.trials import Trial
from tarot.search.tune import tune

psutil = pytest.importorskip("psutil", reason="psutil, which comes with accelerate, is not installed")
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
cluster_utils = pytest.importorskip("ray.cluster_utils", reason="needs the extra ray")

pytest_plugins = ["pytester"]

RESOURCES = Resources(cpus=1, gpus=0, memory=10**9)
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
    """Return the results of this process."""
    return dict(run_locally(settings, place / "here", RESOURCES))


@pytest.fixture(scope="module")
def cluster() -> Iterator["cluster_utils.Cluster"]:
    """Start a head without CPUs, and two machines with resources for one task each."""
    node_options = dict(include_dashboard=False, object_store_memory=80 * 2**20, memory=10**9)
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=dict(num_cpus=0, **node_options))
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1, **node_options)
        yield cluster
    finally:
        cluster.shutdown()


def without_times(result: CellResult) -> Comparison:
    assert result.comparison, result.error
    arms = tuple(replace(arm, seconds=0, preparation_seconds=0) for arm in result.comparison.arms)
    return replace(result.comparison, seconds=0, reference_seconds=0, reference_times=(), date="", arms=arms)


class Victim(NamedTuple):
    """A machine, its Ray process, and that of the task it runs."""

    cluster: "cluster_utils.Cluster"
    node: Any
    raylet: Any
    task: Any

    def kill(self) -> None:
        """Kill the machine as a power cut does."""
        self.raylet.kill()
        self.task.kill()  # otherwise it may finish its search before it notices that its machine is gone
        self.cluster.remove_node(self.node, allow_graceful=False)


def give_way() -> None:
    """Leave the processor to what is waited for."""
    Event().wait(0.01)


def find_victim(cluster: "cluster_utils.Cluster", title: str) -> Victim:
    """Block until a machine runs the task with this title."""
    while True:
        for node in cluster.worker_nodes:
            (raylet,) = (process.process for process in node.all_processes["raylet"])
            for child in psutil.Process(raylet.pid).children():
                with suppress(psutil.NoSuchProcess):
                    if title in " ".join(child.cmdline()):
                        return Victim(cluster, node, raylet, child)
        give_way()


def trials_of(request: CellRequest, work: Path) -> Path:
    """Return the file of a cell's trials."""
    loaded = load_model(request.model, device="cpu")
    return work / entry_name(loaded, request.config(), request.budget, request.include_path) / TRIALS


def wait_for_lines(path: Path, n_lines: int) -> None:
    """Block until a file, which may not exist yet, has so many lines."""
    while not path.exists() or path.read_bytes().count(b"\n") < n_lines:
        give_way()


def test_a_machine_dies_in_the_middle_of_a_cell_and_another_cell_fails(
    cluster: "cluster_utils.Cluster", place: Path, settings: list[CellRequest], here: dict[CellRequest, CellResult]
) -> None:
    """Neither stops the other cells."""
    trials = trials_of(settings[0], place / "there")
    wrong = replace(settings[0], task="own_choise")
    with RayEngine(place / "there", RESOURCES, cluster.address) as engine:
        engine.add(settings[0])
        engine.add(settings[0])
        victim = find_victim(cluster, f"ray::{settings[0].id}")  # while it loads the model: later, the search could end
        wait_for_lines(trials, 4)
        victim.task.suspend()
        before = trials.read_bytes()
        victim.kill()
        there = dict(engine.run([wrong, *settings]))
    failed = there.pop(wrong)
    assert failed.comparison is None and "did you mean 'own_choice'?" in failed.error
    assert {request: without_times(result) for request, result in there.items()} == {
        request: without_times(result) for request, result in here.items()
    }
    # A trial's line has its seconds, so equal lines were not evaluated again.
    after = trials.read_bytes()
    kept = before.count(b"\n") - 1
    assert after.startswith(before[: before.rfind(b"\n") + 1])
    assert after.count(b"\n") == 1 + BUDGET and kept < BUDGET
    (note,) = there[settings[0]].notes
    assert kept <= int(note.split()[-2]) < BUDGET and note.startswith(f"resumed the search in {trials.parent}")
    assert there[settings[1]].notes == ()


# Candidates of one search


@pytest.fixture
def planted(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plant a reward that reports when it starts, and goes on when it has read all of the file `gate`."""
    (place / "planted.py").write_text(
        "from pathlib import Path\n"
        "def vowels(prompts, continuations):\n"
        "    Path('started').write_text('.')\n"
        "    Path('gate').read_text()\n"
        "    return [sum(t.count(v) for v in 'aeiou') / max(len(t), 1) for t in continuations]\n"
    )
    (place / "started").touch()
    (place / "gate").touch()
    monkeypatch.chdir(place)


def searched(place: Path, config: TaRotConfig, output: str, **there: Any) -> list[tuple[object, ...]]:
    """Return the trials of a search of ten candidates, scored here or `there`."""
    loaded = load_model(str(place / "model"), device="cpu")
    with RESOURCES.threads():
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


LABELLED = TaRotConfig("own_choice", num_samples=4, space="head", search="bo", trials_per_step=3)
GENERATED = replace(LABELLED, task="own_generate", objective="planted:vowels", search="random")


def scorers(cluster: "cluster_utils.Cluster", place: Path, config: TaRotConfig) -> RayScorer:
    return RayScorer(str(place / "model"), config, RESOURCES, cluster.address, include_path=str(place / "tasks"))


def test_candidates_score_there_what_they_score_here(cluster: "cluster_utils.Cluster", place: Path) -> None:
    with scorers(cluster, place, LABELLED) as there:
        assert searched(place, LABELLED, "there-labelled", score_batch=there) == searched(
            place, LABELLED, "here-labelled"
        )
        # An error there comes back in one line.
        with pytest.raises(TarotError, match=r"expected angles of shape \(.*\), got shape \(1, 1, 1\)"):
            list(there([torch.zeros(1, 1, 1)]))


@pytest.mark.usefixtures("planted")
def test_a_machine_dies_while_it_scores_a_candidate(cluster: "cluster_utils.Cluster", place: Path) -> None:
    cluster.add_node(num_cpus=1, include_dashboard=False, object_store_memory=80 * 2**20, memory=10**9)
    n_machines = len(cluster.worker_nodes)
    pipes: list[int] = []

    def kill() -> None:
        """Kill a machine whose candidate has started, then open the gate for the others and the next ones."""
        os.read(pipes[0], 1)
        find_victim(cluster, "ray::candidate").kill()
        for name, pipe in zip(("started", "gate"), pipes, strict=True):
            (place / "plain").touch()
            (place / "plain").replace(place / name)
            os.close(pipe)  # ends the reading of those that wait

    def after(trial: Trial, result: SearchResult) -> None:
        if trial.index == 2:  # the last of its batch: no candidate is being scored
            for name in ("started", "gate"):
                (place / name).unlink()
                os.mkfifo(place / name)
                pipes.append(os.open(place / name, os.O_RDWR))
            killer.start()

    killer = Thread(target=kill, daemon=True)
    with scorers(cluster, place, GENERATED) as there:
        trials = searched(place, GENERATED, "there-generated", score_batch=there, callbacks=[AfterTrial(after)])
    killer.join()
    assert len(cluster.worker_nodes) == n_machines - 1
    assert trials == searched(place, GENERATED, "here-generated")
    assert TextScoreLog.read(place / "there-generated") == TextScoreLog.read(place / "here-generated")
    assert len(TextScoreLog.read(place / "there-generated")) == 10


def test_a_cluster_for_one_candidate_at_a_time_is_refused() -> None:
    with pytest.raises(TarotError, match=r"at least 2 candidates .* --trials-per-step"):
        RayScorer("model", replace(LABELLED, trials_per_step=1), RESOURCES)


def test_pytest_runs_its_cells_on_the_cluster(
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
            assert tarot_gain.comparison.adapter == tarot_adapter.fingerprint
        """
    )
    grid = (f"--tarot-model={settings[0].model}", "--tarot-task=own_choice", "--tarot-seeds=0,1")
    small = ("--tarot-samples=4", f"--tarot-budget={BUDGET}", "--tarot-search=random", "--tarot-space=head")
    paths = (f"--tarot-include-path={place / 'tasks'}", f"--tarot-work={place / 'there'}", "--tarot-draws=0")
    there = ("--tarot-engine=ray", f"--tarot-address={cluster.address}", "--tarot-cpus=1", "--tarot-memory=1GB")
    result = pytester.runpytest_subprocess(
        *grid, *small, *paths, *there, "--tarot-save-reference=cells.json", "-W", "error"
    )
    result.assert_outcomes(passed=2)
    measured = [without_times(CellResult(comparison)) for comparison in load_comparisons(pytester.path / "cells.json")]
    assert measured == [without_times(here[setting]) for setting in settings]


def test_ctrl_c_leaves_the_cluster_and_the_command_resumes(
    cluster: "cluster_utils.Cluster", place: Path, settings: list[CellRequest]
) -> None:
    line = f"""--model {settings[0].model} --task own_choice --include-path {place / "tasks"}
        --samples 4 --budget 600 --search random --space head --draws 0 --output {place / "grid.json"}
        --work {place / "stopped"} --engine ray --address {cluster.address} --cpus 1 --memory 1GB"""

    def bench() -> subprocess.Popen[str]:
        # A shell's background jobs ignore Ctrl-C, and so do the processes they start, unless the handler is reset.
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
    trials = trials_of(replace(settings[0], budget=600), place / "stopped")
    wait_for_lines(trials, 4)
    os.killpg(first.pid, signal.SIGINT)  # as a terminal does
    errors = first.communicate()[1]
    assert first.returncode == 130 and "Traceback" not in errors, errors
    assert errors.endswith("interrupted\n")
    before = trials.read_bytes()
    errors = (second := bench()).communicate()[1]
    assert second.returncode == 0 and "resumed the search in" in errors
    after = trials.read_bytes()
    assert after.startswith(before[: before.rfind(b"\n") + 1]) and after.count(b"\n") == 1 + 600
    assert len(load_comparisons(place / "grid.json")) == 1


def test_more_than_the_cluster_has_is_refused(cluster: "cluster_utils.Cluster", place: Path) -> None:
    with pytest.raises(
        TarotError,
        match=r"expected a machine in the cluster with 64 CPU, 0 GPU and 1 GB for a task, "
        r"got 0 CPU, 0 GPU and 1 GB; 1 CPU, 0 GPU and 1 GB; request less of cpus, gpus and memory",
    ):
        RayEngine(place, replace(RESOURCES, cpus=64), cluster.address)


def test_a_cluster_without_machines_for_a_cell_raises_an_error(
    cluster: "cluster_utils.Cluster", place: Path, settings: list[CellRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """This is the last test of the cluster, since it removes all machines."""
    monkeypatch.setattr(cluster_module, "CHECK_SECONDS", 0.2)
    monkeypatch.setattr(cluster_module, "PATIENCE_SECONDS", 0.5)
    with RayEngine(place / "gone", RESOURCES, cluster.address) as engine:
        for node in list(cluster.worker_nodes):
            cluster.remove_node(node, allow_graceful=False)
        with pytest.raises(TarotError, match=r"expected a machine in the cluster .*, got 0 CPU"):
            list(engine.run(settings))


# Without a cluster


def test_no_ray_and_no_cluster(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TarotError, match=r"expected a Ray cluster at 127.0.0.1:1, got .*refused; `ray start --head`"):
        RayEngine(place, RESOURCES, "127.0.0.1:1")
    with pytest.raises(TarotError, match=r"expected a Ray cluster at nowhere, got Invalid address"):
        RayEngine(place, RESOURCES, "nowhere")
    monkeypatch.setattr("tarot.errors.find_spec", lambda name: None)
    with pytest.raises(TarotError, match=r"package ray; .* python -m pip install -e '\.\[ray\]'"):
        RayEngine(place, RESOURCES, "auto")


@pytest.mark.parametrize(
    ("cpus", "gpus", "memory", "message"),
    [
        (0, 0, "1GB", "expected 1 to 4096 CPUs for a task, got 0"),
        (10**6, 0, "1GB", "expected 1 to 4096 CPUs for a task, got 1000000"),
        (1, float("inf"), "1GB", "expected GPUs for a task: 0, a fraction such as 0.5, or a whole number, got inf"),
        (1, -1, "1GB", "expected GPUs for a task: 0, a fraction such as 0.5, or a whole number, got -1"),
        (1, 1.5, "1GB", "expected GPUs for a task: 0, a fraction such as 0.5, or a whole number, got 1.5"),
        (1, 0, "much", "expected a size of memory such as 500MB or 4GB, got 'much'"),
    ],
)
def test_impossible_resources_are_named(cpus: int, gpus: float, memory: str, message: str) -> None:
    with pytest.raises(TarotError) as caught:
        Resources.parse(cpus, gpus, memory)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("gpus", "device", "device_map"), [(0, "cpu", None), (0.5, "auto", None), (1, "auto", None), (2, "auto", "auto")]
)
def test_models_are_loaded_onto_the_resources(gpus: float, device: str, device_map: str | None) -> None:
    models = Resources.parse(1, gpus, "4GB").models()
    assert (models.device, models.device_map) == (device, device_map)
