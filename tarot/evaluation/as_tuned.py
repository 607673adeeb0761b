"""FIXME: one sentence on this module."""

from collections.abc import Mapping
from typing import Any, get_type_hints

from tarot.edit.adapter import Adapter
from tarot.errors import TarotError
from tarot.search.config import TaRotConfig, check_config


def config_of(adapter: Adapter) -> TaRotConfig:
    """The recipe in an adapter's provenance.

    Raises:
        TarotError: there is none, or none that could have been tuned; or its budget is missing.
    """
    known = get_type_hints(TaRotConfig)
    found: dict[str, Any] = {name: value for name, value in adapter.provenance.items() if name in known}
    for name in ("task", "budget"):
        if name not in adapter.provenance:
            raise TarotError("an adapter that says what it was tuned on", f"one without a {name}", "tune it with tarot")
    if isinstance(found.get("layers"), list):
        found["layers"] = tuple(found["layers"])
    for name, value in found.items():
        if name == "layers" and isinstance(value, tuple):
            continue
        kinds: Any = (known[name], int) if known[name] is float else known[name]
        if not isinstance(value, kinds) or (isinstance(value, bool) and known[name] is not bool):
            raise TarotError("the recipe of an adapter as tarot writes it", f"{name} {value!r}", "tune it with tarot")
    check_config(config := TaRotConfig(**found))
    return config


def tuning_samples(adapter: Adapter) -> list[Mapping[str, Any]]:
    samples: Any = adapter.provenance.get("samples_drawn")
    if not samples or not all("id" in sample for sample in samples):
        got, hint = "one without its samples", "tune it with tarot"
        raise TarotError("an adapter that says what it was tuned on", got, hint)
    return list(samples)
