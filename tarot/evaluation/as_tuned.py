"""Evaluate an adapter's task as the adapter was tuned: with the same shots, chat template and seed."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lm_eval.api.task import Task

from tarot.edit.adapter import Adapter
from tarot.errors import TarotError
from tarot.evaluation.baselines.edit import BaselineEdit
from tarot.evaluation.evaluate import check_tasks, evaluate
from tarot.evaluation.options import DEFAULT_OPTIONS, EvaluationOptions
from tarot.evaluation.results.comparison import SettingValue
from tarot.models.loaded_model import LoadedModel
from tarot.objectives.kind import ObjectiveKind
from tarot.objectives.text_generation import fork_torch_seed
from tarot.search.config import UNTUNED_HINT, TaRotConfig

_HINT = "tarot evaluate, try and effects take it"


def config_of(adapter: Adapter) -> TaRotConfig:
    """Return the configuration that an adapter was tuned with.

    Raises:
        TarotError: the adapter does not record its task and budget, or records values that no search accepts.

    Example:
        >>> config_of(adapter).task
        'synth_color'
    """
    config = TaRotConfig.from_dict(adapter.provenance)
    if "budget" not in adapter.provenance:
        raise TarotError("The adapter does not record the budget of its search.", hint=UNTUNED_HINT)
    return config


def kept_limit(adapter: Adapter) -> float:
    """Return the limit of divergence that an edit keeps, in nats a token; 0 if none is known to hold.

    A trial that was picked may be above the limit of its search, and a scaled or pruned edit was not measured.
    """
    limit, retention = config_of(adapter).max_kl, adapter.provenance.get("retention")
    kl = retention.get("kl") if isinstance(retention, Mapping) else None
    return float(limit) if limit is not None and isinstance(kl, float | int) and kl <= float(limit) else 0.0


def edit_settings(adapter: Adapter) -> dict[str, SettingValue]:
    """Return how an adapter was made, where that is not the default and not a field of a comparison.

    Returns:
        Fields of the configuration; `pick`; `keep`, the share of the gain that each pruning kept; `gate`; `scale`, the
        factor of the angles; and `stopped_after`, the evaluations of an interrupted search.

    Example:
        >>> edit_settings(adapter.scaled(0.5))
        {'layers': 0.5, 'scale': 0.5}
    """
    provenance: Mapping[str, Any] = adapter.provenance
    settings: dict[str, SettingValue] = {
        name: value for name, value in config_of(adapter).changed().items() if name not in _FIELDS
    }
    if "pick" in provenance:
        settings["pick"] = str(provenance["pick"])
    if kept := kept_shares(provenance):
        settings["keep"] = kept
    if provenance.get("gate"):
        settings["gate"] = True
    if (scale := scale_of(provenance)) != 1:
        settings["scale"] = scale
    if provenance.get("interrupted"):
        settings["stopped_after"] = int(provenance.get("spent", 0))
    return settings


# Fields of the configuration that are fields of a comparison.
_FIELDS = ("task", "num_samples", "num_fewshot", "seed", "space", "search", "objective", "max_kl")


def kept_shares(provenance: Mapping[str, Any]) -> tuple[float, ...]:
    """Return the share of the gain that each pruning of an adapter kept, in order."""
    pruned = provenance.get("pruned")
    return (*kept_shares({"pruned": pruned.get("before")}), float(pruned["keep"])) if pruned else ()


def scale_of(provenance: Mapping[str, Any]) -> float:
    """Return the factor by which an adapter's angles were scaled after its search; 1 if they were not."""
    parents = provenance.get("parents", ())
    return math.prod(float(parent["strength"]) * scale_of(parent["provenance"]) for parent in parents)


def evaluation_shots(config: TaRotConfig) -> int:
    """Return the shots of the prompts that an adapter is evaluated with: those of its samples, 0 for `mix`."""
    return config.num_fewshot if isinstance(config.num_fewshot, int) else 0


def tuning_samples(adapter: Adapter) -> list[Mapping[str, Any]]:
    """Return what an adapter records of its labelled samples: the "id" and "key" of each.

    Raises:
        TarotError: it records none.
    """
    samples: Any = adapter.provenance.get("samples_drawn")
    if not samples or not all("id" in sample for sample in samples):
        if config_of(adapter).kind is ObjectiveKind.FUNCTION:
            raise TarotError("The adapter was tuned for a function of the model, not on labelled samples.", hint=_HINT)
        raise TarotError("The adapter does not record the samples that it was tuned on.", hint=_HINT)
    return list(samples)


def check_as_tuned(
    adapter: Adapter, *, include_path: str | Path | None = None, limit: int | float | None = None
) -> Task:
    """Check everything of `evaluate_as_tuned` that needs no model, and return the task.

    Raises:
        UnknownName: no such task.
        TarotError: the adapter does not record how it was tuned, or was tuned on a document that is evaluated; or the
            task cannot be evaluated so.
    """
    config = config_of(adapter)
    shots = evaluation_shots(config)
    (task,) = check_tasks([config.task], adapter, include_path=include_path, num_fewshot=shots, limit=limit)
    return task


def evaluate_as_tuned(
    loaded: LoadedModel,
    config: TaRotConfig,
    edit: Adapter | BaselineEdit | None = None,
    options: EvaluationOptions = DEFAULT_OPTIONS,
    num_fewshot: int | None = None,
) -> dict[str, Any]:
    """Evaluate a configuration's task with the prompts that its samples had, and with its seed.

    Args:
        loaded: model and tokenizer; unchanged afterwards.
        config: the configuration that the adapter in question was tuned with.
        edit: the adapter to apply, which may be another one, or a baseline's edit; None for the base model.
        options: how the task is evaluated.
        num_fewshot: another number of shots than the samples had.

    Returns:
        lm-eval's results, as `tarot.evaluate` returns them.

    Raises:
        UnknownName: no such task.
        TarotError: the edit does not fit the model, or the task cannot be evaluated so.

    Example:
        >>> loaded, options = tarot.load_model("wheel:smollm2-135m"), EvaluationOptions(limit=4)
        >>> results = evaluate_as_tuned(loaded, config_of(adapter), adapter, options)
        >>> results["n-samples"]["synth_color"]["effective"]
        4
    """
    with fork_torch_seed(config.seed):
        return evaluate(
            loaded.model,
            loaded.tokenizer,
            config.task,
            adapter=edit,
            include_path=options.include_path,
            num_fewshot=evaluation_shots(config) if num_fewshot is None else num_fewshot,
            limit=options.limit,
            apply_chat_template=config.apply_chat_template,
            batch_size=options.batch_size,
            answers=options.answers,
        )
