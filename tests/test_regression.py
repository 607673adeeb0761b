"""The gate: planted regressions fail it, the same run again and noise do not, and it says what it cannot judge."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from checkpoint import byte_model, byte_tokenizer, write_tasks
from hypothesis import given, settings
from hypothesis import strategies as st
from test_compare import tuned

from tarot.edit.adapter import Adapter
from tarot.errors import TarotError
from tarot.evaluation.compare import compare
from tarot.evaluation.evaluate import evaluate
from tarot.evaluation.regression import Verdict, check_regressions, identity, save_reference, update_reference
from tarot.evaluation.results import Arm, Comparison
from tarot.evaluation.results_file import comparisons_to_json, load_comparisons
from tarot.models.loaded_model import LoadedModel

TOLERANCE = 0.02


def comparison(
    right: list[bool], *, seed: int = 0, keys: tuple[str, ...] | None = None, **change: object
) -> Comparison:
    """Documents of two choices, answered right or wrong."""
    gold = tuple(i % 2 for i in range(len(right)))
    given = tuple(g if r else 1 - g for g, r in zip(gold, right, strict=True))
    arms = (
        Arm("zero-shot", 0, gold, gold, (0.5,) * len(gold), 1.0),
        Arm("edited", 20, given, given, (0.5,) * len(gold), 2.0),
    )
    values = {
        "model": "model",
        "task": "task",
        "num_fewshot": 0,
        "seed": seed,
        "samples": 20,
        "budget": 60,
        "search": "bo",
        "space": "head",
        "objective": "log_probability",
        "command": "tarot tune",
        "keys": keys or tuple(f"key{i}" for i in range(len(gold))),
        "gold": gold,
        "texts": tuple(f"text {i}" for i in range(len(gold))),
        "arms": arms,
        "seconds": 3.0,
        "reference_seconds": 0.05,
        "versions": {"torch": "2.13"},
    }
    return Comparison(**{**values, **change})


def failed(verdicts: list[Verdict]) -> list[bool]:
    return [verdict.failed for verdict in verdicts]


# Both directions, on a real model: its right answers are what the edited model says, so the edit is perfect


@pytest.fixture(scope="module")
def lesson(tmp_path_factory: pytest.TempPathFactory) -> tuple[LoadedModel, Path, Adapter, Comparison]:
    loaded = LoadedModel("bytes", byte_model(), byte_tokenizer())
    folder = write_tasks(tmp_path_factory.mktemp("lesson"), test=40)
    for path in folder.glob("*.jsonl"):
        path.write_text(path.read_text().replace('"redder"', '"tan"').replace('"blue"', '"sky"'))
    adapter = tuned(loaded, folder)
    results = evaluate(loaded.model, loaded.tokenizer, ["own_choice"], adapter=adapter, include_path=folder)
    documents = [json.loads(line) for line in (folder / "test.jsonl").read_text().splitlines()]
    for document, logged in zip(documents, results["samples"]["own_choice"], strict=True):
        scores = [score for score, _ in logged["filtered_resps"]]
        document["gold"] = scores.index(max(scores))
    (folder / "test.jsonl").write_text("".join(json.dumps(document) + "\n" for document in documents))
    return loaded, folder, adapter, compare(loaded.model, loaded.tokenizer, adapter, include_path=folder)


def test_scrambled_angles_fail(lesson: tuple[LoadedModel, Path, Adapter, Comparison]) -> None:
    loaded, folder, adapter, then = lesson
    assert then.arm("edited").predicted == then.gold
    permuted = adapter.angles.flatten()[torch.randperm(24, generator=torch.Generator().manual_seed(1))]
    scrambled = replace(adapter, angles=permuted.reshape(adapter.angles.shape))
    (verdict,) = check_regressions(
        [then], [compare(loaded.model, loaded.tokenizer, scrambled, include_path=folder)], TOLERANCE
    )
    assert verdict.failed
    assert "weighted F1 among the choices fell by 0." in verdict.words[1]
    assert f"another edit: {then.adapter} then, {scrambled.fingerprint} now" in verdict.words


def test_a_shifted_label_fails(lesson: tuple[LoadedModel, Path, Adapter, Comparison], tmp_path: Path) -> None:
    """In the data, where every document becomes another; and in how answers are read, where it stays what it was."""
    loaded, folder, adapter, then = lesson
    for path in folder.iterdir():
        (tmp_path / path.name).write_text(path.read_text().replace(str(folder), str(tmp_path)))
    documents = [json.loads(line) for line in (tmp_path / "test.jsonl").read_text().splitlines()]
    shifted = [{**document, "gold": (document["gold"] + 1) % 3} for document in documents]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(document) + "\n" for document in shifted))
    (verdict,) = check_regressions(
        [then], [compare(loaded.model, loaded.tokenizer, adapter, include_path=tmp_path)], TOLERANCE
    )
    assert verdict.failed
    assert "other data: 0 documents in common of 40 then and 40 now" in verdict.words

    arms = tuple(replace(arm, predicted=tuple((i + 1) % 3 for i in arm.predicted)) for arm in then.arms)
    assert failed(check_regressions([then], [replace(then, arms=arms)], TOLERANCE)) == [True]


def test_the_same_run_again_passes_50_times_of_50(lesson: tuple[LoadedModel, Path, Adapter, Comparison]) -> None:
    loaded, folder, adapter, then = lesson
    again = compare(loaded.model, loaded.tokenizer, adapter, include_path=folder)
    assert [arm.predicted for arm in again.arms] == [arm.predicted for arm in then.arms]
    assert [check_regressions([then], [again], 0.0)[0].failed for _ in range(50)] == [False] * 50


# Noise


def test_noise_does_not_fail_and_a_loss_does() -> None:
    """100 documents, 70% right then; now each of 12 runs flips 6 of them at random, or loses 25."""
    rng = random.Random(0)
    before = [i % 10 < 7 for i in range(100)]
    then = [comparison(before, seed=seed) for seed in range(12)]
    noisy, lossy = [], []
    for seed in range(12):
        now = list(before)
        for i in rng.sample(range(100), 6):
            now[i] = not now[i]
        noisy.append(comparison(now, seed=seed))
        lost = set(rng.sample([i for i in range(100) if before[i]], 25))
        lossy.append(comparison([right and i not in lost for i, right in enumerate(before)], seed=seed))
    assert failed(check_regressions(then, noisy, TOLERANCE)) == [False] * 12
    assert failed(check_regressions(then, lossy, TOLERANCE)) == [True] * 12


def test_significant_within_the_tolerance_passes() -> None:
    then, now = [True] * 400, [i >= 7 for i in range(400)]
    assert failed(check_regressions([comparison(then)], [comparison(now)], TOLERANCE)) == [False]
    assert failed(check_regressions([comparison(then)], [comparison(now)], 0.01)) == [True]


@settings(max_examples=20)  # each compares with thousands of resamples
@given(st.lists(st.booleans(), min_size=1, max_size=20), st.integers(1, 4))
def test_nothing_regresses_from_itself(right: list[bool], n: int) -> None:
    comparisons = [comparison(right, seed=seed) for seed in range(n)]
    assert failed(check_regressions(comparisons, comparisons[::-1], 0.0)) == [False] * n


# What it cannot judge, it says


def test_missing_and_new_cells_are_said_so() -> None:
    right = [True] * 20
    verdicts = check_regressions(
        [comparison(right), comparison(right, seed=1)], [comparison(right), comparison(right, budget=9)], TOLERANCE
    )
    assert failed(verdicts) == [False, False, True]
    assert [(verdict.comparison.partition("seed ")[2], verdict.words[0]) for verdict in verdicts] == [
        ("0, budget 60", "weighted F1 of the greedy answer +0.000 since then"),
        ("0, budget 9", "new, not in the baseline"),
        ("1, budget 60", "in the baseline, but not measured now"),
    ]


def test_a_run_without_any_cell_of_the_baseline_fails() -> None:
    for allow_missing in (False, True):
        assert failed(check_regressions([comparison([True])], [], TOLERANCE, allow_missing=allow_missing)) == [True]
        now = [comparison([True], seed=1)]
        assert failed(check_regressions([comparison([True])], now, TOLERANCE, allow_missing=allow_missing)) == [
            True,
            False,
        ]


@pytest.mark.parametrize("n", [0, 1])
def test_an_empty_baseline_fails(n: int) -> None:
    (verdict,) = check_regressions([], [comparison([True])] * n, TOLERANCE)
    assert verdict == Verdict("baseline", True, ("it holds no cell to compare with",))


CHANGES = {
    "samples": 19,
    "budget": 59,
    "search": "adam",
    "space": "full",
    "objective": "margin",
    "dtype": "float16",
    "model": "other",
    "task": "other",
    "num_fewshot": 1,
    "mixed": True,
    "seed": 7,
}


@settings(max_examples=40)
@given(st.sets(st.sampled_from(sorted(CHANGES)), min_size=1), st.booleans())
def test_a_cell_with_any_other_setting_is_missing(names: set[str], lost: bool) -> None:
    """Also if its partner still passes, and whatever the changed cell answers."""
    then = [comparison([True] * 8), comparison([True] * 8, seed=1)]
    changed = comparison([not lost] * 8, **{name: CHANGES[name] for name in names})
    verdicts = check_regressions(then, [changed, then[1]], TOLERANCE)
    missing = [verdict for verdict in verdicts if verdict.failed]
    assert [verdict.words[0] for verdict in missing] == ["in the baseline, but not measured now"]
    assert failed(check_regressions(then, [changed, then[1]], TOLERANCE, allow_missing=True)) == [False] * 3
    if not names & {"model", "task", "num_fewshot", "mixed", "seed"}:
        words = " ".join(missing[0].words[1:])
        assert all(f"{name} {getattr(then[0], name)} then, {CHANGES[name]} now" in words for name in names)


@settings(max_examples=30)
@given(st.integers(8, 20), st.integers(1, 7), st.booleans())
def test_documents_of_the_baseline_that_are_not_measured_fail(n: int, left_out: int, more: bool) -> None:
    then, now = (
        comparison([True] * n),
        comparison([True] * (n - left_out), keys=tuple(f"key{i}" for i in range(n - left_out))),
    )
    (verdict,) = check_regressions([then], [now], TOLERANCE)
    assert verdict.failed
    assert f"{left_out} of the {n} documents of the baseline were not measured" in verdict.words
    assert failed(check_regressions([then], [now], TOLERANCE, allow_missing=True)) == [False]
    assert failed(check_regressions([now], [then], TOLERANCE, allow_missing=more)) == [
        False
    ]  # further documents are no loss


def test_another_right_answer_is_another_document() -> None:
    then = comparison([True] * 12)
    now = replace(then, gold=tuple(1 - g for g in then.gold[:3]) + then.gold[3:])
    (verdict,) = check_regressions([then], [now], TOLERANCE)
    assert verdict.failed and "3 of the 12 documents of the baseline were not measured" in verdict.words


@pytest.mark.parametrize("order", [1, -1])
def test_a_second_measurement_does_not_hide_a_loss(order: int) -> None:
    good, fallen = comparison([True] * 40), comparison([False] * 40)
    assert sorted(failed(check_regressions([good], [good, fallen][::order], TOLERANCE))) == [False, True]
    assert failed(check_regressions([good, good], [fallen], TOLERANCE)) == [True, True]
    assert failed(check_regressions([good, good], [good], TOLERANCE)) == [False, False]


# Documents without a number


def broken(comparison: Comparison, arm: str, rows: tuple[int, ...]) -> Comparison:
    arms = tuple(replace(each, without_number=rows) if each.name == arm else each for each in comparison.arms)
    return replace(comparison, arms=arms)


@settings(max_examples=30)
@given(st.sampled_from(["zero-shot", "edited"]), st.sets(st.integers(0, 9)), st.sets(st.integers(0, 9)))
def test_a_document_fails_that_has_lost_its_number(arm: str, before: set[int], after: set[int]) -> None:
    then = broken(comparison([True] * 10), arm, tuple(sorted(before)))
    now = broken(comparison([True] * 10), arm, tuple(sorted(after)))
    (verdict,) = check_regressions([then], [now], TOLERANCE)
    lost = sorted(after - before)
    assert verdict.failed == bool(lost)
    note = f"{arm}: {len(lost)} of 10 documents without a number (NaN or infinite): {', '.join(map(str, lost))}"
    assert (note in verdict.words) == bool(lost)


def test_a_new_cell_without_numbers_fails() -> None:
    then = comparison([True] * 10)
    new = broken(comparison([True] * 10, seed=1), "edited", (3,))
    assert failed(check_regressions([then], [then, new], TOLERANCE)) == [False, True]


def test_a_new_document_without_a_number_fails() -> None:
    then, now = comparison([True] * 8), broken(comparison([True] * 10), "edited", (9,))
    assert failed(check_regressions([then], [now], TOLERANCE)) == [True]


def test_documents_in_common_are_judged() -> None:
    keys = tuple(f"key{i}" for i in range(60))
    then = comparison([True] * 60, keys=keys)
    now = comparison([False] * 30, keys=keys[:30])
    (verdict,) = check_regressions([then], [now], TOLERANCE)
    assert verdict.failed and "other data: 30 documents in common of 60 then and 30 now" in verdict.words
    shuffled = comparison([i >= 30 for i in range(60)], keys=keys[30:] + keys[:30])
    assert failed(check_regressions([then], [shuffled], TOLERANCE)) == [True]


def test_two_cells_of_one_measurement_are_judged_each_on_its_own_documents() -> None:
    """Such as a quick test and a whole one: the one that fell does not hide behind the other."""
    keys = tuple(f"key{i}" for i in range(100))
    whole, quick, fallen = (
        comparison([True] * 100, keys=keys),
        comparison([True] * 10, keys=keys[:10]),
        comparison([False] * 100, keys=keys),
    )
    for now in ([fallen, quick], [quick, fallen]):
        verdicts = check_regressions([whole, quick], now, TOLERANCE)
        assert sorted(failed(verdicts)) == [False, True]
        assert not any(word.startswith("other data") for verdict in verdicts for word in verdict.words)
    assert failed(check_regressions([whole], [whole, quick], TOLERANCE)) == [False, False]


@given(st.integers(1, 12))
def test_documents_too_few_to_show_a_loss_are_said_to_be(n: int) -> None:
    (verdict,) = check_regressions([comparison([True] * n)], [comparison([False] * n)], TOLERANCE)
    assert verdict.failed != (f"{n} documents are too few to show a loss, whatever happens" in verdict.words)


def test_a_document_that_stands_twice_is_paired_with_itself() -> None:
    once = comparison([True, False], keys=("same", "same"))
    assert failed(check_regressions([once], [once], 0.0)) == [False]


def test_versions_and_times() -> None:
    now = comparison([True] * 20, versions={"torch": "2.14", "botorch": "0.18"}, reference_seconds=0.1)
    (verdict,) = check_regressions([comparison([True] * 20)], [now], TOLERANCE)
    assert verdict == Verdict(
        "model task 0-shot seed 0",
        False,
        (
            "weighted F1 of the greedy answer +0.000 since then",
            "other versions: botorch none then, 0.18 now; torch 2.13 then, 2.14 now",
            "takes 0.50 times as long",  # the machine is half as fast, and the seconds are the same
        ),
    )


# The file


def test_it_is_saved_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "baseline.json"
    comparisons = [comparison([True, False], seed=1), comparison([True, False])]
    save_reference(comparisons, path)
    assert [identity(one) for one in load_comparisons(path)] == [identity(one) for one in comparisons[::-1]]
    before = path.read_bytes()
    save_reference(comparisons[::-1], path)
    assert path.read_bytes() == before

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(
        TarotError, match=r"expected to write .*, got No space left on device; free space or choose another place"
    ):
        save_reference(comparisons[:1], path)
    assert path.read_bytes() == before and len([*path.parent.iterdir()]) == 1


def test_one_answer_more_is_a_short_diff() -> None:
    """One line a value, cells in one order: what git shows of a baseline can be read."""
    one, other = comparison([True, False, True]), comparison([True, True, True])
    before, after = (
        comparisons_to_json([one, comparison([True], seed=1)]),
        comparisons_to_json([comparison([True], seed=1), other]),
    )
    lines = [pair for pair in zip(before.splitlines(), after.splitlines(), strict=True) if pair[0] != pair[1]]
    assert [(then.strip(" ,"), now.strip(" ,")) for then, now in lines] == [("0", "1")] * 2  # likeliest and greedy


def test_a_part_of_a_suite_renews_its_part_of_a_baseline() -> None:
    then = [comparison([True] * 3), comparison([True] * 3, seed=1), comparison([True] * 3, search="random")]
    now = comparison([False] * 3)
    assert update_reference(then, [now]) == [now, *then[1:]]
    assert update_reference([], [now]) == [now]


def test_nothing_is_no_baseline(tmp_path: Path) -> None:
    with pytest.raises(
        TarotError, match="expected cells to save as a baseline, got none; run a test that uses tarot_gain"
    ):
        save_reference([], tmp_path / "baseline.json")


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("arms", 1, "greedy"), [0, 1], "3 documents and 2 in greedy of edited"),
        (("arms", 0, "gold_probability"), [0.5] * 4, "3 documents and 4 in gold_probability of zero-shot"),
        (("arms", 1, "predicted"), "010", "arms.1.predicted: .* valid array"),
        (("arms", 1, "greedy"), [0, 1, 0.5], "arms.1.greedy.2: .* valid integer"),
        (("arms", 1, "seconds"), "1", "arms.1.seconds: .* valid number"),
        (("gold",), [0, 1], "3 documents and 2 in gold"),
        (("gold",), ["a", "b", "a"], "gold.0: .* valid integer"),
        (("texts",), ["a"], "3 documents and 1 in texts"),
        (("seconds",), None, "seconds: .* valid number"),
        (("seed",), True, "seed: .* valid integer"),
        (("head_angles",), [["a"]], "head_angles.0.0: .* valid number"),
        (("curves",), {"bo": ["a"]}, "curves.bo.0: .*"),
        (("versions",), {"torch": 2}, "versions.torch: .* valid string"),
    ],
)
def test_damaged_baselines_are_told_before_anything_is_measured(
    tmp_path: Path, place: tuple[str | int, ...], value: object, message: str
) -> None:
    path = tmp_path / "baseline.json"
    save_reference([comparison([True] * 3, layers=(0,), head_angles=((0.5,),), curves={"bo": (0.5,)})], path)
    content = json.loads(path.read_text())
    assert load_comparisons(path)
    within = content["cells"][0]
    for step in place[:-1]:
        within = within[step]
    within[place[-1]] = value
    path.write_text(json.dumps(content))
    with pytest.raises(TarotError, match=f"expected results as tarot writes them .*, got .*{message}"):
        load_comparisons(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "expected results as tarot writes them in .*, got Expecting property name"),
        ('{"format": 2, "cells": []}', "expected results of format 1 at most, got 2 in .*; update tarot"),
        ('{"format": 1, "cells": [{}]}', "model: Field required"),
    ],
)
def test_broken_baselines(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "baseline.json").write_text(content)
    with pytest.raises(TarotError, match=message):
        load_comparisons(tmp_path / "baseline.json")
