"""Benefit and cost of each strength of an edit: gain on its own task against KL divergence on neutral text."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor

from tarot.analysis.divergence import Divergence, measure_divergence
from tarot.analysis.task_changes import TaskChange, measure_task_changes
from tarot.arguments import require_strength
from tarot.edit.adapter import Adapter
from tarot.evaluation.as_tuned import config_of, evaluation_shots
from tarot.evaluation.options import DEFAULT_OPTIONS, EvaluationOptions
from tarot.models.loaded_model import LoadedModel
from tarot.models.progress import OnStep, ignore_step
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


def measure_trade_off(
    loaded: LoadedModel,
    adapter: Adapter,
    text: Int[Tensor, "text token"],
    strengths: Sequence[float] = STRENGTHS,
    options: EvaluationOptions = DEFAULT_OPTIONS,
    on_step: OnStep = ignore_step,
) -> list[StrengthPoint]:
    """Measure the gain on the adapter's own task, prompted as in tuning, and the drift on a text, at each strength.

    Args:
        loaded: model and tokenizer; unchanged afterwards.
        adapter: what `tarot.tune` returned or saved.
        text: tokens of neutral text, as `neutral_text` returns them.
        strengths: factors of the angles, 0 to 1.
        options: how the task is evaluated.
        on_step: shows the progress.

    Raises:
        TarotError: a strength is out of range, the adapter has no recipe, or `tarot.evaluate` raises it.

    Example:
        >>> from tarot.analysis.neutral_text import neutral_text
        >>> loaded = tarot.load_model("wheel:smollm2-135m")
        >>> text, options = neutral_text(loaded, 100), EvaluationOptions(limit=4)
        >>> points = measure_trade_off(loaded, adapter, text, (0.5, 1.0), options)
        >>> [point.strength for point in points]
        [0.5, 1.0]
    """
    for strength in strengths:
        require_strength(strength)
    config = config_of(adapter)
    edits = [adapter.scaled(strength) for strength in strengths]
    changes: list[TaskChange | None] = [None] * len(edits)
    if config.kind is not ObjectiveKind.REWARD:
        rows = measure_task_changes(
            loaded,
            edits,
            [config.task],
            options,
            num_fewshot=evaluation_shots(config),
            apply_chat_template=config.apply_chat_template,
            on_step=on_step,
        )
        changes = [row[config.task] for row in rows]
    drifts = measure_divergence(loaded.model, edits, text, options.batch_size, on_step)
    return [
        StrengthPoint(strength, change, drift)
        for strength, change, drift in zip(strengths, changes, drifts, strict=True)
    ]
