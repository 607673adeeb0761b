"""Each tracker keeps a search's settings and scores where its own library finds them; no network is used."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from after_trial import AfterTrial

from tarot.errors import TarotError, UnknownName
from tarot.models.loaded_model import LoadedModel
from tarot.search.callbacks import Callback
from tarot.search.config import TaRotConfig
from tarot.search.folder import read_trials
from tarot.search.trackers import TRACKERS, _Tracker, make_trackers
from tarot.search.trials import Trial
from tarot.search.tune import tune

CONFIG = TaRotConfig("own_choice", num_samples=4, search="random", space="head")


def stop(trial: Trial, result: object) -> None:
    if trial.index == 1:
        raise KeyboardInterrupt


def search_twice(loaded: LoadedModel, tasks: Path, folder: Path, name: str) -> list[Trial]:
    """Track a search that is interrupted after two trials; then resume it, with a new tracker."""
    options: dict[str, Any] = {"output_dir": folder, "include_path": tasks, "budget": 4}
    for resume, others in ((False, [AfterTrial(stop)]), (True, [])):
        tracker: list[Callback] = make_trackers([name], folder)
        tune(loaded.model, loaded.tokenizer, CONFIG, **options, callbacks=[*tracker, *others], resume=resume)
    return read_trials(folder)


def test_tensorboard_reads_the_scores(loaded: LoadedModel, tasks_folder: Path, tmp_path: Path) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs the extra tensorboard"
    )
    trials = search_twice(loaded, tasks_folder, tmp_path, "tensorboard")
    files = sorted((tmp_path / "tensorboard").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    read = [accumulator.EventAccumulator(str(file)).Reload() for file in files]
    first, second = ([(event.step, event.value) for event in each.Scalars("score")] for each in read)
    expected = [(trial.index, pytest.approx(trial.score)) for trial in trials]
    assert first == expected[:2] and second == expected
    best = [max(trial.score for trial in trials[: n + 1]) for n in range(4)]
    assert [event.value for event in read[1].Scalars("best_score")] == pytest.approx(best)
    (text,) = read[1].Tensors("settings/text_summary")
    assert b"| task | own_choice |" in text.tensor_proto.string_val[0]


@pytest.fixture
def mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    mlflow = pytest.importorskip("mlflow", reason="needs the extra mlflow")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri((tmp_path / "mlflow").as_uri())
    yield mlflow
    mlflow.end_run()
    mlflow.set_tracking_uri(before)


def test_mlflow_reads_the_scores(loaded: LoadedModel, tasks_folder: Path, tmp_path: Path, mlflow: Any) -> None:
    trials = search_twice(loaded, tasks_folder, tmp_path / "edit", "mlflow")
    client = mlflow.MlflowClient()
    second, first = client.search_runs(["0"], order_by=["attributes.start_time DESC"])
    for run, expected in ((first, trials[:2]), (second, trials)):
        history = client.get_metric_history(run.info.run_id, "score")
        assert sorted((each.step, each.value) for each in history) == [(trial.index, trial.score) for trial in expected]
        assert run.data.params["task"] == "own_choice" and run.info.status == "FINISHED"


def test_mlflow_logs_into_the_active_run(loaded: LoadedModel, tasks_folder: Path, mlflow: Any) -> None:
    with mlflow.start_run() as active:
        tune(loaded.model, loaded.tokenizer, CONFIG, budget=2, include_path=tasks_folder,
             callbacks=make_trackers(["mlflow"], Path()))  # fmt: skip  # as the calls above
        assert mlflow.active_run().info.run_id == active.info.run_id
    assert mlflow.get_run(active.info.run_id).data.metrics["evaluations"] == 2


def test_wandb_keeps_the_scores_offline(
    loaded: LoadedModel, tasks_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb", reason="needs the extra wandb")
    for name, value in {"MODE": "offline", "DIR": str(tmp_path), "SILENT": "true"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    logged: list[dict[str, Any]] = []
    log = wandb.sdk.wandb_run.Run.log

    def keep(run: Any, data: dict[str, Any]) -> None:
        logged.append({**run.config, **data})
        log(run, data)

    monkeypatch.setattr(wandb.sdk.wandb_run.Run, "log", keep)
    adapter = tune(
        loaded.model, loaded.tokenizer, CONFIG, budget=2, output_dir=tmp_path / "edit", include_path=tasks_folder,
        callbacks=make_trackers(["wandb"], tmp_path),
    )  # fmt: skip  # as the calls above
    assert [each["score"] for each in logged] == [trial.score for trial in read_trials(tmp_path / "edit")]
    assert wandb.run is None and adapter.provenance["trials"] == 2
    assert all("own_choice" in each.values() and "best_score" in each for each in logged)
    # A process of W&B fills the file, possibly after the run has ended, so its content is not read here.
    assert len(list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))) == 1


def test_resumed_trials_count_the_evaluations_that_each_cost() -> None:
    logged: list[float] = []

    class Kept(_Tracker):
        def begin(self, settings: Mapping[str, Any]) -> None: ...

        def log(self, step: int, scores: Mapping[str, float]) -> None:
            logged.append(scores["evaluations"])

    trials = [Trial(index, (0.5,), 0.0, "gradient", 0.0, 0.0) for index in range(4)]
    config = TaRotConfig("openings", objective="length:short")
    Kept().on_search_begin(config, model="model", budget=68, resumed=trials)
    assert logged == [17, 34, 51, 68]


def test_an_unknown_tracker_is_named() -> None:
    with pytest.raises(UnknownName, match="comet"):
        make_trackers(["comet"], Path())


@pytest.mark.parametrize("name", TRACKERS)
def test_a_missing_library_is_named_with_its_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(TarotError, match=rf"-e '\.\[{name}\]'"):
        make_trackers([name], Path())
