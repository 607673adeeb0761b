"""Neutral text is sampled once a model, by its seed."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from adapters import TEXT, byte_adapter, loaded_bytes, model_of_bytes
from checkpoint import byte_model, byte_tokenizer

from tarot.analysis.divergence import measure_divergence
from tarot.analysis.neutral_text import neutral_text
from tarot.errors import TarotError
from tarot.models.generation.own_text import sample_texts


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def test_text_equals_sampling_without_a_cache() -> None:
    model = model_of_bytes()
    text = neutral_text(loaded_bytes(), 60, seed=3)
    generator = torch.Generator().manual_seed(3)
    oracle = torch.zeros(1, 1, dtype=torch.long)
    for _ in range(60):
        with torch.no_grad():
            chances = model(oracle).logits[:, -1].softmax(-1)
        oracle = torch.cat([oracle, torch.multinomial(chances, 1, generator=generator)], dim=1)
    assert torch.equal(text, oracle)


def test_text_depends_on_length_and_seed() -> None:
    text = neutral_text(loaded_bytes(), 700)
    assert text.shape == (3, 257) and set(text[:, 0].tolist()) == {0}
    assert torch.equal(text, neutral_text(loaded_bytes(), 700))
    assert not torch.equal(text, neutral_text(loaded_bytes(), 700, seed=1))
    assert neutral_text(loaded_bytes(max_length=40), 100).shape == (3, 40)


def test_batch_size_bounds_each_pass_and_does_not_change_the_text(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    passes: list[int] = []
    text, divergences = neutral_text(loaded_bytes(), 1000), measure_divergence(model_of_bytes(), [byte_adapter()], TEXT)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # an empty cache folder
    hook = model_of_bytes().register_forward_pre_hook(
        lambda _, args, kwargs: passes.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    try:
        assert torch.equal(neutral_text(loaded_bytes(), 1000, batch_size=3), text) and set(passes) == {
            2
        }  # four texts in two passes
        passes.clear()
        (batched,) = measure_divergence(model_of_bytes(), [byte_adapter()], TEXT, 2)
        assert set(passes) == {1, 2} and batched.kl.value == pytest.approx(divergences[0].kl.value, rel=1e-4)
    finally:
        hook.remove()


def test_text_is_sampled_once_a_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    first = neutral_text(loaded_bytes(), 30, on_step=lambda *step: steps.append(step))
    assert steps[-1] == ("writing neutral text", 30, 30)
    steps.clear()
    assert torch.equal(first, neutral_text(loaded_bytes(), 30, on_step=lambda *step: steps.append(step))) and not steps
    neutral_text(loaded_bytes(seed=1), 30, on_step=lambda *step: steps.append(step))
    assert steps  # another model has another text
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # a cache folder that cannot be written
    assert torch.equal(first, neutral_text(loaded_bytes(), 30))


def test_a_model_without_numbers_is_an_error() -> None:
    model = byte_model()
    model.model.layers[1].mlp.down_proj.weight[0, 0] = math.nan
    with pytest.raises(TarotError, match="float32"):
        sample_texts(model, 0, 2, 3, torch.Generator().manual_seed(0))


def test_errors() -> None:
    with pytest.raises(TarotError, match="token"):
        neutral_text(loaded_bytes(), 0)
    with pytest.raises(TarotError, match="seed"):
        neutral_text(loaded_bytes(), 30, seed=2**64)
    tokenizer = byte_tokenizer()
    tokenizer.bos_token = tokenizer.eos_token = None
    with pytest.raises(TarotError, match="tokenizer"):
        neutral_text(replace(loaded_bytes(), tokenizer=tokenizer), 30)
