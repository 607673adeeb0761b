"""Compare base, few-shot and edited answers on the same held-out documents."""

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from reprlib import repr as short
from typing import Any

from lm_eval.api.task import Task
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tarot.arguments import require_function, require_mapping, require_names, require_path, require_whole_number
from tarot.edit.adapter import Adapter
from tarot.errors import InvalidValueError, TarotError
from tarot.evaluation.arms import Arms, BaseAnswers, LoggedAnswers
from tarot.evaluation.as_tuned import (
    check_as_tuned,
    config_of,
    edit_settings,
    evaluation_shots,
    kept_limit,
    tuning_samples,
)
from tarot.evaluation.baselines.requirements import check_requirements
from tarot.evaluation.baselines.setting import Setting
from tarot.evaluation.command import edited_folder, not_repeated, repeat_command
from tarot.evaluation.cost.reference_workload import describe_machine, time_reference_workload
from tarot.evaluation.held_out import held_out_of
from tarot.evaluation.in_context import labelled_documents
from tarot.evaluation.lm_eval_results import (
    check_scorable,
    choice_texts,
    question_text,
    read_answers,
)
from tarot.evaluation.options import EvaluationOptions
from tarot.evaluation.results.comparison import EDITED, FEW_SHOT_SHOTS, Comparison
from tarot.models.batch_size import parse_batch_size
from tarot.models.evaluation_mode import in_evaluation_mode
from tarot.models.loaded_model import LoadedModel
from tarot.models.progress import OnStep, ignore_step
from tarot.objectives.kind import ObjectiveKind
from tarot.objectives.tasks.documents import Doc, check_answers, document_key
from tarot.objectives.tasks.shots import resolve_num_fewshot
from tarot.objectives.tasks.task_loading import load_task
from tarot.search.provenance import library_versions


