"""Evaluate base and edited models through lm-evaluation-harness."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

from lm_eval import evaluator
from lm_eval.api.task import Task
from lm_eval.defaults import DEFAULT_OTHER_SEED
from lm_eval.tasks.manager import TaskDict
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tarot.arguments import require_flag, require_names, require_path, require_whole_number
from tarot.edit.adapter import Adapter
from tarot.edit.fingerprint import weights_fingerprint
from tarot.edit.patch import is_patched
from tarot.errors import TarotError
from tarot.evaluation.baselines.edit import BaselineEdit
from tarot.evaluation.limit import check_limit
from tarot.models.answer_log import AnswerLog, LoggedAnswers
from tarot.models.evaluation_mode import in_evaluation_mode
from tarot.models.lm_eval_bars import hidden_bars
from tarot.models.lm_eval_model import TarotLM
from tarot.models.loaded_model import LoadedModel
from tarot.models.missing_numbers import record_missing_numbers
from tarot.models.offline import quiet_loggers
from tarot.objectives.tasks.prompts import get_chat_template
from tarot.objectives.tasks.shots import ShotPool, resolve_num_fewshot
from tarot.objectives.tasks.task_loading import load_tasks
from tarot.objectives.tasks.tuning_split import check_disjoint
from tarot.search.provenance import library_versions

RENDERED_FIRST = 10
"""Documents of a task whose prompts are rendered to check them, before a model is loaded."""
BOOTSTRAP_ROUNDS = 100
"""Rounds for the standard errors of other tasks' metrics; lm-eval's default of 100,000 takes minutes for f1."""


def prepare_tasks(
    tasks: Sequence[str],
    adapter: Adapter | BaselineEdit | None = None,
    *,
    include_path: str | Path | None = None,
    num_fewshot: int | None = None,
    limit: int | float | None = None,
) -> TaskDict:
    """Load tasks for an evaluation, and check everything that needs no model.

    Raises:
        UnknownName: no such task.
        TarotError: the adapter was tuned on a document that is evaluated; or a task has fewer documents than the
            requested shots, runs unsafe code, needs images or audio, or cannot render its first documents.
    """
    check_limit(limit)
    if num_fewshot is not None:
        num_fewshot = require_whole_number("num_fewshot", num_fewshot)
    selected = load_tasks(tasks, include_path)
    tuned_on = _tuning_keys(adapter)
    for task in selected["tasks"].values():
        check_disjoint(task, tuned_on)
        task.set_config("num_fewshot", resolve_num_fewshot(task, num_fewshot))
        _show_shots(task)
        _check_runs(task, limit)
        task.set_fewshot_seed(DEFAULT_OTHER_SEED)
    return selected


def check_tasks(
    tasks: Sequence[str],
    adapter: Adapter | BaselineEdit | None = None,
    *,
    include_path: str | Path | None = None,
    num_fewshot: int | None = None,
    limit: int | float | None = None,
) -> list[Task]:
    """Run the checks of `prepare_tasks` and return the tasks; commands call this before they load a model.

    The evaluation that follows logs the warnings.
    """
    with quiet_loggers("tarot"):
        selected = prepare_tasks(tasks, adapter, include_path=include_path, num_fewshot=num_fewshot, limit=limit)
    return list(selected["tasks"].values())


def n_evaluated(task: Task, limit: int | float | None) -> int:
    """Return how many documents of a task are evaluated, by lm-eval's rule: a fraction is rounded up."""
    n = len(task.eval_docs)
    if limit is None:
        return n
    return min(n, math.ceil(n * limit) if limit < 1 else int(limit))


