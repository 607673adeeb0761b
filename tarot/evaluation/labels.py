"""Labelled documents that the arms of a comparison see: samples of the search, and shots of all prompts."""

from pathlib import Path
from typing import NamedTuple

from tarot.evaluation.as_tuned import evaluation_shots
from tarot.evaluation.evaluate import n_evaluated
from tarot.models.offline import quiet_loggers
from tarot.objectives.tasks.documents import question_part
from tarot.objectives.tasks.samples import draw_samples, render_evaluation_documents
from tarot.objectives.tasks.task_loading import load_task
from tarot.search.config import TaRotConfig


class Labels(NamedTuple):
    """Numbers of labelled documents that the base sees, and that an edited model and its search see."""

    base: int
    edited: int


def count_labels(
    config: TaRotConfig, include_path: str | Path | None = None, limit: int | float | None = None
) -> Labels:
    """Count the distinct labelled documents that stand in the prompts of a search and of an evaluation.

    lm-eval's default sampler draws other shots for each prompt, so every prompt is rendered to count them.

    Args:
        config: what the edit was tuned with.
        include_path: folder of further task files.
        limit: only the first documents are evaluated: a number, or a fraction below 1.

    Example:
        >>> count_labels(tarot.TaRotConfig("synth_color", num_samples=8, num_fewshot=2))
        Labels(base=2, edited=10)
    """
    if config.num_fewshot == 0:
        return Labels(0, config.num_samples)
    tuning: set[frozenset[str]] = set()
    evaluation: set[frozenset[str]] = set()
    with quiet_loggers("tarot"):  # the search and the evaluation log the same notes
        samples = draw_samples(
            load_task(config.task, include_path),
            config.num_samples,
            num_fewshot=config.num_fewshot,
            seed=config.seed,
            shown=tuning,
        )
        if shots := evaluation_shots(config):
            task = load_task(config.task, include_path)
            n = n_evaluated(task, limit)
            render_evaluation_documents(task, num_fewshot=shots, limit=n, shown=evaluation)
    shown = tuning | evaluation
    shown_keys = frozenset().union(*shown)
    not_shown = [sample for sample in samples if question_part(sample.key) not in shown_keys]
    return Labels(len(evaluation), len(shown) + len(not_shown))
