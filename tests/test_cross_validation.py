"""Cross-validation of a search: halves, an answer that can be learned, one that cannot, and resumption."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from after_trial import AfterTrial
from hypothesis import given
from hypothesis import strategies as st

from tarot.errors import InvalidValueError, TarotError
from tarot.models.loaded_model import LoadedModel
from tarot.objectives.tasks.samples import Sample
from tarot.search import cross_validation
from tarot.search.callbacks import Callback
from tarot.search.config import TaRotConfig
from tarot.search.cross_validation import CROSS_VALIDATION_FILE, cross_validate, split_in_halves
from tarot.search.folder import RECIPE
from tarot.search.loop import SearchResult, run_search
from tarot.search.problem import Problem
from tarot.search.trials import Trial
from tarot.search.tune import tune

CONFIG = TaRotConfig("own_choice", num_samples=8, max_kl=None, cross_validate=True)


@given(st.lists(st.integers(0, 3), min_size=2, max_size=20))
def test_halves_have_the_same_classes(classes: list[int]) -> None:
    pairs = tuple(("Is it?", f" {word}") for word in ("yes", "no", "maybe", "never"))
    samples = [Sample(str(i), f"key {i}", pairs, gold, num_fewshot=0) for i, gold in enumerate(classes)]
    first, second = split_in_halves(samples)
    assert sorted(sample.id for sample in (*first, *second)) == sorted(sample.id for sample in samples)
    counts = Counter(sample.gold for sample in first), Counter(sample.gold for sample in second)
    assert all(abs(counts[0][gold] - counts[1][gold]) <= 1 for gold in classes)


def with_answers(problem: Problem, golds: list[int]) -> Problem:
    """Give the samples answers of one byte, of which more of one is less of the other."""
    samples = [
        replace(sample, pairs=tuple((sample.pairs[0][0], answer) for answer in "ab"), gold=gold)
        for sample, gold in zip(problem.samples, golds, strict=True)
    ]
    return replace(problem, samples=samples)


def test_it_tells_what_can_be_learned_from_what_cannot(loaded: LoadedModel, tasks_folder: Path) -> None:
    """One answer for all is learned from any half. An answer that one half lacks is unlearned there."""
    problem = Problem.from_config(loaded, CONFIG, tasks_folder)
    n = len(problem.samples)
    same = cross_validate(with_answers(problem, [0] * n), budget=60)
    assert same["edited"] > same["base"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cross_validation, "split_in_halves", lambda samples: (samples[: n // 2], samples[n // 2 :]))
        opposite = cross_validate(with_answers(problem, [0] * (n // 2) + [1] * (n // 2)), budget=60)
    assert opposite["edited"] < opposite["base"]


@pytest.mark.parametrize("edited", [-3.0, -1.0])
def test_the_edit_is_the_identity_where_halves_do_not_help(
    loaded: LoadedModel, tasks_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, edited: float
) -> None:
    monkeypatch.setattr("tarot.search.tune.cross_validate", lambda *args, **options: {"base": -2.0, "edited": edited})
    adapter = tune(*loaded, CONFIG, budget=12, include_path=tasks_folder, output_dir=tmp_path)
    helps = edited > -2
    assert bool(adapter.angles.any()) is helps
    assert adapter.provenance["trials"] == (4 if helps else 1)
    assert adapter.provenance["budget"] == 12
    assert adapter.provenance["cross_validation"]["base"] == -2.0
    # A larger budget may be refused where a smaller one was not.
    monkeypatch.setattr("tarot.search.tune.cross_validate", lambda *args, **options: {"base": -2.0, "edited": -3.0})
    resumed = tune(*loaded, CONFIG, budget=15, include_path=tasks_folder, output_dir=tmp_path, resume=True)
    assert not resumed.angles.any()
    assert yaml.safe_load((tmp_path / RECIPE).read_text())["cross_validate"] is True


def test_a_refused_edit_is_not_picked(
    loaded: LoadedModel, tasks_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = replace(CONFIG, max_kl=1.0)
    monkeypatch.setattr("tarot.search.tune.cross_validate", lambda *args, **options: {"base": -2.0, "edited": -1.0})
    options: dict[str, Any] = {"include_path": tasks_folder, "output_dir": tmp_path, "resume": True, "pick": 2}
    assert tune(*loaded, config, budget=12, **options).angles.any()
    monkeypatch.setattr("tarot.search.tune.cross_validate", lambda *args, **options: {"base": -2.0, "edited": -3.0})
    assert not tune(*loaded, config, budget=15, **options).angles.any()


def test_the_recipe_of_an_interrupted_search_has_no_cross_validation(
    loaded: LoadedModel, tasks_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its budget is that of the part which ran, and the halves were searched with the whole one."""

    def interrupt(trial: Trial, result: SearchResult) -> None:
        if trial.index == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("tarot.search.tune.cross_validate", lambda *args, **options: {"base": -2.0, "edited": -1.0})
    tune(
        *loaded,
        CONFIG,
        budget=30,
        include_path=tasks_folder,
        output_dir=tmp_path / "out",
        callbacks=[AfterTrial(interrupt)],
    )
    recipe = yaml.safe_load((tmp_path / "out" / RECIPE).read_text())
    assert recipe["budget"] == 9 and recipe["cross_validate"] is False


