"""The configuration of a search: everything that decides which trials it makes."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any

from tarot.arguments import (
    as_integer,
    require_flag,
    require_mapping,
    require_number,
    require_seed,
    require_text,
    require_whole_number,
)
from tarot.edit.rotation import ROTATIONS
from tarot.edit.sites import SITE_KINDS
from tarot.errors import InvalidValueError
from tarot.objectives.kind import ObjectiveKind, check_objective_name
from tarot.objectives.rewards.fluency import NO_FLOOR, FluencyFloor
from tarot.search.algorithms.registry import SEARCHES, require_trials_per_step
from tarot.search.space import SPACES, require_bound

MAX_KL = 0.02  # nats a token, the limit of a search that can hold one; docs/how-to/keep-the-rest.md says why
AUTO = "auto"
UNTUNED_HINT = "tarot evaluate and tarot try take it, with --tasks"
POLICY_GRADIENT = "policy-gradient"
_DEFAULT_SEARCHES = {
    ObjectiveKind.ANSWERS: "adam",
    ObjectiveKind.REWARD: POLICY_GRADIENT,
    ObjectiveKind.FUNCTION: "bo",
}


@dataclass(frozen=True, repr=False)
class TaRotConfig:
    """Configure a search. Values are validated here, before any model is loaded.

    The budget is not part of the configuration: it only says how long the search goes on.

    Args:
        task: name of an lm-eval task.
        num_fewshot: labelled examples in each prompt; `"mix"` draws 0, 2, 4 or 6 for each sample.
        num_samples: labelled training samples that the objective is computed on.
        space: name in `tarot.search.space.SPACES`; "" takes the search's default.
        search: name in `tarot.search.algorithms.registry.SEARCHES`; "" takes `adam`, `policy-gradient` for a
            reward, `bo` for a function of the edited model.
        objective: a score of labelled answers (`tarot.objectives.answers`), a reward of generated texts
            (`tarot.objectives.rewards.registry`), or a function of the edited model: `model` or `model:MODULE:FUNCTION`
            (`tarot.objectives.black_box`).
        sites: `heads` or `mlp`.
        layers: fraction of the layers, from the first (`0.5`) or the last (`-0.5`); or the indices of the layers.
        bound: largest magnitude of an angle, in radians.
        rotation: name in `tarot.edit.rotation.ROTATIONS`.
        seed: seeds samples, shots and proposals; at most 63 bits.
        apply_chat_template: render prompts with the tokenizer's chat template, if there is one.
        trials_per_step: points that are proposed together, before the score of any of them is known.
        fluency_floor: how far the fluency of the texts may fall below the unedited model's: `"0.3"` (nats per token) or
            `"10%"` (of its log-perplexity). Only for rewards.
        max_kl: limit of KL(base || edited) on retained contexts, in nats a token; None retains nothing. `"auto"` is
            0.02 for `adam` and where `retain` is given, else None.
        retain: what is retained beside tarot's own prompts: names of tasks, or files of prompts (`.jsonl`, `.txt`).
        cross_validate: search on each half of the samples first; where its edit makes the other half's answers less
            likely, do not edit (`tarot.search.cross_validation`). Only for labelled answers.

    Raises:
        UnknownName: no search, space, objective, rotation or kind of site has this name.
        InvalidValueError: a value is of the wrong type or out of range, or two values exclude each other.

    Example:
        >>> from tarot import TaRotConfig
        >>> config = TaRotConfig("synth_implicatives", num_samples=12, layers=(0, 3))
        >>> config
        TaRotConfig(task='synth_implicatives', num_samples=12, layers=(0, 3))
        >>> config.search, config.space
        ('adam', 'full')
        >>> TaRotConfig.from_dict(config.to_dict()) == config
        True
    """

    task: str
    num_fewshot: int | str = 0
    num_samples: int = 20
    space: str = ""
    search: str = ""
    objective: str = "log_probability"
    sites: str = "heads"
    layers: float | tuple[int, ...] = 1.0
    bound: float = 0.785
    rotation: str = "rotary"
    seed: int = 0
    apply_chat_template: bool = True
    trials_per_step: int = 1
    fluency_floor: str | None = None
    max_kl: float | str | None = AUTO
    retain: tuple[str, ...] = ()
    cross_validate: bool = False

    def __post_init__(self) -> None:
        objective = require_text("objective", self.objective)
        check_objective_name(objective)
        default_search = _DEFAULT_SEARCHES[self.kind]
        search = _name("search", default_search if self.search == "" else self.search, SEARCHES)
        retain = _names("retain", self.retain)
        values = {
            "task": require_text("task", self.task),
            "num_fewshot": _shots(self.num_fewshot),
            "num_samples": require_whole_number("num_samples", self.num_samples, least=1),
            "sites": _name("sites", self.sites, SITE_KINDS),
            "space": _name("space", _default_space(search) if self.space == "" else self.space, SPACES),
            "search": search,
            "layers": _layers(self.layers),
            "bound": require_bound(self.bound),
            "rotation": _name("rotation", self.rotation, ROTATIONS),
            "seed": require_seed(self.seed),
            "apply_chat_template": require_flag("apply_chat_template", self.apply_chat_template),
            "trials_per_step": require_trials_per_step(search, self.trials_per_step),
            "fluency_floor": _fluency_floor(self.fluency_floor, self.kind, objective),
            "max_kl": _max_kl(self.max_kl, search, self.kind, retain),
            "retain": retain,
            "cross_validate": require_flag("cross_validate", self.cross_validate),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        unfit = self.kind is ObjectiveKind.FUNCTION or (search == POLICY_GRADIENT) != (
            self.kind is ObjectiveKind.REWARD
        )
        if SEARCHES[search].follows_gradient and unfit:
            hint = f"try {default_search!r}"
            raise InvalidValueError(f"the search {search!r} cannot follow a gradient of {objective!r}.", hint=hint)
        if self.cross_validate and (self.kind is not ObjectiveKind.ANSWERS or self.num_samples < 2):
            raise InvalidValueError(
                "Cross-validation needs at least two samples, and an objective that scores right answers; "
                "leave cross_validate out."
            )

    @property
    def kind(self) -> ObjectiveKind:
        """Kind of the objective."""
        return ObjectiveKind.of(self.objective)

    @property
    def n_drawn(self) -> int:
        """Number of samples to draw.

        A policy gradient is scored on as many prompts again, which it does not follow. A function of the edited model
        gets none.
        """
        if self.kind is ObjectiveKind.FUNCTION:
            return 0
        return self.num_samples * (2 if self.search == POLICY_GRADIENT else 1)

    def __repr__(self) -> str:
        """Return the call that makes this configuration, without the values that are defaults."""
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.changed().items())})"

    def changed(self) -> dict[str, Any]:
        """Return the fields whose values are not the defaults. Some defaults depend on the objective or the search.

        Example:
            >>> tarot.TaRotConfig("synth_implicatives", search="bo", space="head", bound=0.5).changed()
            {'task': 'synth_implicatives', 'search': 'bo', 'bound': 0.5}
        """
        defaults = {field.name: field.default for field in fields(self)}
        defaults |= {"search": _DEFAULT_SEARCHES[self.kind], "space": _default_space(self.search)}
        defaults["max_kl"] = _max_kl(AUTO, self.search, self.kind, self.retain)
        return {name: value for name, value in vars(self).items() if value != defaults[name]}

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TaRotConfig":
        """Return the configuration that `to_dict` wrote, such as the one in an adapter's provenance.

        Keys that are not fields are ignored; fields that are missing take their defaults.

        Raises:
            InvalidValueError: there is no task, or a value that the constructor refuses.
        """
        require_mapping("values", values)
        if not values or "task" not in values:
            problem, hint = "The adapter does not record the task that it was tuned on.", UNTUNED_HINT
            if values and len(values.get("parents", ())) > 1:
                problem = "The adapter is composed of several, so it has no task of its own."
                hint += "; compare, gate, prune, analysis and effects take the adapters that it is made from"
            raise InvalidValueError(problem, hint=hint)
        known = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        return cls(**known)


def _default_space(search: str) -> str:
    return "head" if search == "bo" else "full"  # without a gradient, a Gaussian process needs few coordinates


def _name(kind: str, value: object, known: Mapping[str, object]) -> str:
    name = require_text(kind, value)
    _ = known[name]  # raises UnknownName
    return name


def _names(kind: str, values: object) -> tuple[str, ...]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise InvalidValueError(f"{kind} must be a list of names, not {values!r}.")
    names = tuple(values)
    if not all(isinstance(name, str) and name.strip() for name in names):
        raise InvalidValueError(f"{kind} must be a list of names, not {values!r}.")
    return tuple(dict.fromkeys(names))


def _max_kl(value: object, search: str, kind: ObjectiveKind, retain: tuple[str, ...]) -> float | None:
    can_hold = SEARCHES[search].holds_limit
    if value == AUTO:
        value = MAX_KL if retain or (can_hold and kind is not ObjectiveKind.REWARD) else None
    if value is None:
        if retain:
            raise InvalidValueError("retain needs a limit of divergence; leave max_kl out, or set it.")
        return None
    allowed = f"a positive number of nats a token, such as {MAX_KL}"
    number = require_number("max_kl", value, allowed, lambda x: 0 < x < math.inf)
    if not can_hold:
        able = " or ".join(name for name, known in SEARCHES.items() if known.holds_limit)
        raise InvalidValueError(
            f"max_kl and retain need a search that holds a limit of divergence ({able}), not {search!r}."
        )
    return number


def _shots(value: object) -> int | str:
    if isinstance(value, str) and value == "mix":
        return value
    return require_whole_number("num_fewshot", value, note=", or 'mix'")


def _layers(value: object) -> float | tuple[int, ...]:
    if isinstance(value, Real) and not isinstance(value, Integral) and 0 < abs(fraction := float(value)) <= 1:
        return fraction
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping):
        layers = tuple(map(as_integer, value))
        if layers and all(layer is not None and layer >= 0 for layer in layers):
            return tuple(layer for layer in layers if layer is not None)
    hint = f"; [{value}] is one layer, 1.0 is all" if as_integer(value) is not None else ""
    raise InvalidValueError(
        f"layers must be a fraction such as 0.5 or -0.5, or a list of indices such as [0, 3], not {value!r}{hint}."
    )


def _fluency_floor(value: object, kind: ObjectiveKind, objective: str) -> str | None:
    text = None if value is None else require_text("fluency_floor", value)
    if FluencyFloor.parse(text) != NO_FLOOR and kind is not ObjectiveKind.REWARD:
        raise InvalidValueError(f"a fluency floor needs a reward as objective, not {objective!r}.")
    return text
