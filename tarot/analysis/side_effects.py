"""Edited minus base on every task of a suite: one row of a matrix an adapter. And gain against drift by strength."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Int
from torch import Tensor

from tarot.analysis.divergence import Divergence, measure_divergence
from tarot.analysis.neutral_text import NEUTRAL_TOKENS, OnStep, neutral_text, silent
from tarot.edit.adapter import Adapter
from tarot.errors import TarotError
from tarot.evaluation.as_tuned import config_of
from tarot.evaluation.evaluate import evaluate
from tarot.evaluation.lm_eval_results import check_scorable, logged_documents, read_answers
from tarot.evaluation.statistics.gains import Gain, f1_gain, weighted_f1
from tarot.models.loaded_model import LoadedModel
from tarot.objectives.task_loading import load_tasks

SUITE = "tarot_synthetic"
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class TaskChange:
    """Weighted F1 of the greedy answer to a task's documents, without and with the edit, and the paired difference."""

    base: float
    edited: float
    gain: Gain


@dataclass(frozen=True)
class StrengthPoint:
    """An adapter with its angles scaled: change of its own task, drift on neutral text."""

    strength: float
    change: TaskChange
    drift: Divergence


def check_strength(strength: float) -> None:
    """Raise TarotError for a strength outside [0, 1]."""
    if not 0 <= strength <= 1:
        raise TarotError("a strength from 0 (the base model) to 1 (the adapter)", repr(strength))


def measure_task_changes(
    loaded: LoadedModel,
    adapters: Sequence[Adapter],
    tasks: Sequence[str] = (SUITE,),
    *,
    include_path: str | Path | None = None,
    num_fewshot: int | None = None,
    limit: int | None = None,
    apply_chat_template: bool = True,
    batch_size: int | None = None,
    on_step: OnStep = silent,
) -> list[dict[str, TaskChange]]:
    """What each adapter changes on each task: one row of the matrix an adapter, its columns by name.

    Arguments and errors as for `tarot.evaluate`; the base model answers every document once.
    """
    for adapter in adapters:
        adapter.find_sites(loaded.model)  # or it does not fit, which is to be said before the base model answers
    known = load_tasks(tasks, include_path)["tasks"]
    for task in known.values():
        check_scorable(task)

    def greedy(adapter: Adapter | None) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
        results = evaluate(
            loaded.model,
            loaded.tokenizer,
            tasks,
            adapter=adapter,
            include_path=include_path,
            num_fewshot=num_fewshot,
            limit=limit,
            apply_chat_template=apply_chat_template,
            batch_size=batch_size,
        )
        found = {name: read_answers(task, logged_documents(results, name)) for name, task in known.items()}
        return {name: (gold, arm.greedy) for name, (gold, arm) in found.items()}

    on_step("answering tasks", 0, len(adapters) + 1)
    base = greedy(None)
    rows = []
    for done, adapter in enumerate(adapters, start=1):
        on_step("answering tasks", done, len(adapters) + 1)
        edited = greedy(adapter) if adapter.angles.any() else base  # no angle is the model as it is
        rows.append({name: _change(*base[name], edited[name][1]) for name in known})
    on_step("answering tasks", len(adapters) + 1, len(adapters) + 1)
    return rows


def _change(gold: Sequence[int], base: Sequence[int], edited: Sequence[int]) -> TaskChange:
    return TaskChange(weighted_f1(gold, base), weighted_f1(gold, edited), f1_gain(gold, base, edited))


@dataclass(frozen=True)
class SideEffects:
    """What an adapter changes on the tasks that it was not tuned on, and on neutral text."""

    changes: dict[str, TaskChange]
    drift: Divergence


def measure_side_effects(
    loaded: LoadedModel,
    adapter: Adapter,
    tasks: Sequence[str] = (SUITE,),
    *,
    n_tokens: int = NEUTRAL_TOKENS,
    include_path: str | Path | None = None,
    limit: int | None = None,
    apply_chat_template: bool = True,
    batch_size: int | None = None,
    on_step: OnStep = silent,
) -> SideEffects:
    """The adapter's row of the matrix, zero-shot and without its own tasks, and its drift on neutral text.

    Arguments and errors as for `measure_task_changes` and `neutral_text`.
    """
    others = [name for name in load_tasks(tasks, include_path)["tasks"] if name not in adapter.tasks]
    row: dict[str, TaskChange] = {}
    if others:
        (row,) = measure_task_changes(
            loaded,
            [adapter],
            others,
            include_path=include_path,
            num_fewshot=0,
            limit=limit,
            apply_chat_template=apply_chat_template,
            batch_size=batch_size,
            on_step=on_step,
        )
    text = neutral_text(loaded, n_tokens, batch_size=batch_size, on_step=on_step)
    (drifted,) = measure_divergence(loaded.model, [adapter], text, batch_size, on_step)
    return SideEffects(row, drifted)


def measure_trade_off(
    loaded: LoadedModel,
    adapter: Adapter,
    text: Int[Tensor, "text token"],
    strengths: Sequence[float] = STRENGTHS,
    *,
    include_path: str | Path | None = None,
    limit: int | None = None,
    batch_size: int | None = None,
    on_step: OnStep = silent,
) -> list[StrengthPoint]:
    """Gain on the adapter's own task, under prompts as it was tuned on, and drift on a text, at each strength.

    Raises:
        TarotError: a strength outside [0, 1], or an adapter without a recipe; else as `tarot.evaluate`.
    """
    for strength in strengths:
        check_strength(strength)
    config = config_of(adapter)
    edits = [adapter.scaled(strength) for strength in strengths]
    rows = measure_task_changes(
        loaded,
        edits,
        [config.task],
        include_path=include_path,
        num_fewshot=config.num_fewshot if isinstance(config.num_fewshot, int) else 0,
        limit=limit,
        apply_chat_template=config.apply_chat_template,
        batch_size=batch_size,
        on_step=on_step,
    )
    drifts = measure_divergence(loaded.model, edits, text, batch_size, on_step)
    return [
        StrengthPoint(strength, row[config.task], drifted)
        for strength, row, drifted in zip(strengths, rows, drifts, strict=True)
    ]