def _check_runs(task: Task, limit: int | float | None) -> None:
    """Raise TarotError for a task that lm-eval refuses to run, or whose first prompts it cannot render."""
    name = task.config.task
    if getattr(task, "UNSAFE_CODE", False):
        hint = f"tarot lm-eval --confirm_run_unsafe_code --tasks {name} runs it"
        raise TarotError("a task without unsafe code", f"{name!r}, which sets unsafe_code", hint)
    if getattr(task, "MULTIMODAL", False):
        raise TarotError("a task of texts only", f"{name!r}, which needs images or audio", "choose another task")
    first = list(islice(task.eval_docs, min(n_evaluated(task, limit), RENDERED_FIRST)))
    if not first:
        raise TarotError(f"documents to evaluate in {name}", "none", "check its splits and filters")
    for row, doc in enumerate(first):
        context = task.fewshot_context(
            doc,
            num_fewshot=task.config.num_fewshot,
            system_instruction=None,
            apply_chat_template=False,
            fewshot_as_multiturn=True,
            chat_template=None,
            gen_prefix=task.doc_to_prefix(doc),
        )
        task.construct_requests(
            doc=doc,
            ctx=context,
            metadata=(name, row, task.config.repeats),
            apply_chat_template=False,
            chat_template=None,
        )
        task.doc_to_target(doc)


@in_evaluation_mode
def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: str | Sequence[str],
    *,
    adapter: Adapter | BaselineEdit | str | Path | None = None,
    include_path: str | Path | None = None,
    num_fewshot: int | None = None,
    limit: int | float | None = None,
    apply_chat_template: bool = True,
    batch_size: int | str | None = None,
    answers: str | Path | None = None,
) -> dict[str, Any]:
    """Evaluate a model, edited or not, on lm-eval tasks.

    Args:
        model: a causal language model; unchanged afterwards.
        tokenizer: the model's tokenizer.
        tasks: one or several names of tasks, groups or tags.
        adapter: the edit to measure, or its folder or hub id, or a baseline's edit; None for the base model. For
            another strength, `adapter.scaled(0.5)`.
        include_path: folder of further task files.
        num_fewshot: shots in each prompt; None for each task's own number.
        limit: evaluate only the first documents of each task: a number, or a fraction below 1.
        apply_chat_template: render prompts with the tokenizer's chat template, if there is one.
        batch_size: largest number of sequences in one pass; None or `auto` chooses it.
        answers: file that stores the model's answers as they come, so that a later call does not repeat them.

    Returns:
        lm-eval's results, with documents and answers under "samples", the adapter's fingerprint under "config", and the
        ids of documents without a number, by task, under "without_number". If `answers` had some of the answers,
        "earlier_seconds" is how long these took.

    Raises:
        UnknownName: no such task.
        TarotError: the adapter was tuned on a document that is evaluated, or does not fit the model; a task has fewer
            documents than the requested shots, runs unsafe code, or its own code raises; no document has a number.

    Example:
        >>> results = tarot.evaluate(model, tokenizer, "synth_color", adapter=adapter, limit=20)
        >>> results["n-samples"]["synth_color"]["effective"]
        20
        >>> 0 <= results["results"]["synth_color"]["acc,none"] <= 1
        True
    """
    loaded = LoadedModel.from_objects(model, tokenizer)
    edit = adapter if adapter is None or isinstance(adapter, BaselineEdit) else Adapter.resolve(adapter)
    names = require_names("tasks", tasks)
    include_path, answers = require_path("include_path", include_path), require_path("answers", answers)
    apply_chat_template = require_flag("apply_chat_template", apply_chat_template)
    selected = prepare_tasks(names, edit, include_path=include_path, num_fewshot=num_fewshot, limit=limit)
    lm = TarotLM(loaded.model, tokenizer=loaded.tokenizer, batch_size=batch_size)
    lm.reference = loaded.reference
    lm.fingerprint = edit.fingerprint if edit else "base"
    log = open_answers(answers, loaded, lm.fingerprint) if answers else None
    with edit.apply(loaded.model) if edit else nullcontext():
        results = run_lm_eval(lm, selected, limit=limit, apply_chat_template=apply_chat_template, log=log)
    # lm-eval's `simple_evaluate` adds these as well, but spends seconds on describing the machine.
    results["config"] = {
        "model": "tarot",
        "model_args": {"pretrained": loaded.reference},
        **lm.get_model_info(),
        "batch_size": lm.row_limit or "auto",
        "device": str(loaded.model.device),
        "limit": limit,
        "apply_chat_template": get_chat_template(lm, apply_chat_template) is not None,
        "fewshot_seed": DEFAULT_OTHER_SEED,
    }
    results["versions_of"] = library_versions()
    return results