@in_evaluation_mode
def compare(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    adapter: Adapter | str | Path,
    *,
    num_fewshot: int = FEW_SHOT_SHOTS,
    limit: int | float | None = None,
    include_path: str | Path | None = None,
    controls: Mapping[str, Adapter | str | Path] | None = None,
    draws: int = 0,
    baselines: str | Sequence[str] = (),
    curves: Mapping[str, Sequence[float]] | None = None,
    trade_off: Sequence[tuple[float, float]] = (),
    base_answers: BaseAnswers | None = None,
    logged: LoggedAnswers | None = None,
    batch_size: int | str | None = None,
    answers: str | Path | None = None,
    on_arm: OnStep = ignore_step,
) -> Comparison:
    """Answer the held-out documents of the adapter's task with the base model, few-shot prompting and the edit.

    The edited model gets prompts with as many shots as the adapter was tuned on (none for `mix`), and its base the same
    prompts. So the base is the arm "zero-shot", or for an adapter tuned on k shots the arm "few-shot" with k shots. For
    an adapter tuned without shots, the arm "few-shot" shows the first `num_fewshot` of the adapter's own labelled
    samples. Tasks with choices have the arms "zero-shot calibrated" and "few-shot calibrated" too: the same answers
    after contextual calibration.

    Args:
        model: a causal language model; unchanged afterwards.
        tokenizer: the model's tokenizer.
        adapter: what `tarot.tune` returned, or the folder or hub id of a saved adapter.
        num_fewshot: shots of the few-shot arm, if the adapter was tuned without shots.
        limit: only the first documents: a number, or a fraction below 1.
        include_path: folder of further task files.
        controls: other edits to compare with, or their folders or hub ids, by the name of their arm.
        draws: number of further draws of the shots and their order: arms "few-shot 1 of 5 (best)" to "few-shot 5 of 5
            (worst)", ranked by right greedy answers. Each takes about as long as the edited arm.
        baselines: methods to beat, one or several names in `tarot.evaluation.baselines.registry.BASELINES`: an arm
            each, with the same labels, documents, budget and early stopping.
        curves: score after each evaluation of the searches, by name, for reports.
        trade_off: divergence and score of the trials of a search under a limit, for reports.
        base_answers: answers of unedited models from earlier calls; looked up, and extended.
        logged: receives each arm's documents, with the prompts and the log-probability of each choice.
        batch_size: largest number of sequences in one pass; None or `auto` chooses it.
        answers: file that stores the answers as they come, so that a later call does not repeat them; baselines are
            measured again.
        on_arm: called before each arm is measured, with its name, its number from 1, and how many there are.

    Raises:
        UnknownName: no such baseline.
        TarotError: an adapter that does not record how it was tuned, or does not fit the model; a control tuned with
            other labels, prompts or budget than the adapter; other data than the adapter was tuned on; draws of no
            shots; a baseline that does not fit the task; or a task whose answers are not right or wrong.

    Example:
        >>> comparison = tarot.compare(model, tokenizer, adapter, limit=8)
        >>> comparison.gain("greedy_f1").n
        8
    """
    started = time.perf_counter()
    loaded = LoadedModel.from_objects(model, tokenizer)
    adapter, others = Adapter.resolve(adapter), _resolve_controls(controls)
    baselines, batch_size = require_names("baselines", baselines), parse_batch_size(batch_size)
    include_path, answers = require_path("include_path", include_path), require_path("answers", answers)
    require_function("on_arm", on_arm)
    require_mapping("base_answers", base_answers)
    require_mapping("logged", logged)
    curves, trade_off = _read_curves(curves, trade_off)
    task, labelled, n_shots = check_compare(
        adapter,
        controls=others.values(),
        num_fewshot=num_fewshot,
        draws=draws,
        baselines=baselines,
        include_path=include_path,
        limit=limit,
    )
    check_fit(loaded, [adapter, *others.values()])
    config, held_out = config_of(adapter), held_out_of(adapter)
    own_shots = evaluation_shots(config)

    options = EvaluationOptions(include_path, limit, batch_size)
    setting = Setting(loaded, config, task, labelled, n_shots, _budget(adapter), options)
    arms = Arms(setting, adapter, others, draws, baselines, base_answers, answers)
    reference_times = time_reference_workload()
    measured = {each.arm.name: each for each in arms.measure(on_arm)}
    if logged is not None:
        logged.update((name, timed.documents) for name, (_, timed) in measured.items())
    edited = measured[EDITED].timed
    gold, _ = read_answers(task, edited.documents)
    docs = list(islice(task.eval_docs, len(gold)))
    reference_times += time_reference_workload()
    return Comparison(
        model=loaded.reference,
        task=config.task,
        num_fewshot=own_shots,
        seed=config.seed,
        samples=config.num_samples,
        budget=_budget(adapter),
        search=config.search,
        space=config.space,
        objective=config.objective,
        command=repeat_command(
            loaded,
            adapter,
            num_fewshot=n_shots,
            draws=draws,
            baselines=baselines,
            limit=limit,
            include_path=include_path,
            controls=list(others.values()),
        ),
        settings=edit_settings(adapter),
        not_repeated=not_repeated(adapter),
        description=edited.description,
        dtype=loaded.dtype,
        keys=tuple(document_key(task, doc) for doc in docs),
        gold=gold,
        texts=tuple(question_text(task, doc) for doc in docs),
        arms=tuple(arm for arm, _ in measured.values()),
        seconds=round(time.perf_counter() - started, 3),
        reference_seconds=min(reference_times),
        adapter=adapter.fingerprint,
        mixed=config.num_fewshot == "mix",
        layers=adapter.edit.layers,
        head_angles=tuple(tuple(round(float(a), 6) for a in row) for row in adapter.angles.square().mean(-1).sqrt()),
        curves=curves,
        versions=library_versions(),
        choices=choice_texts(task, edited.documents),
        date=datetime.now(UTC).date().isoformat(),
        machine=describe_machine(loaded.model.device),
        reference_times=reference_times,
        n_angles=int(adapter.angles.count_nonzero()),
        trade_off=trade_off,
        max_kl=kept_limit(adapter),
        held_out=held_out,
        include_path=str(include_path or ""),
        folder=edited_folder(adapter),
    )


