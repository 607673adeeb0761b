"""Side effects: nothing from nothing, KL against loops, text that is sampled once, and a matrix that adds up."""

import csv
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from functools import cache
from math import exp
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint import byte_model, byte_tokenizer, write_tasks
from hypothesis import given, settings
from hypothesis import strategies as st

from tarot.analysis.divergence import measure_divergence
from tarot.analysis.neutral_text import neutral_text
from tarot.analysis.side_effects import measure_side_effects, measure_task_changes, measure_trade_off
from tarot.edit.adapter import Adapter, Edit
from tarot.edit.rotation import ROTARY
from tarot.edit.sites import find_sites
from tarot.errors import TarotError
from tarot.evaluation.statistics.gains import Gain
from tarot.models.loaded_model import LoadedModel
from tarot.report.side_effects import measure_effects

model_of_bytes = cache(byte_model)
TEXT = torch.randint(2, 258, (5, 17), generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks"))


def loaded(seed: int = 0, **model: int) -> LoadedModel:
    return LoadedModel("bytes", byte_model(seed=seed, **model) if seed or model else model_of_bytes(), byte_tokenizer())


def an_adapter(scale: float = 1.0, seed: int = 0) -> Adapter:
    model = model_of_bytes()
    angles = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(seed)) * scale
    sites = find_sites(model, "heads", 0.5)
    return Adapter(angles, Edit.from_sites(model, "heads", sites, ROTARY), {"task": "own_choice", "budget": 4})


# Drift


@given(st.floats(0, 3), st.integers(0, 1000))
@settings(max_examples=25)
def test_divergence_is_never_negative_and_strength_0_is_nothing(scale: float, seed: int) -> None:
    adapter = an_adapter(scale, seed)
    nothing, whole = measure_divergence(model_of_bytes(), [adapter.scaled(0.0), adapter], TEXT)
    assert (nothing.kl.value, nothing.kl.low, nothing.kl.high) == (0, 0, 0)
    assert nothing.perplexity == nothing.base_perplexity == whole.base_perplexity
    assert 0 <= whole.kl.low <= whole.kl.value <= whole.kl.high
    assert (whole.kl.value > 0) == bool(adapter.angles.any()) or scale < 1e-3
    assert whole.tokens == 5 * 16


def test_drift_is_that_of_one_token_at_a_time() -> None:
    model, adapter = model_of_bytes(), an_adapter()
    (found,) = measure_divergence(model, [adapter], TEXT)
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
    assert found.kl.value == pytest.approx(sum(divergence) / len(divergence), abs=1e-4)
    assert found.base_perplexity == pytest.approx(exp(sum(before) / len(before)), rel=1e-4)
    assert found.perplexity == pytest.approx(exp(sum(after) / len(after)), rel=1e-4)


def test_passes_of_any_size_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    together = measure_divergence(model_of_bytes(), [an_adapter()], TEXT)
    monkeypatch.setattr("tarot.analysis.divergence.LARGEST", 1)
    steps = []
    alone = measure_divergence(model_of_bytes(), [an_adapter()], TEXT, on_step=lambda *step: steps.append(step))
    assert alone[0].kl.value == pytest.approx(together[0].kl.value, abs=1e-6)
    assert [done for _, done, _ in steps] == [1, 2, 3, 4, 5]


# Neutral text


def test_text_is_what_the_model_writes_without_a_cache_of_keys() -> None:
    model = model_of_bytes()
    text = neutral_text(loaded(), 60, seed=3)
    generator = torch.Generator().manual_seed(3)
    oracle = torch.zeros(1, 1, dtype=torch.long)
    for _ in range(60):
        with torch.no_grad():
            chances = model(oracle).logits[:, -1].softmax(-1)
        oracle = torch.cat([oracle, torch.multinomial(chances, 1, generator=generator)], dim=1)
    assert torch.equal(text, oracle)


def test_text_has_as_many_tokens_as_are_asked_for_and_its_seed() -> None:
    text = neutral_text(loaded(), 700)
    assert text.shape == (3, 257) and set(text[:, 0].tolist()) == {0}
    assert torch.equal(text, neutral_text(loaded(), 700))
    assert not torch.equal(text, neutral_text(loaded(), 700, seed=1))
    assert neutral_text(loaded(max_length=40), 100).shape == (3, 40)


