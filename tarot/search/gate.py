"""Fit a prompt gate to a tuned adapter: the prompts of its samples against retained prompts.

    direction = (S_task + S_retained + lambda I)^-1 (mean_task - mean_retained),   S: covariances of the features
    threshold = m - 6 s,   m and s: mean and standard deviation of the task prompts' scores, each left out of its fit

This is linear discriminant analysis with shrinkage. Twenty prompts of one template are separated perfectly by many
directions; the shrunk one keeps those in which all prompts of the task agree and the retained ones do not. Labels are
not used.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from torch import from_numpy
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tarot.edit.adapter import Adapter
from tarot.edit.gate import PromptGate, prompt_features
from tarot.edit.sites import n_layers
from tarot.errors import InvalidValueError, TarotError
from tarot.models.evaluation_mode import in_evaluation_mode
from tarot.models.lm_eval_model import TarotLM
from tarot.models.loaded_model import LoadedModel
from tarot.models.missing_numbers import BROKEN_MODEL_HINT
from tarot.objectives.retained import bundled_prompts
from tarot.objectives.tasks.prompts import ChatTemplate, get_chat_template
from tarot.objectives.tasks.task_loading import load_task
from tarot.search.config import TaRotConfig
from tarot.search.problem import check_same_samples, draw_tuning_samples

SHRINKAGE = 0.5
DEVIATIONS = 6.0
"""Standard deviations between the task prompts' mean score and the threshold."""
LEAST_PROMPTS = 4
DEPTHS = (0, 1 / 8, 1 / 4)
"""Layers that are tried, as fractions of all; the first one that separates the prompts is taken, as it costs least."""


@dataclass(frozen=True)
class _FittedGate:
    gate: PromptGate
    opened: float
    """Fraction of the task prompts that open the gate if they are left out of its fit."""
    closed: float
    """Fraction of the retained prompts that leave it closed, likewise."""


@in_evaluation_mode
def fit_gate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    adapter: Adapter,
    *,
    include_path: str | Path | None = None,
) -> Adapter:
    """Return the adapter with a gate that opens for prompts like those of its samples.

    The samples are drawn again as the search drew them. The provenance records the gate and how well it decides on
    prompts that were left out of its fit.

    Args:
        model: the model that the adapter was made for; unchanged.
        tokenizer: the model's tokenizer.
        adapter: an adapter that was tuned on a task; a gate that it has is replaced.
        include_path: folder of further task files.

    Raises:
        InvalidValueError: the adapter does not record its task or samples, or was made for another model.
        TarotError: there are fewer than 4 samples, the task's data are not those that the adapter was tuned on, or a
            hidden state is not a number.

    Example:
        >>> gated = fit_gate(model, tokenizer, adapter)
        >>> gated.gate is None, adapter.gate is None
        (False, True)
    """
    adapter.find_sites(model)  # raises if the adapter does not fit the model
    config = TaRotConfig.from_dict(adapter.provenance)
    loaded = LoadedModel.from_objects(model, tokenizer)
    lm = TarotLM(loaded.model, tokenizer=loaded.tokenizer)
    template = get_chat_template(lm, config.apply_chat_template)
    ours = list(dict.fromkeys(_task_prompts(adapter, config, template, include_path)))
    others = [text for text in closed_prompts(template) if text not in set(ours)]
    if len(ours) < LEAST_PROMPTS:
        raise InvalidValueError(f"at least {LEAST_PROMPTS} different prompts of the task", str(len(ours)))
    encoded = [lm.tok_encode(text) for text in (*ours, *others)]
    is_task = np.arange(len(encoded)) < len(ours)
    depths = dict.fromkeys(int(n_layers(model) * depth) for depth in DEPTHS)
    fits: list[_FittedGate] = []
    for layer in depths:
        features = prompt_features(loaded.model, layer, encoded).double().numpy()
        if not np.isfinite(features).all():
            raise TarotError("hidden states that are numbers", f"others before layer {layer}", BROKEN_MODEL_HINT)
        fits.append(_fit(layer, features, is_task))
        if fits[-1].closed == 1:
            break
    best = max(fits, key=lambda fit: fit.closed)
    record = {
        "layer": best.gate.layer,
        "task_prompts": len(ours),
        "retained_prompts": len(others),
        "opened_left_out": best.opened,
        "closed_left_out": best.closed,
    }
    return replace(adapter, gate=best.gate, provenance={**adapter.provenance, "gate": record})


