"""The divergence that a limit achieved, on text that the search has not read."""

from dataclasses import replace
from typing import Any

from tarot.analysis.divergence import measure_divergence
from tarot.analysis.neutral_text import neutral_text
from tarot.edit.adapter import Adapter
from tarot.models.loaded_model import LoadedModel

HELD_OUT_TOKENS = 5000


def measure_held_out(
    loaded: LoadedModel, adapter: Adapter, batch_size: int | None = None, n_tokens: int = HELD_OUT_TOKENS
) -> Adapter:
    """Return an adapter whose provenance has its divergence on neutral text, with the 95% CI over the texts.

    Args:
        loaded: model and tokenizer; unchanged afterwards.
        adapter: an edit that was tuned under a limit.
        batch_size: most texts of a forward pass; None to choose it automatically.
        n_tokens: least number of tokens of neutral text.

    Raises:
        TarotError: the adapter does not fit the model, or a log-probability is not finite.

    Example:
        >>> loaded = tarot.load_model("wheel:smollm2-135m")
        >>> measured = measure_held_out(loaded, adapter, n_tokens=500)
        >>> measured.provenance["retention"]["held_out"]["tokens"]
        512
    """
    (divergence,) = measure_divergence(loaded.model, [adapter], neutral_text(loaded, n_tokens), batch_size)
    held_out = {
        "tokens": divergence.tokens,
        "kl": divergence.kl.value,
        "low": divergence.kl.low,
        "high": divergence.kl.high,
        "perplexity_ratio": divergence.perplexity / divergence.base_perplexity,
    }
    retention: Any = adapter.provenance.get("retention", {})
    return replace(adapter, provenance={**adapter.provenance, "retention": {**retention, "held_out": held_out}})
