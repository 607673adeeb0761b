"""Identity of a search, and the provenance of its adapter."""

import hashlib
import json
import platform
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tarot.edit.adapter_folder import read_adapter_folder
from tarot.edit.fingerprint import shapes_fingerprint, weights_fingerprint
from tarot.edit.sites import find_sites
from tarot.errors import TarotError
from tarot.models.loaded_model import LoadedModel
from tarot.objectives.tasks.samples import Sample
from tarot.search.config import TaRotConfig
from tarot.search.cross_validation import HalfScores
from tarot.search.loop import SearchResult
from tarot.search.problem import Problem
from tarot.search.retention import RetentionLimit
from tarot.search.trials import Trial

LIBRARIES = ("torch", "transformers", "lm-eval", "botorch", "tarot-lm")


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that decide the numbers.

    Example:
        >>> sorted(library_versions())
        ['botorch', 'lm-eval', 'tarot-lm', 'torch', 'transformers']
    """
    return {name: version(name) for name in LIBRARIES}


def search_settings(
    loaded: LoadedModel,
    config: TaRotConfig,
    samples: Sequence[Sample],
    retained: str | None = None,
    functions: Sequence[Callable[..., Any]] = (),
) -> dict[str, Any]:
    """Return everything that decides the trials of a search, but the budget and the libraries' versions.

    Of functions it has the names: a function whose code has changed is taken for the same.

    Args:
        loaded: the model to edit.
        config: what is searched.
        samples: what the search draws.
        retained: digest of the retained contexts; None for nothing.
        functions: of the user's, on which the scores depend.
    """
    prompts = json.dumps([vars(sample) for sample in samples])
    return {
        "model": loaded.reference,
        "shapes": shapes_fingerprint(loaded.model, find_sites(loaded.model, config.sites, config.layers)),
        "weights": weights_fingerprint(loaded.model),
        "dtype": str(loaded.model.dtype),
        **config.to_dict(),
        "prompts": hashlib.sha256(prompts.encode()).hexdigest()[:16],
        **({"retained": retained} if retained else {}),
        **({"functions": [_name_of(function) for function in functions]} if functions else {}),
    }


def _name_of(function: Callable[..., Any]) -> str:
    """Return the module and name of a function, or of a callable object's class."""
    named: Any = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def search_provenance(
    loaded: LoadedModel,
    problem: Problem,
    result: SearchResult,
    budget: int,
    other_seconds: float,
    limit: RetentionLimit | None = None,
    pick: int | float | None = None,
    halves: HalfScores | None = None,
) -> dict[str, Any]:
    """Return the provenance of the adapter that a search found: its configuration and how the search went.

    Args:
        loaded: the model that was edited.
        problem: what was searched.
        result: its trials.
        budget: evaluations that the search was given, at least those of its trials.
        other_seconds: what the search took besides its trials.
        limit: what was retained, and how far the edit may diverge there; None for no limit.
        pick: which other trial than the best was requested, as for `tune`.
        halves: what cross-validation found; None where the configuration asks for none.
    """
    return {
        "model": loaded.reference,
        "model_weights": weights_fingerprint(loaded.model),
        "dtype": loaded.dtype,
        **problem.config.to_dict(),
        "budget": budget,
        "chat_template": problem.template is not None,
        **problem.prompt_notes,
        "coordinates": len(result.identity.x),
        "trials": len(result.trials),
        "spent": result.spent,
        "interrupted": result.interrupted,
        "fitted": result.best.score >= problem.objective.target_score,
        "best_trial": result.best.index,
        **({} if pick is None else {"pick": str(pick)}),
        "scores": {"identity": result.identity.score, "best": result.best.score},
        **({"cross_validation": dict(halves)} if halves else {}),
        **_retention_notes(result, limit),
        "seconds": {
            "evaluating": round(sum(trial.evaluate_seconds for trial in result.trials), 3),
            "proposing": round(sum(trial.propose_seconds for trial in result.trials), 3),
            "other": round(other_seconds, 3),
        },
        "samples_drawn": [{"id": s.id, "key": s.key, "num_fewshot": s.num_fewshot} for s in problem.samples],
        "versions": {"python": platform.python_version(), **library_versions()},
    }


def read_other_seconds(folder: Path) -> float:
    """Return what the earlier parts of a search took besides their trials; 0 for those that left no adapter."""
    provenance: dict[str, Any] = {}
    with suppress(TarotError):
        provenance.update(read_adapter_folder(folder).provenance)
    return float(provenance.get("seconds", {}).get("other", 0.0))


def trial_seconds(trials: Sequence[Trial]) -> float:
    """Return the seconds of trials, to propose and to evaluate them."""
    return sum(trial.propose_seconds + trial.evaluate_seconds for trial in trials)


def _retention_notes(result: SearchResult, limit: RetentionLimit | None) -> dict[str, Any]:
    """Return the divergence of the edit, the share of the best trial's angles that it has, and what was retained."""
    if not limit or not result.choice:
        return {}
    return {"retention": {"kl": result.choice.kl, "strength": result.choice.strength, **limit.notes}}
