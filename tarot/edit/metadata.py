"""Schema of `tarot.json`: how the angles act, and their provenance.

Unknown keys are kept and never used. Nothing in the file is executed, fetched or imported.
"""

from collections.abc import Mapping
from typing import Annotated, Any, NotRequired

from annotated_types import Interval, MinLen
from pydantic import StringConstraints, with_config
from typing_extensions import TypedDict

from tarot._files.strict_json import Count, Name, Number, validate

_Scores = dict[Name, Number | None]  # null where the objective gave no finite number
_Seed = Annotated[int, Interval(gt=-(2**63), lt=2**63)]
_Layer = Annotated[int, Interval(ge=0, lt=2**16)]


@with_config(extra="forbid")
class EditValues(TypedDict):
    """Where and how angles act; an unknown key is refused, as it might change that."""

    sites: Name
    layers: Annotated[list[_Layer], MinLen(1)]
    rotation: Name
    model: Name


@with_config(extra="forbid")
class GateValues(TypedDict):
    """Where a gate reads and its bias; its weights are in the other file."""

    layer: _Layer
    bias: Number


@with_config(extra="allow")
class Metadata(TypedDict):
    """Contents of `tarot.json`, except the format and the provenance, which are read separately."""

    fingerprint: NotRequired[Name]
    weights_sha256: Name
    edit: EditValues
    gate: NotRequired[GateValues]


@with_config(extra="allow")
class _Sample(TypedDict):
    key: Name
    id: NotRequired[Annotated[str, StringConstraints(max_length=4096, pattern=r"^[^\n]*/\d{1,9}$")]]
    num_fewshot: NotRequired[Count]


@with_config(extra="allow")
class _Pruned(TypedDict):
    keep: Annotated[float, Interval(gt=0, le=1)]
    before: NotRequired["_Pruned | None"]
    heads: NotRequired[Count]
    of: NotRequired[Count]
    evaluations: NotRequired[Count]
    scores: NotRequired[_Scores]


@with_config(extra="allow")
class _Gate(TypedDict):
    layer: Count
    task_prompts: Count
    retained_prompts: Count
    opened_left_out: Number
    closed_left_out: Number


@with_config(extra="allow")
class _Parent(TypedDict):
    strength: Number
    fingerprint: Name
    provenance: "Provenance"


@with_config(extra="allow")
class Provenance(TypedDict, total=False):
    """How an adapter was made; any key may be missing."""

    # configuration of the search
    model: Name
    model_weights: Name
    dtype: Name
    task: Name
    num_fewshot: Count | Name
    num_samples: Count
    space: Name
    search: Name
    objective: Name
    sites: Name
    layers: Number | list[_Layer]
    bound: Number
    rotation: Name
    seed: _Seed
    apply_chat_template: bool
    trials_per_step: Count
    fluency_floor: Name | None
    max_kl: Number | None
    retain: list[Name]
    budget: Count
    # course of the search
    chat_template: bool
    coordinates: Count
    trials: Count
    spent: Count
    interrupted: bool
    fitted: bool
    best_trial: Count
    pick: Name
    scores: _Scores
    retention: dict[Name, Any]
    seconds: dict[Name, Number]
    samples_drawn: list[_Sample]
    versions: dict[Name, Name]
    # changes after the search
    parents: list[_Parent]
    pruned: _Pruned | None
    gate: _Gate | None


def validate_provenance(values: object) -> dict[str, Any]:
    """Return the provenance in a file, with floats where the schema has floats.

    Raises:
        ValueError: a field is of another type or outside its bounds; the message names the first one.
    """
    provenance: dict[str, Any] = validate(Provenance, values)
    return provenance


def validate_metadata(values: object) -> Mapping[str, Any]:
    """Return the edit and the digest of the weights in `tarot.json`; errors as for `validate_provenance`."""
    metadata: Mapping[str, Any] = validate(Metadata, values)
    return metadata
