"""Provenance of adapters that are made from others: scaled or composed ones keep that of their parents.

An adapter's provenance holds plain JSON values: the search that found it, the samples it was tuned on, its scores. The
schema is in `metadata.py`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

MEASURED = ("scores", "best_trial", "fitted", "retention", "cross_validation")
"""Keys of what a search measured of itself and its edit: scores, whether samples are fitted, divergence, halves."""


class Parent(NamedTuple):
    """An adapter that another one is made from."""

    strength: float
    """Factor of its angles."""
    fingerprint: str
    provenance: Mapping[str, Any]


def compose_provenance(parents: Sequence[Parent]) -> dict[str, object]:
    """Return the provenance of an adapter that is made from others.

    It names every parent and lists the samples of them all, so that none of these is evaluated. It names the model
    where all parents share one. It has no task of its own.
    """
    provenance: dict[str, object] = {
        "parents": [{**parent._asdict(), "provenance": dict(parent.provenance)} for parent in parents]
    }
    models = {parent.provenance.get("model") for parent in parents}
    if len(models) == 1 and (model := models.pop()):
        provenance["model"] = model
    lists = [parent.provenance.get("samples_drawn") for parent in parents]
    if drawn := [sample for each in lists if isinstance(each, list) for sample in each]:
        provenance["samples_drawn"] = drawn
    return provenance


def scale_provenance(parent: Parent) -> dict[str, object]:
    """Return the provenance of an adapter whose angles are its parent's times a factor.

    Keep the task and the settings of the search. Drop what was measured: the scaled adapter was not.
    """
    kept = {key: value for key, value in parent.provenance.items() if key not in MEASURED}
    return kept | compose_provenance([parent])


def tuned_tasks(provenance: Mapping[str, Any]) -> frozenset[str]:
    """Return the tasks that an adapter, or any adapter it was made from, was tuned on."""
    own = {str(provenance["task"])} if "task" in provenance else set()
    return frozenset(own.union(*(tuned_tasks(parent["provenance"]) for parent in provenance.get("parents", ()))))


def tuned_weights(provenance: Mapping[str, Any]) -> frozenset[str]:
    """Return the fingerprints of the weights that an adapter, or any adapter it was made from, was tuned on."""
    own = {str(provenance["model_weights"])} if "model_weights" in provenance else set()
    return frozenset(own.union(*(tuned_weights(parent["provenance"]) for parent in provenance.get("parents", ()))))


def to_json_values(value: object) -> Any:
    """Copy JSON values with lists for tuples, and null for a float that is not finite: JSON has no such numbers."""
    if isinstance(value, Mapping):
        return {key: to_json_values(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [to_json_values(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
