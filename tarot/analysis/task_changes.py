"""Changes by adapters on the tasks of a suite: edited minus base, one row an adapter."""

from collections.abc import Sequence
from dataclasses import dataclass

from tarot.edit.adapter import Adapter
from tarot.evaluation.evaluate import evaluate
from tarot.evaluation.lm_eval_results import check_scorable, logged_documents, read_answers
from tarot.evaluation.options import DEFAULT_OPTIONS, EvaluationOptions
from tarot.evaluation.results.comparison import Arm
from tarot.evaluation.statistics.gains import Gain, f1_gain, weighted_f1
from tarot.models.loaded_model import LoadedModel
from tarot.models.progress import OnStep, ignore_step
from tarot.objectives.tasks.task_loading import load_tasks

SUITE = "tarot_synthetic"


@dataclass(frozen=True)
class TaskChange:
    """Weighted F1 of the greedy answers to a task's documents, without and with the edit, and the paired gain.

    Attributes:
        base: score of the unedited model, a fraction.
        edited: score of the edited model.
        gain: edited minus base.
        without_number: rows of the documents for which one of the models computed NaN or infinity. That answer counts
            as wrong.
    """

    base: float
    edited: float
    gain: Gain
    without_number: tuple[int, ...] = ()


def measure_task_changes(
    loaded: LoadedModel,
    adapters: Sequence[Adapter],
    tasks: Sequence[str] = (SUITE,),
    options: EvaluationOptions = DEFAULT_OPTIONS,
    *,
    num_fewshot: int | None = None,
    apply_chat_template: bool = True,
    on_step: OnStep = ignore_step,
) -> list[dict[str, TaskChange]]:
    """Measure what each adapter changes on each task; the base model answers every document once.

    Returns:
        For each adapter its changes by the name of the task.

    Raises:
        TarotError: an adapter does not fit the model, no metric scores a task's answers, or `tarot.evaluate` raises it.

    Example:
        >>> loaded = tarot.load_model("wheel:smollm2-135m")
        >>> (changes,) = measure_task_changes(loaded, [adapter], ["synth_color"], EvaluationOptions(limit=20))
        >>> changes["synth_color"].gain.n
        20
    """
    for adapter in adapters:
        adapter.find_sites(loaded.model)  # raises, before the base model answers, if the adapter does not fit
    known = load_tasks(tasks, options.include_path)["tasks"]
    for task in known.values():
        check_scorable(task)

    def answer(adapter: Adapter | None) -> dict[str, tuple[tuple[int, ...], Arm]]:
        """Return the right answers and those of the model, by task."""
        results = evaluate(
            loaded.model,
            loaded.tokenizer,
            tasks,
            adapter=adapter,
            include_path=options.include_path,
            num_fewshot=num_fewshot,
            limit=options.limit,
            apply_chat_template=apply_chat_template,
            batch_size=options.batch_size,
            answers=options.answers,
        )
        return {name: read_answers(task, logged_documents(results, name)) for name, task in known.items()}

    n_passes = len(adapters) + 1
    on_step("answering tasks, unedited", 0, n_passes)
    base = answer(None)
    rows = []
    for done, adapter in enumerate(adapters, start=1):
        on_step(f"answering tasks, edit {done} of {len(adapters)}", done, n_passes)
        edited = answer(adapter) if adapter.angles.any() else base  # without angles the model is unedited
        rows.append({name: _task_change(*base[name], edited[name][1]) for name in known})
    return rows


def _task_change(gold: Sequence[int], base: Arm, edited: Arm) -> TaskChange:
    return TaskChange(
        weighted_f1(gold, base.greedy),
        weighted_f1(gold, edited.greedy),
        f1_gain(gold, base.greedy, edited.greedy),
        tuple(sorted({*base.without_number, *edited.without_number})),
    )