def test_a_batch_size_bounds_every_pass_and_decides_no_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    passes: list[int] = []
    whole, drifted = neutral_text(loaded(), 1000), measure_divergence(model_of_bytes(), [an_adapter()], TEXT)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # where it is not kept yet
    hook = model_of_bytes().register_forward_pre_hook(
        lambda _, args, kwargs: passes.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    try:
        assert torch.equal(neutral_text(loaded(), 1000, batch_size=3), whole) and set(passes) == {2}  # of four texts
        passes.clear()
        (found,) = measure_divergence(model_of_bytes(), [an_adapter()], TEXT, 2)
        assert set(passes) == {1, 2} and found.kl.value == pytest.approx(drifted[0].kl.value, rel=1e-4)
    finally:
        hook.remove()


def test_text_is_sampled_once_a_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    first = neutral_text(loaded(), 30, on_step=lambda *step: steps.append(step))
    assert steps[-1] == ("writing neutral text", 30, 30)
    steps.clear()
    assert torch.equal(first, neutral_text(loaded(), 30, on_step=lambda *step: steps.append(step))) and not steps
    neutral_text(loaded(seed=1), 30, on_step=lambda *step: steps.append(step))
    assert steps  # other weights, other text
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # where nothing can be kept
    assert torch.equal(first, neutral_text(loaded(), 30))


def test_text_errors() -> None:
    with pytest.raises(TarotError, match="expected at least 1 neutral token, got 0; 20,000 is the default"):
        neutral_text(loaded(), 0)
    with pytest.raises(TarotError, match="expected a seed of at most 63 bits, got 18446744073709551616"):
        neutral_text(loaded(), 30, seed=2**64)
    tokenizer = byte_tokenizer()
    tokenizer.bos_token = tokenizer.eos_token = None
    message = "expected a tokenizer with a first or an end token, got one with neither; texts have to begin somewhere"
    with pytest.raises(TarotError, match=message):
        neutral_text(replace(loaded(), tokenizer=tokenizer), 30)


# Tasks


def test_the_identity_changes_no_task_and_others_count_from_base_to_edited(folder: Path) -> None:
    adapters = [an_adapter().scaled(0.0), an_adapter(3.0)]
    names = ["own_choice", "own_loglikelihood"]
    nothing, row = measure_task_changes(loaded(), adapters, names, include_path=folder)
    assert nothing.keys() == row.keys() == set(names)
    for change in nothing.values():
        gain = change.gain
        assert (gain.value, gain.gained, gain.lost, gain.n, gain.p) == (0, 0, 0, 12, 1)
    for name, change in row.items():
        assert change.edited - change.base == pytest.approx(change.gain.value)
        assert change.base == nothing[name].base == nothing[name].edited


def test_side_effects_leave_out_the_task_that_was_tuned_on(folder: Path) -> None:
    names = ["own_choice", "own_loglikelihood"]
    found = measure_side_effects(loaded(), an_adapter(), names, n_tokens=40, include_path=folder, limit=4)
    assert found.changes.keys() == {"own_loglikelihood"}
    assert found.changes["own_loglikelihood"].gain.n == 4 and found.drift.tokens == 40
    alone = measure_side_effects(loaded(), an_adapter(), names[:1], n_tokens=40, include_path=folder)
    assert alone.changes == {} and alone.drift == found.drift


def test_a_trade_off_begins_at_nothing_and_ends_at_the_adapter(folder: Path) -> None:
    adapter = an_adapter()
    (first, half, last) = measure_trade_off(loaded(), adapter, TEXT, (0.0, 0.5, 1.0), include_path=folder)
    assert (first.change.gain.value, first.drift.kl.value) == (0, 0)
    assert 0 < half.drift.kl.value < last.drift.kl.value
    assert [last.drift] == measure_divergence(model_of_bytes(), [adapter], TEXT)
    (row,) = measure_task_changes(loaded(), [adapter], ["own_choice"], include_path=folder, num_fewshot=0)
    assert row["own_choice"] == last.change


def test_strengths_are_from_0_to_1(folder: Path) -> None:
    with pytest.raises(
        TarotError, match=r"expected a strength from 0 \(the base model\) to 1 \(the adapter\), got 1.5"
    ):
        measure_trade_off(loaded(), an_adapter(), TEXT, (0.0, 1.5), include_path=folder)


def test_an_adapter_tuned_for_a_reward_has_no_right_answers(tmp_path: Path) -> None:
    rewarded = replace(an_adapter(), provenance={"task": "openings", "objective": "fluency", "budget": 4})
    message = (
        "expected adapters tuned on right answers, for what a strength buys, got one, tuned for fluency; "
        "tarot evaluate --side-effects has the rest"
    )
    with pytest.raises(TarotError, match=message):
        measure_effects(loaded(), {"one": rewarded}, tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ({"heads": 2}, {}, "this adapter is for another model"),
        ({}, {"strengths": [0.5, 2.0]}, "expected a strength from 0"),
        ({}, {"tasks": ["own_chioce"]}, "own_chioce"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_run(
    folder: Path, tmp_path: Path, model: dict[str, int], options: dict[str, Any], message: str
) -> None:
    steps: list[object] = []
    asked: dict[str, Any] = {
        "tasks": ["own_choice"],
        "include_path": folder,
        "on_step": lambda *step: steps.append(step),
    }
    with pytest.raises(TarotError, match=message):
        measure_effects(loaded(**model), {"one": an_adapter()}, tmp_path / "out", **asked | options)
    assert not steps and not (tmp_path / "out").exists()


def test_the_folder_holds_the_matrix_and_the_trade_off(folder: Path, tmp_path: Path) -> None:
    adapters = {"one": an_adapter(), "two": an_adapter(3.0, seed=1)}
    suite = ["own_loglikelihood"]
    strengths = (0.0, 1.0)
    found = measure_effects(
        loaded(), adapters, tmp_path, suite, strengths=strengths, n_tokens=40, include_path=folder, limit=6
    )
    with (tmp_path / "effects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["adapter"], row["task"], row["tuned_on"]) for row in rows] == [
        (name, task, str(task == "own_choice")) for name in adapters for task in [*suite, "own_choice"]
    ]
    assert isinstance(found.matrix["one"]["own_choice"].gain, Gain)
    with (tmp_path / "tradeoff.csv").open(newline="") as file:
        points = list(csv.DictReader(file))
    assert [(point["adapter"], float(point["strength"])) for point in points] == [
        (name, strength) for name in adapters for strength in strengths
    ]
    assert all(float(point["kl_nats"]) == 0 for point in points if point["strength"] == "0")
    for name in ("effects", "tradeoff"):
        root = ElementTree.fromstring((tmp_path / f"{name}.svg").read_text())
        assert "one" in root.find("{*}desc").text