def test_the_search_on_all_samples_is_unchanged_by_it(loaded: LoadedModel, tasks_folder: Path) -> None:
    phases: list[str] = []

    class Phases(Callback):
        def on_phase(self, phase: str) -> None:
            phases.append(phase)

    plain = tune(*loaded, replace(CONFIG, cross_validate=False), budget=12, include_path=tasks_folder)
    checked = tune(*loaded, CONFIG, budget=12, include_path=tasks_folder, callbacks=[Phases()])
    assert phases == ["cross-validating, half 1 of 2", "cross-validating, half 2 of 2"]
    assert torch.equal(checked.angles, plain.angles) or not checked.angles.any()
    assert "cross_validation" not in plain.provenance


def test_an_interrupted_run_keeps_the_first_half(
    loaded: LoadedModel, tasks_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = Problem.from_config(loaded, CONFIG, tasks_folder)
    expected = cross_validate(problem, budget=9)
    calls: list[int] = []

    def interrupted_second(*args: object, **options: object) -> object:
        calls.append(1)
        result = run_search(*args, **options)
        return replace(result, interrupted=True) if len(calls) == 2 else result

    monkeypatch.setattr(cross_validation, "run_search", interrupted_second)
    with pytest.raises(KeyboardInterrupt):
        cross_validate(problem, budget=9, folder=tmp_path)
    assert len(json.loads((tmp_path / CROSS_VALIDATION_FILE).read_text())) == 1
    assert cross_validate(problem, budget=9, folder=tmp_path) == expected
    assert len(calls) == 3  # the first half was not searched again
    assert cross_validate(problem, budget=9, folder=tmp_path) == expected
    assert len(calls) == 3
    assert cross_validate(problem, budget=6, folder=tmp_path) == cross_validate(problem, budget=6) != expected
    (tmp_path / CROSS_VALIDATION_FILE).write_text('[{"base": "x"}]')
    assert cross_validate(problem, budget=9, folder=tmp_path) == expected


def test_scores_that_are_no_numbers_are_refused_and_not_kept(
    loaded: LoadedModel, tasks_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = Problem.from_config(loaded, CONFIG, tasks_folder)
    monkeypatch.setattr(cross_validation, "_validate_half", lambda *args: {"base": -1.0, "edited": float("nan")})
    with pytest.raises(TarotError, match="finite"):
        cross_validate(problem, budget=9, folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_it_needs_right_answers() -> None:
    for settings in ({"objective": "fluency"}, {"objective": "model"}, {"num_samples": 1}):
        with pytest.raises(InvalidValueError, match="cross_validate"):
            TaRotConfig("openings", cross_validate=True, **settings)
