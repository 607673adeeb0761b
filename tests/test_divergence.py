"""Perplexity and KL divergence against loops over tokens."""

from math import exp
from typing import Any

import pytest
import torch
from adapters import TEXT, byte_adapter, loaded_bytes, model_of_bytes
from hypothesis import given, settings
from hypothesis import strategies as st

from tarot.analysis import divergence
from tarot.analysis.divergence import measure_divergence


@given(st.floats(0, 3), st.integers(0, 1000))
@settings(max_examples=25)
def test_divergence_is_not_negative_and_zero_at_strength_0(scale: float, seed: int) -> None:
    adapter = byte_adapter(scale, seed)
    identity, full = measure_divergence(model_of_bytes(), [adapter.scaled(0.0), adapter], TEXT)
    assert (identity.kl.value, identity.kl.low, identity.kl.high) == (0, 0, 0)
    assert identity.perplexity == identity.base_perplexity == full.base_perplexity
    assert 0 <= full.kl.low <= full.kl.value <= full.kl.high
    assert (full.kl.value > 0) == bool(adapter.angles.any()) or scale < 1e-3
    assert full.tokens == 5 * 16


def test_divergence_equals_that_of_single_tokens() -> None:
    model, adapter = model_of_bytes(), byte_adapter()
    (measured,) = measure_divergence(model, [adapter], TEXT)
    divergence, before, after = [], [], []
    for text in TEXT:
        for i in range(1, len(text)):
            with torch.no_grad():
                base = model(text[None, :i]).logits[0, -1].log_softmax(-1)
                with adapter.apply(model):
                    edited = model(text[None, :i]).logits[0, -1].log_softmax(-1)
            divergence.append(sum(p.exp().item() * (p - q).item() for p, q in zip(base, edited, strict=True)))
            before.append(-base[text[i]].item())
            after.append(-edited[text[i]].item())
    assert measured.kl.value == pytest.approx(sum(divergence) / len(divergence), abs=1e-4)
    assert measured.base_perplexity == pytest.approx(exp(sum(before) / len(before)), rel=1e-4)
    assert measured.perplexity == pytest.approx(exp(sum(after) / len(after)), rel=1e-4)


def test_batches_of_any_size_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    together = measure_divergence(model_of_bytes(), [byte_adapter()], TEXT)
    monkeypatch.setattr("tarot.analysis.divergence.MAX_LOGITS", 1)
    steps = []
    alone = measure_divergence(model_of_bytes(), [byte_adapter()], TEXT, on_step=lambda *step: steps.append(step))
    assert alone[0].kl.value == pytest.approx(together[0].kl.value, abs=1e-6)
    assert [done for _, done, _ in steps] == [1, 2, 3, 4, 5]


def test_held_out_text_is_written_and_read_in_batches_of_the_given_size(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    neutral_text = divergence.neutral_text

    def write(*args: Any, **options: Any) -> torch.Tensor:
        sizes.append(options.get("batch_size"))
        return neutral_text(*args, **options)

    monkeypatch.setattr(divergence, "neutral_text", write)
    divergence.measure_held_out(loaded_bytes(), byte_adapter(), batch_size=2, n_tokens=40)
    assert sizes == [2]
