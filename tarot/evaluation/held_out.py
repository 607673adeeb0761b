"""The change of a model on text that its edit was not tuned on, as `tarot tune` measured it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tarot._files.strict_json import Count, Number, validate
from tarot.errors import TarotError

if TYPE_CHECKING:  # its module imports torch
    from tarot.edit.adapter import Adapter


@dataclass(frozen=True)
class HeldOut:
    """Divergence and perplexity on text that the model generated, and that no search has seen.

    Attributes:
        tokens: number of predicted tokens.
        kl: KL(base || edited), in nats a token.
        low: lower end of its 95% CI over texts.
        high: upper end.
        perplexity_ratio: perplexity of the edited model over the base's.
    """

    tokens: Count
    kl: Number
    low: Number
    high: Number
    perplexity_ratio: Number


def held_out_of(adapter: "Adapter") -> HeldOut | None:
    """Return what was measured of an edit on held-out text; None if nothing was.

    A gated edit has none: `tarot tune` measured it without its gate.

    Raises:
        TarotError: the adapter records numbers that tarot does not write.

    Example:
        >>> held_out_of(adapter) is None  # tuned in Python, which does not measure it
        True
    """
    retention = adapter.provenance.get("retention")
    values = retention.get("held_out") if isinstance(retention, Mapping) else None
    if values is None or adapter.gate:
        return None
    try:
        held_out: HeldOut = validate(HeldOut, values)
    except ValueError as error:
        raise TarotError(
            f"The adapter's record of held-out text is damaged: {error}", hint="tune the adapter again"
        ) from error
    return held_out
