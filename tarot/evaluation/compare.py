"""Base, in-context and edited answers to the same documents: from lm-eval's results to the plain data of a cell."""

import time
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from operator import eq
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.task import Task
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tarot.edit.adapter import Adapter
from tarot.errors import TarotError
from tarot.evaluation import in_context as icl
from tarot.evaluation.as_tuned import config_of, tuning_samples
from tarot.evaluation.command import not_repeated, repeat_command
from tarot.evaluation.evaluate import check_tasks, evaluate
from tarot.evaluation.lm_eval_results import (
    LoggedDocument,
    check_scorable,
    logged_documents,
    question_text,
    read_answers,
)
from tarot.evaluation.results import EDITED, FEW_SHOT, ZERO_SHOT, Arm, Comparison
from tarot.models.loaded_model import LoadedModel
from tarot.objectives.documents import check_answers, document_key
from tarot.objectives.samples import MIXED_SHOTS
from tarot.objectives.shots import resolve_num_fewshot
from tarot.objectives.task_loading import load_task
from tarot.search.provenance import LIBRARIES

# Documents as lm-eval logged them, and the seconds that their answers took.
TimedDocuments = tuple[list[LoggedDocument], float]


def check_compare(
    adapter: Adapter,
    *,
    shots: int,
    draws: int = 0,
    include_path: str | Path | None = None,
    limit: int | None = None,
) -> None:
    """Raise what `compare` would raise that can be known without a model; arguments as for `compare`."""
    config = config_of(adapter)
    own = config.num_fewshot if isinstance(config.num_fewshot, int) else 0
    for task in check_tasks([config.task], adapter, include_path=include_path, num_fewshot=own, limit=limit):
        check_scorable(task)
        icl.labelled_documents(task, tuning_samples(adapter))
    if draws and not (own or shots):
        raise TarotError("shots to draw", "0 shots", "leave the draws out")


def time_reference_workload() -> float:
    """Seconds of a fixed matrix product, to express times of one session in those of another: the least of three."""
    times = []
    for _ in range(3):
        a = torch.ones(512, 512)
        started = time.perf_counter()
        for _ in range(10):
            a = (a @ a).clamp(-1, 1)
        times.append(time.perf_counter() - started)
    return min(times)