def check_compare(
    adapter: Adapter,
    *,
    controls: Iterable[Adapter] = (),
    num_fewshot: int = FEW_SHOT_SHOTS,
    draws: int = 0,
    baselines: str | Sequence[str] = (),
    include_path: str | Path | None = None,
    limit: int | float | None = None,
) -> tuple[Task, list[Doc], int]:
    """Check everything of `compare` that needs no model.

    Returns:
        The task as it is loaded, the labelled documents of the search, and the shots of the few-shot arm.

    Raises:
        UnknownName, TarotError: `compare` cannot measure what is asked, whatever the model.
    """
    config, draws = config_of(adapter), require_whole_number("draws", draws)
    if config.kind is ObjectiveKind.REWARD:
        raise TarotError(
            f"The adapter was tuned for the reward {config.objective!r}, and tarot.compare counts right answers.",
            hint="tarot.evaluation.compare_rewards.compare_rewards, or the command tarot compare, scores its texts",
        )
    expected = _tuning_conditions(adapter)
    for edit in (adapter, *controls):
        if (conditions := _tuning_conditions(edit)) != expected:
            raise TarotError(f"a control tuned as the edit was, on {expected}", conditions, "tune it with the same")
        check_as_tuned(edit, include_path=include_path, limit=limit)
    task = load_task(config.task, include_path)
    check_requirements(require_names("baselines", baselines), task, config)
    check_scorable(task)
    check_answers(task)
    labelled = labelled_documents(task, tuning_samples(adapter))
    wanted = resolve_num_fewshot(task, require_whole_number("num_fewshot", num_fewshot))
    n_shots = evaluation_shots(config) or min(int(wanted), len(labelled))
    if draws and not n_shots:
        raise TarotError("shots to draw", "0 shots", "leave the draws out")
    return task, labelled, n_shots


def check_fit(loaded: LoadedModel, edits: Iterable[Adapter]) -> None:
    """Raise TarotError for an edit that does not fit the model, before minutes of work."""
    for edit in edits:
        edit.find_sites(loaded.model)


def _resolve_controls(controls: Mapping[str, Adapter | str | Path] | None) -> dict[str, Adapter]:
    require_mapping("controls", controls)
    return {name: Adapter.resolve(control) for name, control in (controls or {}).items()}


def _read_curves(
    curves: Mapping[str, Sequence[float]] | None, trade_off: Sequence[tuple[float, float]]
) -> tuple[dict[str, tuple[float, ...]], tuple[tuple[float, float], ...]]:
    """Return what a report draws of the searches; InvalidValueError if that is no numbers."""
    require_mapping("curves", curves)
    try:
        return (
            {str(name): tuple(map(float, curve)) for name, curve in (curves or {}).items()},
            tuple((float(kl), float(score)) for kl, score in trade_off),
        )
    except (TypeError, ValueError):
        raise InvalidValueError(
            f"curves must be scores by name, and trade_off pairs of divergence and score, not {short(curves)} and "
            f"{short(trade_off)}."
        ) from None


def _tuning_conditions(adapter: Adapter) -> str:
    """Describe what an adapter and its controls must share, for their arms to be comparable."""
    config = config_of(adapter)
    samples = f"{config.num_samples} samples of {config.task}, {config.num_fewshot} shots"
    prompts = "with the chat template" if config.apply_chat_template else "without chat template"
    return f"{samples}, {prompts}, seed {config.seed}, budget {_budget(adapter)}"


def _budget(adapter: Adapter) -> int:
    """Return the evaluations of all samples that an edit was allowed, with those of cross-validation."""
    budget: Any = adapter.provenance["budget"]  # `config_of` checks that there is one
    # Either half is allowed as many evaluations as the search, each of half of the samples.
    return int(budget) * (2 if config_of(adapter).cross_validate else 1)