def require_samples(adapter: Adapter) -> None:
    """Raise InvalidValueError unless the adapter records the samples that it was tuned on."""
    if not adapter.provenance.get("samples_drawn"):
        hint = "only an adapter tuned on samples or for a reward can have a gate"
        raise InvalidValueError("The adapter has no samples, and a gate opens for prompts like theirs.", hint=hint)


def _task_prompts(
    adapter: Adapter, config: TaRotConfig, template: ChatTemplate | None, include_path: str | Path | None
) -> Iterator[str]:
    """Yield the prompts of the adapter's samples."""
    require_samples(adapter)
    samples = draw_tuning_samples(config, load_task(config.task, include_path), template)
    check_same_samples(adapter, samples)
    yield from (context for sample in samples for context, _ in sample.pairs)


def _fit(
    layer: int, features: Float[np.ndarray, "prompt feature"], is_task: Bool[np.ndarray, " prompt"]
) -> _FittedGate:
    """Fit a gate before a layer, and let it decide on each prompt that is left out."""
    centre = features.mean(0)
    # In the basis of the prompts themselves there are fewer coordinates than features, and the same directions.
    # Directions in which prompts differ by rounding alone are left out: each would count as much as any other.
    _, lengths, basis = np.linalg.svd(features - centre, full_matrices=False)
    basis = basis[lengths > lengths[0] * max(features.shape) * np.finfo(np.float32).eps]
    points = (features - centre) @ basis.T
    rows = np.arange(len(points))
    scores = np.array([_direction(points[rows != row], is_task[rows != row]) @ points[row] for row in rows])
    ours = scores[is_task]
    threshold = ours.mean() - DEVIATIONS * ours.std(ddof=1)
    weight = basis.T @ _direction(points, is_task)
    gate = PromptGate(layer, from_numpy(weight).float(), float(-threshold - centre @ weight))
    return _FittedGate(gate, float((ours > threshold).mean()), float((scores[~is_task] <= threshold).mean()))


def _direction(
    points: Float[np.ndarray, "prompt coordinate"], is_task: Bool[np.ndarray, " prompt"]
) -> Float[np.ndarray, " coordinate"]:
    """Return the direction of linear discriminant analysis, each class counting half, with shrunk covariances."""
    task, retained = points[is_task], points[~is_task]
    centred = [each - each.mean(0) for each in (task, retained)]
    covariance = sum(each.T @ each / len(each) for each in centred) / 2
    ridge = SHRINKAGE * np.trace(covariance) / max(1, len(covariance))
    shrunk = (1 - SHRINKAGE) * covariance + ridge * np.eye(len(covariance))
    direction: np.ndarray = np.linalg.solve(shrunk, task.mean(0) - retained.mean(0))
    return direction


# Most tasks describe themselves in a system message. Without other prompts that have one, a gate would open for any.
SYSTEM_MESSAGES = (
    "Answer the question.",
    "Answer in one word.",
    "You are a friendly assistant.",
    "Choose one of the options.",
    "Say whether the statement is true or false.",
    "Answer with yes or no.",
    "Read the text and do what the user asks.",
    "Give a short answer.",
    "Continue the text.",
    "You are an expert. Explain your answer.",
    "Answer with a number.",
    "Decide which label fits the text best. Answer with the label only.",
)


def closed_prompts(template: ChatTemplate | None) -> list[str]:
    """Return prompts of no task, rendered as tasks render theirs.

    Example:
        >>> len(closed_prompts(None)) > 200
        True
    """
    systems = cycle(SYSTEM_MESSAGES)

    def describe(messages: Sequence[Mapping[str, str]]) -> str:
        system = next(systems)
        if template is None:
            return f"{system}\n\n{messages[0]['content']}"
        return template([{"role": "system", "content": system}, *messages])

    return list(dict.fromkeys([*bundled_prompts(template), *bundled_prompts(describe)]))