def compare(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    adapter: Adapter | str | Path,
    *,
    shots: int = 6,
    include_path: str | Path | None = None,
    limit: int | None = None,
    batch_size: int | None = None,
    curves: Mapping[str, Sequence[float]] | None = None,
    controls: Mapping[str, Adapter] | None = None,
    draws: int = 0,
    known: MutableMapping[tuple[object, ...], TimedDocuments] | None = None,
) -> Comparison:
    """Answer the documents that the adapter's task evaluates: unedited, with labels in the prompt, and edited.

    The edited model sees prompts of as many shots as it was tuned on (none for `mix`). Its base sees the same ones: it
    is the arm "zero-shot", or for an adapter tuned on k shots the arm "few-shot", which then has these k. Else that
    arm's shots are the first `shots` of the labelled samples that the search was given. "zero-shot calibrated" and
    "few-shot calibrated" are the same answers after contextual calibration, for tasks that choose.

    Args:
        model: a causal language model; unchanged afterwards.
        tokenizer: the model's tokenizer.
        adapter: what `tarot.tune` returned, or the folder or hub id of a saved one.
        shots: of the few-shot arm of an adapter tuned without.
        include_path: folder of further task files.
        limit: only the first documents.
        batch_size: most sequences of one pass; None leaves it to us.
        curves: scores of each search's trials, for pictures.
        controls: other edits by name, such as that of a random search.
        draws: evaluate so many further choices and orders of as many shots among the samples: arms "few-shot 1 of 5
            (best)" to "few-shot 5 of 5 (worst)", ranked by how many greedy answers are right. Each takes about as long
            as the edited arm.
        known: base answers of earlier calls with the same model, which the seeds of a cell share; looked up and added.

    Raises:
        TarotError: an adapter without a recipe, one that does not fit the model, a control with other labels or prompts
            than the edit's, other data than it was tuned on, draws of no shots, or a task whose written answers nothing
            judges.
    """
    started = time.perf_counter()
    loaded = LoadedModel.from_objects(model, tokenizer)
    adapter = Adapter.resolve(adapter)
    config = config_of(adapter)
    check_controls(loaded, adapter, (controls or {}).values())
    own = config.num_fewshot if isinstance(config.num_fewshot, int) else 0
    labels = config.num_samples + (own if isinstance(config.num_fewshot, int) else max(MIXED_SHOTS))
    task = load_task(config.task, include_path)
    check_scorable(task)
    check_answers(task)
    drawn = icl.labelled_documents(task, tuning_samples(adapter))
    n_shots = own or min(int(resolve_num_fewshot(task, shots)), len(drawn))
    if draws and not n_shots:
        raise TarotError("shots to draw", "0 shots", "leave the draws out")

    def timed(run: Callable[[], dict[str, Any]]) -> TimedDocuments:
        begun = time.perf_counter()
        return logged_documents(run(), config.task), round(time.perf_counter() - begun, 3)

    def evaluated(k: int, edit: Adapter | None = None) -> TimedDocuments:
        return timed(
            lambda: evaluate(
                loaded.model,
                loaded.tokenizer,
                [config.task],
                adapter=edit,
                include_path=include_path,
                num_fewshot=k,
                limit=limit,
                apply_chat_template=config.apply_chat_template,
                batch_size=batch_size,
            )
        )

    def base(k: int) -> TimedDocuments:
        # The model itself: another may have its name.
        key = (loaded, config.task, str(include_path), k, limit, config.apply_chat_template)
        if known is None:
            return evaluated(k)
        if key not in known:
            known[key] = evaluated(k)
        return known[key]

    def prompted(docs: Sequence[icl.Doc]) -> TimedDocuments:
        return timed(
            lambda: icl.evaluate_with_shots(
                loaded,
                config.task,
                docs,
                include_path=include_path,
                limit=limit,
                apply_chat_template=config.apply_chat_template,
                batch_size=batch_size,
            )
        )

    frame = icl.question_frame([str(task.doc_to_text(doc)) for doc in drawn])

    def calibrated(answered: TimedDocuments) -> TimedDocuments:
        begun = time.perf_counter()
        documents = icl.calibrate(loaded, task, answered[0], frame)
        return documents, round(answered[1] + time.perf_counter() - begun, 3)

    arms: dict[str, tuple[int, TimedDocuments]] = {ZERO_SHOT: (0, base(0))}
    if n_shots:
        arms[FEW_SHOT] = (n_shots, base(own) if own else prompted(drawn[:n_shots]))
    arms[EDITED] = (labels, evaluated(own, adapter))
    arms |= {name: (labels, evaluated(own, edit)) for name, edit in (controls or {}).items()}
    if icl.can_calibrate(task):
        arms |= {
            f"{name} calibrated": (arms[name][0], calibrated(arms[name][1]))
            for name in (ZERO_SHOT, FEW_SHOT)
            if name in arms
        }

    gold, _ = read_answers(task, arms[EDITED][1][0])
    measured = [_arm(task, name, n, answered) for name, (n, answered) in arms.items()]
    if n_shots:
        shown = min(n_shots, len(drawn))
        tried = [_arm(task, "", shown, prompted(docs)) for docs in icl.draw_shots(drawn, shown, draws, config.seed)]
        measured += _ranked(gold, tried)
    docs = [doc for _, doc in zip(range(len(gold)), task.eval_docs, strict=False)]
    return Comparison(
        model=loaded.reference,
        task=config.task,
        num_fewshot=own,
        seed=config.seed,
        samples=config.num_samples,
        budget=int(adapter.provenance["budget"]),  # type: ignore[call-overload]  # looked at by recipe_of
        search=config.search,
        space=config.space,
        objective=config.objective,
        command=repeat_command(
            loaded, adapter, n_shots, draws, limit, include_path, controls=list((controls or {}).values())
        ),
        not_repeated=not_repeated(adapter),
        dtype=loaded.dtype,
        keys=tuple(document_key(task, doc) for doc in docs),
        gold=gold,
        texts=tuple(question_text(task, doc) for doc in docs),
        arms=tuple(measured),
        seconds=round(time.perf_counter() - started, 3),
        reference_seconds=round(time_reference_workload(), 6),
        adapter=adapter.fingerprint,
        mixed=config.num_fewshot == "mix",
        layers=adapter.edit.layers,
        head_angles=tuple(tuple(round(float(a), 6) for a in row) for row in adapter.angles.mean(-1)),
        curves={name: tuple(curve) for name, curve in (curves or {}).items()},
        versions={name: version(name) for name in LIBRARIES},
    )


def check_controls(loaded: LoadedModel, adapter: Adapter, controls: Iterable[Adapter]) -> None:
    """Raise what `compare` would of an adapter and its controls, before the base model answers."""
    for edit in (adapter, *controls):
        edit.find_sites(loaded.model)  # or it does not fit
        _check_alike(adapter, edit)


def _check_alike(adapter: Adapter, control: Adapter) -> None:
    """Raise TarotError unless a control had the same labels, prompts and budget: its arm stands beside the edit's."""
    question_text, asked = (
        f"{config.num_samples} samples of {config.task}, {config.num_fewshot} shots, seed {config.seed}, budget {budget}"
        for config, budget in ((config_of(each), each.provenance["budget"]) for each in (control, adapter))
    )
    if question_text != asked:
        raise TarotError(f"a control tuned as the edit was, on {asked}", question_text, "tune it with the same")


def _arm(task: Task, name: str, labels: int, answered: TimedDocuments) -> Arm:
    documents, seconds = answered
    return replace(read_answers(task, documents)[1], name=name, labels=labels, seconds=seconds)


def _ranked(gold: tuple[int, ...], arms: Sequence[Arm]) -> list[Arm]:
    """Draws named by their rank, so that the best of one cell stands beside the best of another."""
    ranked = sorted(arms, key=lambda arm: -sum(map(eq, gold, arm.greedy)))
    words = {1: " (best)", len(ranked): " (worst)"} if len(ranked) > 1 else {}
    return [
        replace(arm, name=f"{FEW_SHOT} {rank} of {len(ranked)}{words.get(rank, '')}", draw=rank)
        for rank, arm in enumerate(ranked, start=1)
    ]
