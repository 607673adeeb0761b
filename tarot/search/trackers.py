"""Callbacks that show a search in TensorBoard, MLflow or W&B, each through its own library.

The libraries are optional, and imported when a tracker is made. Where they write follows their own settings, such as
`MLFLOW_TRACKING_URI`, `WANDB_PROJECT` and `WANDB_MODE=offline`. All three get the configuration, and after each trial
the scores: step N is trial N.
"""

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tarot.arguments import Registry
from tarot.edit.adapter import Adapter
from tarot.errors import import_package
from tarot.search.algorithms.registry import SEARCHES
from tarot.search.callbacks import Callback
from tarot.search.config import TaRotConfig
from tarot.search.loop import SearchResult
from tarot.search.trials import Trial, best_of

Scores = Mapping[str, float]


class _Tracker(Callback):
    """Base of the trackers: a run that begins with the settings, gets the scores of each trial, and ends."""

    def on_search_begin(self, config: TaRotConfig, *, model: str, budget: int, resumed: Sequence[Trial]) -> None:
        """Begin a run; it gets the trials of a resumed log too."""
        self.begin({"model": model, "budget": budget, **config.to_dict()})
        for n, trial in enumerate(resumed, start=1):
            self.log(trial.index, _scores(trial, best_of(resumed[:n]), n * SEARCHES[config.search].trial_cost))

    def on_trial(self, trial: Trial, result: SearchResult) -> None:
        """Log the scores of a trial."""
        self.log(trial.index, _scores(trial, result.best, result.spent))

    def on_search_end(self, adapter: Adapter | None) -> None:
        """End the run; it counts as failed if there is no adapter."""
        self.end(failed=adapter is None)

    def begin(self, settings: Mapping[str, Any]) -> None:
        raise NotImplementedError

    def log(self, step: int, scores: Scores) -> None:
        raise NotImplementedError

    def end(self, *, failed: bool) -> None:
        raise NotImplementedError


class TensorBoardCallback(_Tracker):
    """Write a search as TensorBoard events; needs the extra `tensorboard`.

    Args:
        log_dir: folder of the events; None for TensorBoard's own, `runs/DATE_HOST`.

    Raises:
        TarotError: TensorBoard is not installed.

    Example:
        >>> config = tarot.TaRotConfig("synth_color", num_samples=8)
        >>> tracker = TensorBoardCallback("events")
        >>> adapter = tarot.tune(model, tokenizer, config, budget=6, callbacks=[tracker])
        >>> [path.name[:6] for path in Path("events").iterdir()]
        ['events']
    """

    def __init__(self, log_dir: str | Path | None = None) -> None:
        import_package("tensorboard", "The tracker tensorboard", "tensorboard")
        self.log_dir = log_dir

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Open the file of events, with the settings as a table."""
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(None if self.log_dir is None else str(self.log_dir))
        rows = "\n".join(f"| {name} | {value} |" for name, value in settings.items())
        self.writer.add_text("settings", f"| setting | value |\n|---|---|\n{rows}")

    def log(self, step: int, scores: Scores) -> None:
        """Write each score as a scalar."""
        for name, score in scores.items():
            self.writer.add_scalar(name, score, step)

    def end(self, *, failed: bool) -> None:
        """Close the file."""
        self.writer.close()


class MLflowCallback(_Tracker):
    """Log a search as a run of MLflow; needs the extra `mlflow`.

    It logs into the active run and leaves that open, or else begins and ends a run of its own.

    Raises:
        TarotError: MLflow is not installed.
    """

    def __init__(self) -> None:
        self.mlflow = import_package("mlflow", "The tracker mlflow", "mlflow")

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Begin a run, unless one is active, and log the settings as its parameters."""
        self.owns_run = self.mlflow.active_run() is None
        if self.owns_run:
            self.mlflow.start_run(run_name=f"tarot {settings['task']}")
        self.mlflow.log_params(dict(settings))

    def log(self, step: int, scores: Scores) -> None:
        """Log the scores as metrics."""
        self.mlflow.log_metrics(dict(scores), step=step)

    def end(self, *, failed: bool) -> None:
        """End the run, if it is this callback's own."""
        if self.owns_run:
            self.mlflow.end_run("FAILED" if failed else "FINISHED")


class WandbCallback(_Tracker):
    """Log a search as a run of Weights & Biases; needs the extra `wandb`.

    It logs into the active run and leaves that open, or else begins and ends a run of its own, in the project `tarot`
    unless `WANDB_PROJECT` names another.

    Raises:
        TarotError: the library wandb is not installed.
    """

    def __init__(self) -> None:
        self.wandb = import_package("wandb", "The tracker wandb", "wandb")

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Begin a run, unless one is active, and keep the settings as its configuration."""
        self.owns_run = self.wandb.run is None
        project = os.environ.get("WANDB_PROJECT", "tarot")
        self.run = self.wandb.init(project=project) if self.owns_run else self.wandb.run
        self.run.config.update(dict(settings))

    def log(self, step: int, scores: Scores) -> None:
        """Log the scores."""
        # An active run may have passed this step, so the trial is a value and not W&B's own step.
        self.run.log({"trial": step, **scores})

    def end(self, *, failed: bool) -> None:
        """End the run, if it is this callback's own."""
        if self.owns_run:
            self.run.finish(exit_code=int(failed))


TRACKERS: Registry[Callable[[Path], Callback]] = Registry(
    "tracker",
    {
        "tensorboard": lambda folder: TensorBoardCallback(folder / "tensorboard"),
        "mlflow": lambda folder: MLflowCallback(),
        "wandb": lambda folder: WandbCallback(),
    },
)
"""How to make each tracker for a search that writes to a folder."""


def make_trackers(names: Iterable[str], folder: Path) -> list[Callback]:
    """Return the trackers of these names, for a search that writes to a folder.

    Raises:
        UnknownName: no tracker has this name.
        TarotError: the library of one is not installed.

    Example:
        >>> make_trackers(["tensorbord"], Path("my-edit"))
        Traceback (most recent call last):
        ...
        tarot.errors.UnknownName: expected a known tracker, got 'tensorbord'; did you mean 'tensorboard'?
    """
    makers = [TRACKERS[name] for name in names]
    return [make(folder) for make in makers]


def _scores(trial: Trial, best: Trial, spent: int) -> Scores:
    """Return what a tracker shows of a trial; numbers that are not finite are left out, as MLflow refuses them."""
    scores = {
        "score": trial.score,
        "best_score": best.score,
        "evaluations": float(spent),
        "propose_seconds": trial.propose_seconds,
        "evaluate_seconds": trial.evaluate_seconds,
    }
    return {name: score for name, score in scores.items() if math.isfinite(score)}
