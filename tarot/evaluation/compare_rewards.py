"""Compare the texts of base and edited model on the same held-out documents, scored by a reward."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from lm_eval.api.task import Task

from tarot.edit.adapter import Adapter
from tarot.errors import TarotError, describe_missing_numbers
from tarot.evaluation.arms import LoggedAnswers
from tarot.evaluation.as_tuned import check_as_tuned, config_of, evaluate_as_tuned
from tarot.evaluation.command import edited_folder, not_repeated, repeat_command
from tarot.evaluation.compare import check_fit
from tarot.evaluation.cost.reference_workload import describe_machine
from tarot.evaluation.held_out import held_out_of
from tarot.evaluation.lm_eval_results import logged_documents, question_text
from tarot.evaluation.options import EvaluationOptions
from tarot.evaluation.results.reward_comparison import RewardComparison
from tarot.evaluation.reward_metrics import score_logged_texts, unscored_rows
from tarot.evaluation.statistics.means import difference
from tarot.models.loaded_model import LoadedModel
from tarot.models.missing_numbers import BROKEN_MODEL_HINT
from tarot.models.progress import OnStep, ignore_step
from tarot.objectives.generated import check_generates
from tarot.objectives.rewards.registry import check_reward, is_reward, refuse_unrequested
from tarot.objectives.rewards.text_scores import TextScores
from tarot.search.pareto import pareto_front
from tarot.search.provenance import library_versions


def compare_rewards(
    loaded: LoadedModel,
    adapter: Adapter,
    *,
    reward: str | None = None,
    include_path: str | Path | None = None,
    limit: int | float | None = None,
    batch_size: int | None = None,
    outcomes: Mapping[int, TextScores] | None = None,
    logged: LoggedAnswers | None = None,
    answers: str | Path | None = None,
    on_arm: OnStep = ignore_step,
) -> RewardComparison:
    """Generate texts for the held-out documents of the adapter's task with base and edited model, and score both.

    Both models generate from the same prompts and the same seed. `logged` receives the documents of `base` and `edited`
    as lm-eval logs them, with the prompts. `answers` is a file that stores the texts, as for `tarot.compare`.

    Raises:
        TarotError: the adapter was not tuned for a reward, or for one that runs code and was not requested; it does not
            fit the model; its task does not generate; or a text has no finite reward and fluency.

    Example:
        >>> loaded = tarot.load_model("wheel:smollm2-135m")
        >>> compare_rewards(loaded, adapter, limit=20).gain.n
        20
    """
    name, task = check_compare_rewards(adapter, reward, include_path=include_path, limit=limit)
    check_fit(loaded, [adapter])
    config, held_out = config_of(adapter), held_out_of(adapter)
    options = EvaluationOptions(include_path, limit, batch_size, answers)

    both = []
    for number, (arm, edit) in enumerate((("base", None), ("edited", adapter)), start=1):
        on_arm(arm, number, 2)
        both.append(evaluate_as_tuned(loaded, config, edit, options))
    if logged is not None:
        logged.update(zip(("base", "edited"), (logged_documents(each, config.task) for each in both), strict=True))
    base, edited = (score_logged_texts(loaded, results, config.task, name) for results in both)
    for side, texts in (("unedited", base), ("edited", edited)):
        if broken := unscored_rows(texts):
            expected = f"finite rewards and fluencies of the {side} model's texts for {config.task}"
            raise TarotError(expected, describe_missing_numbers(broken, len(texts.texts)), BROKEN_MODEL_HINT)
    return RewardComparison(
        model=loaded.reference,
        task=config.task,
        reward=name,
        seed=config.seed,
        adapter=adapter.fingerprint,
        prompts=tuple(question_text(task, document["doc"]) for document in logged_documents(both[0], config.task)),
        base=base,
        edited=edited,
        gain=difference(base.rewards, edited.rewards),
        fluency_gain=difference(base.fluencies, edited.fluencies),
        outcomes=dict(outcomes or {}),
        front=tuple(pareto_front(outcomes or {})),
        command=repeat_command(loaded, adapter, limit=limit, include_path=include_path, reward=reward),
        not_repeated=not_repeated(adapter),
        versions=library_versions(),
        date=datetime.now(UTC).date().isoformat(),
        machine=describe_machine(loaded.model.device),
        held_out=held_out,
        dtype=loaded.dtype,
        include_path=str(include_path or ""),
        folder=edited_folder(adapter),
    )


def check_compare_rewards(
    adapter: Adapter,
    reward: str | None,
    *,
    include_path: str | Path | None = None,
    limit: int | float | None = None,
) -> tuple[str, Task]:
    """Check everything of `compare_rewards` that needs no model; return the reward's name and the task."""
    name = reward_of(adapter, reward)
    task = check_as_tuned(adapter, include_path=include_path, limit=limit)
    check_generates(task, name)
    return name, task


def reward_of(adapter: Adapter, requested: str | None) -> str:
    """Return the reward that the user requests, else the one that the adapter was tuned for.

    Raises:
        UnknownName: no such reward.
        TarotError: the adapter was tuned for no reward, or for one that runs code.
    """
    tuned_for = config_of(adapter).objective
    if requested is None:
        refuse_unrequested(tuned_for, "an adapter")
    if not is_reward(name := requested or tuned_for):
        raise TarotError("an adapter tuned for a reward", f"one tuned for {name}", "give --reward")
    check_reward(name)
    return name
