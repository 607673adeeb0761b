"""Side effects of edits: changes on other tasks, and neutral text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tarot.analysis.neutral_text import NEUTRAL_TOKENS, neutral_text
from tarot.analysis.task_changes import SUITE, TaskChange, measure_task_changes
from tarot.analysis.trade_off import STRENGTHS, StrengthPoint, measure_trade_off
from tarot.arguments import require_strength, require_whole_number
from tarot.edit.adapter import Adapter
from tarot.evaluation.as_tuned import config_of
from tarot.evaluation.compare import check_fit
from tarot.evaluation.evaluate import check_tasks
from tarot.evaluation.lm_eval_results import check_scorable
from tarot.evaluation.options import EvaluationOptions
from tarot.models.loaded_model import LoadedModel
from tarot.models.progress import OnStep, ignore_step
from tarot.objectives.kind import ObjectiveKind
from tarot.objectives.tasks.task_loading import load_tasks


@dataclass(frozen=True)
class SideEffects:
    """Side effects of several adapters, by the name of the adapter.

    Attributes:
        fingerprints: the fingerprint of each.
        own_tasks: the task that each was tuned on.
        changes: the change of every task, by its name.
        curves: what each strength buys and costs.
    """

    fingerprints: Mapping[str, str]
    own_tasks: Mapping[str, str]
    changes: Mapping[str, Mapping[str, TaskChange]]
    curves: Mapping[str, Sequence[StrengthPoint]]


def measure_side_effects(
    loaded: LoadedModel,
    adapters: Mapping[str, Adapter],
    tasks: Sequence[str] = (SUITE,),
    *,
    strengths: Sequence[float] = STRENGTHS,
    n_tokens: int = NEUTRAL_TOKENS,
    seed: int = 0,
    include_path: str | Path | None = None,
    limit: int | float | None = None,
    batch_size: int | None = None,
    answers: str | Path | None = None,
    on_step: OnStep = ignore_step,
) -> SideEffects:
    """Measure what each adapter changes on every task, without shots, and what each strength buys and costs.

    Prompts are rendered as chats if all adapters were tuned on chats.

    Args:
        loaded: model and tokenizer; unchanged afterwards.
        adapters: the edits by name.
        tasks: names of tasks, groups or tags; the adapters' own tasks are added, except for those tuned for a reward.
        strengths: factors of the angles, 0 to 1.
        n_tokens: least number of tokens of neutral text.
        seed: random seed of the neutral text.
        include_path: folder of further task files.
        limit: number or fraction of each task's documents, the first ones; None for all.
        batch_size: most sequences of a forward pass; None to choose it automatically.
        answers: file that stores the answers to the tasks, as for `tarot.evaluate`.
        on_step: shows the progress.

    Raises:
        TarotError: a strength is out of range, an adapter has no recipe or does not fit the model, no metric scores a
            task's answers, or `tarot.evaluate` raises it.

    Example:
        >>> loaded = tarot.load_model("wheel:smollm2-135m")
        >>> adapters = {"mine": adapter}
        >>> effects = measure_side_effects(loaded, adapters, ["synth_implicatives"], n_tokens=100, limit=4)
        >>> effects.curves["mine"][-1].drift.kl.value >= 0
        True
    """
    suite = check_side_effects(
        adapters, tasks, strengths=strengths, n_tokens=n_tokens, include_path=include_path, limit=limit
    )
    check_fit(loaded, adapters.values())
    own_tasks = {name: config_of(adapter).task for name, adapter in adapters.items()}
    options = EvaluationOptions(include_path, limit, batch_size, answers)
    text = neutral_text(loaded, n_tokens, seed, batch_size, on_step)
    rows = measure_task_changes(
        loaded,
        list(adapters.values()),
        suite,
        options,
        num_fewshot=0,
        apply_chat_template=all(config_of(adapter).apply_chat_template for adapter in adapters.values()),
        on_step=on_step,
    )
    curves = {
        name: measure_trade_off(loaded, adapter, text, strengths, options, on_step)
        for name, adapter in adapters.items()
    }
    fingerprints = {name: adapter.fingerprint for name, adapter in adapters.items()}
    return SideEffects(fingerprints, own_tasks, dict(zip(adapters, rows, strict=True)), curves)


def check_side_effects(
    adapters: Mapping[str, Adapter],
    tasks: Sequence[str] = (SUITE,),
    *,
    strengths: Sequence[float] = STRENGTHS,
    n_tokens: int = NEUTRAL_TOKENS,
    include_path: str | Path | None = None,
    limit: int | float | None = None,
) -> list[str]:
    """Check everything of `measure_side_effects` that needs no model.

    Returns:
        The tasks by name, with the adapters' own; the texts of a reward have no right answers.

    Raises:
        TarotError: see `measure_side_effects`.
    """
    for strength in strengths:
        require_strength(strength)
    require_whole_number("n_tokens", n_tokens, least=1)
    configs = [config_of(adapter) for adapter in adapters.values()]
    own_tasks = [config.task for config in configs if config.kind is not ObjectiveKind.REWARD]
    suite = list(dict.fromkeys([*load_tasks(tasks, include_path)["tasks"], *own_tasks]))
    for task in check_tasks(suite, include_path=include_path, limit=limit):
        check_scorable(task)
    return suite