def open_answers(path: str | Path, loaded: LoadedModel, fingerprint: str) -> AnswerLog:
    """Open a file of answers for a model with an edit of that fingerprint; several edits may share the file.

    Open it before the edit: the answers of a model that is edited by other means would be taken for the base's.

    Raises:
        TarotError: the file cannot be read, or the model has an open edit.
    """
    if is_patched(loaded.model):
        raise TarotError(
            "The model has an open edit, and a file of answers cannot tell which.",
            hint="pass the edit as adapter=, or leave answers= out",
        )
    model = [loaded.reference, str(loaded.model.dtype), weights_fingerprint(loaded.model), fingerprint]
    return AnswerLog(Path(path), " ".join([*model, *library_versions().values()]))


def run_lm_eval(
    lm: TarotLM,
    selected: TaskDict,
    *,
    limit: int | float | None,
    apply_chat_template: bool,
    log: AnswerLog | None = None,
) -> dict[str, Any]:
    """Run lm-eval on a model as it stands, and record which documents have no number.

    Args:
        lm: the model.
        selected: the tasks.
        limit: only the first documents: a number, or a fraction below 1.
        apply_chat_template: render prompts with the tokenizer's chat template, if there is one.
        log: earlier answers, which are not computed again; receives the new ones.

    Raises:
        TarotError: lm-eval or a task's own code raises, or no document has a number.
    """
    answering: Any = LoggedAnswers(lm, log) if log else lm
    aggregated: list[str] = []
    for name, task in selected["tasks"].items():
        task.aggregation = _recording(name, task.aggregation, aggregated)
    try:
        with quiet_loggers("lm_eval.api.task"), hidden_bars():
            results: dict[str, Any] = evaluator.evaluate(
                answering,
                selected,
                limit=limit,
                apply_chat_template=get_chat_template(lm, apply_chat_template) is not None,
                fewshot_as_multiturn=True,
                bootstrap_iters=BOOTSTRAP_ROUNDS,
            )
    except TarotError:
        raise
    except (Exception, SystemExit) as error:
        names = aggregated[-1:] or selected["tasks"]
        step = "aggregate the metrics of" if aggregated else "evaluate"
        failure = f"lm-eval failed to {step} {', '.join(names)}"
        raise TarotError(f"{failure}: {type(error).__name__}: {error}", hint="check the task file") from error
    record_missing_numbers(results, lm.unanswered)
    if log and log.earlier_seconds:
        results["earlier_seconds"] = round(log.earlier_seconds, 3)
    return results


def _recording(name: str, run: Callable[[], Any], names: list[str]) -> Callable[[], Any]:
    """Return a function that appends a name to a list and then calls `run`."""

    def recording() -> Any:
        names.append(name)
        return run()

    return recording


def _show_shots(task: Task) -> None:
    """Keep evaluated documents out of a task's shots, and record how many there are."""
    if not (shots := task.config.num_fewshot):
        return
    pool = ShotPool(task)
    if not 0 <= shots <= pool.max_shots:
        raise TarotError(
            f"0 to {pool.max_shots} shots, the documents that {task.config.task} has for them",
            str(shots),
            f"{pool.left_out} more are also evaluated" if pool.left_out else "",
        )
    pool.show()
    task.set_config("metadata", {**(task.config.metadata or {}), "shots_left_out": pool.left_out})


def _tuning_keys(edit: Adapter | BaselineEdit | None) -> list[str]:
    """Return the keys of the documents that an edit was tuned on."""
    samples = edit.provenance.get("samples_drawn") if edit else None
    if not isinstance(samples, list):
        return []
    return [sample["key"] for sample in samples if isinstance(sample, Mapping)]
