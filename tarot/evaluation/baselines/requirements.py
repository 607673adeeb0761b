"""Requirements of baselines on a task and its labels, checked before a model is loaded or a search begins."""

from collections.abc import Iterable

from lm_eval.api.task import Task

from tarot.errors import InvalidValueError
from tarot.evaluation.baselines.registry import BASELINES, check_baselines
from tarot.evaluation.in_context import can_calibrate
from tarot.objectives.answers import ANSWER_SCORES
from tarot.objectives.tasks.shots import forbids_shots
from tarot.search.config import TaRotConfig

LEAST_SAMPLES = {"best-shots": 2, "iti": 2}
"""Labelled documents: some to choose or fit on, others to judge by."""


def check_requirements(names: Iterable[str], task: Task, config: TaRotConfig) -> None:
    """Raise InvalidValueError for a baseline that cannot run beside an edit, whatever the model.

    Args:
        names: of the baselines.
        task: the edit's task as it was loaded.
        config: what the edit is tuned with.

    Raises:
        UnknownName: no such baseline.
        TarotError: a baseline is named twice, or needs a package that is not installed.

    Example:
        >>> from tarot.objectives.tasks.task_loading import load_task
        >>> check_requirements(["caa", "lora"], load_task("synth_color"), TaRotConfig("synth_color"))
    """
    names = list(names)
    check_baselines(names)
    for name in names:
        if reason := _obstacle(name, task, config):
            raise InvalidValueError(f"The baseline {name} cannot be measured: {reason}.", hint="leave it out")


def _obstacle(name: str, task: Task, config: TaRotConfig) -> str:
    """Return why a baseline cannot run; "" if it can run."""
    if config.num_samples < LEAST_SAMPLES.get(name, 1):
        return f"it needs at least {LEAST_SAMPLES[name]} labelled samples"
    if not BASELINES[name].changes_model:
        if forbids_shots(task):
            return f"{config.task} sets num_fewshot: 0"
        if name == "batch-calibration" and not can_calibrate(task):
            return f"{config.task} does not choose between answers to one question"
        return ""
    answer_score = ANSWER_SCORES.get(config.objective)
    if answer_score is None:
        return f"the edit was tuned for {config.objective}, not on labelled answers"
    if BASELINES[name].module == "steering":
        return "" if task.OUTPUT_TYPE == "multiple_choice" else f"{config.task} has no wrong answers"
    return "" if answer_score.is_differentiable else f"the objective {config.objective} has no gradient"
