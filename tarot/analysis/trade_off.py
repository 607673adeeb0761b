"""What the strength of an edit buys and costs: gain on its own task against KL divergence on neutral text."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Int
from torch import Tensor

from tarot.analysis.divergence import Divergence, measure_divergence
from tarot.analysis.progress import OnStep, ignore_step
from tarot.analysis.task_changes import TaskChange, measure_task_changes
from tarot.arguments import require_number
from tarot.edit.adapter import Adapter
from tarot.evaluation.as_tuned import config_of, evaluation_shots
from tarot.models.loaded_model import LoadedModel
from tarot.objectives.kind import ObjectiveKind

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class StrengthPoint:
    """An adapter with its angles scaled by `strength`.

    Attributes:
        strength: factor of the angles, 0 to 1.
        change: the change of its own task; None for an adapter tuned for a reward, which has no right answers.
        drift: perplexity and KL divergence on neutral text.
    """

    strength: float
    change: TaskChange | None
    drift: Divergence


def check_strength(strength: float) -> None:
    """Raise InvalidValueError for a strength outside [0, 1]."""
    require_number("strength", strength, "from 0 (the base model) to 1 (the adapter)", lambda x: 0 <= x <= 1)


def measure_trade_off(
    loaded: LoadedModel,
    adapter: Adapter,
    text: Int[Tensor, "text token"],
    strengths: Sequence[float] = STRENGTHS,
    *,
    include_path: str | Path | None = None,
    limit: int | float | None = None,
    batch_size: int | None = None,
    answers: str | Path | None = None,
    on_step: OnStep = ignore_step,
) -> list[StrengthPoint]:
    """Measure the gain on the adapter's own task, prompted as in tuning, and the drift on a text, at each strength.

    Args:
        loaded: model and tokenizer; unchanged afterwards.
        adapter: what `tarot.tune` returned or saved.
        text: tokens of neutral text, as `neutral_text` returns them.
        strengths: factors of the angles, 0 to 1.
        include_path: folder of further task files.
        limit: number or fraction of the task's documents, the first ones; None for all.
        batch_size: most sequences of a forward pass; None to choose it automatically.
        answers: file that stores the answers to the tasks, as for `tarot.evaluate`.
        on_step: shows the progress.

    Raises:
        TarotError: a strength is out of range, the adapter has no recipe, or see `tarot.evaluate`.

    Example:
        >>> from tarot.analysis.neutral_text import neutral_text
        >>> loaded = tarot.load_model("wheel:smollm2-135m")
        >>> points = measure_trade_off(loaded, adapter, neutral_text(loaded, 100), (0.5, 1.0), limit=4)
        >>> [point.strength for point in points]
        [0.5, 1.0]
    """
    for strength in strengths:
        check_strength(strength)
    config = config_of(adapter)
    edits = [adapter.scaled(strength) for strength in strengths]
    changes: list[TaskChange | None] = [None] * len(edits)
    if config.kind is not ObjectiveKind.REWARD:
        rows = measure_task_changes(
            loaded,
            edits,
            [config.task],
            include_path=include_path,
            num_fewshot=evaluation_shots(config),
            limit=limit,
            apply_chat_template=config.apply_chat_template,
            batch_size=batch_size,
            answers=answers,
            on_step=on_step,
        )
        changes = [row[config.task] for row in rows]
    drifts = measure_divergence(loaded.model, edits, text, batch_size, on_step)
    return [
        StrengthPoint(strength, change, drift)
        for strength, change, drift in zip(strengths, changes, drifts, strict=True)
    ]
