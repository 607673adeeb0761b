"""The gate fails on planted regressions, passes the same run and noise, and names what it cannot judge."""

import json
import random
import re
from collections import Counter
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
from tarot.evaluation.regression.reference import check_regressions, update_reference
from tarot.evaluation.regression.verdict import LostDocument, Verdict
from tarot.evaluation.results.comparison import Arm, Comparison
from tarot.evaluation.results.results_file import load_comparisons
from tarot.models.loaded_model import LoadedModel
from tarot.report.results_csv import save_comparisons

TOLERANCE = 0.02


def comparison(
    right: list[bool], *, seed: int = 0, keys: tuple[str, ...] | None = None, **change: object
) -> Comparison:
    """Return a comparison of documents with two choices, answered right or wrong."""
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


# Both directions, on a real model whose edited answers are the right ones, so that the edit is perfect


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
    assert "weighted F1 among the choices fell from 1.000 to 0." in verdict.reasons[0]
    assert len(verdict.lost) == next(change.gain.lost for change in verdict.scores if change.regressed)
    assert all(each.right == each.then != each.now for each in verdict.lost)
    assert f"another edit: {then.adapter} then, {scrambled.fingerprint} now" in verdict.reasons


def test_a_shifted_label_fails(lesson: tuple[LoadedModel, Path, Adapter, Comparison], tmp_path: Path) -> None:
    """A label can shift in the data, where each document becomes another, or in how answers are read."""
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
    assert "other data: 0 documents in common of 40 then and 40 now" in verdict.reasons

    arms = tuple(replace(arm, predicted=tuple((i + 1) % 3 for i in arm.predicted)) for arm in then.arms)
    assert failed(check_regressions([then], [replace(then, arms=arms)], TOLERANCE)) == [True]


def test_the_same_run_again_passes_50_times_of_50(lesson: tuple[LoadedModel, Path, Adapter, Comparison]) -> None:
    loaded, folder, adapter, then = lesson
    again = compare(loaded.model, loaded.tokenizer, adapter, include_path=folder)
    assert [arm.predicted for arm in again.arms] == [arm.predicted for arm in then.arms]
    assert [check_regressions([then], [again], 0.0)[0].failed for _ in range(50)] == [False] * 50


# Noise


def test_noise_does_not_fail_and_a_loss_does() -> None:
    """Of 100 documents 70 were right then; now each of 12 runs changes 6 answers at random, or loses 25."""
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


# What the gate cannot judge


def test_missing_and_new_comparisons_are_named() -> None:
    right = [True] * 20
    verdicts = check_regressions(
        [comparison(right), comparison(right, seed=1)], [comparison(right), comparison(right, budget=9)], TOLERANCE
    )
    assert failed(verdicts) == [False, False, True]
    assert [(verdict.name.partition("seed ")[2], verdict.reasons[0]) for verdict in verdicts] == [
        ("0, budget 60", "weighted F1 of the greedy answer 1.000 then, 1.000 now"),
        ("0, budget 9", "new, not in the reference run"),
        ("1, budget 60", "in the reference run, but not measured now"),
    ]


def test_a_run_without_any_comparison_of_the_reference_run_fails() -> None:
    for allow_missing in (False, True):
        assert failed(check_regressions([comparison([True])], [], TOLERANCE, allow_missing=allow_missing)) == [True]
        now = [comparison([True], seed=1)]
        assert failed(check_regressions([comparison([True])], now, TOLERANCE, allow_missing=allow_missing)) == [
            True,
            False,
        ]


@pytest.mark.parametrize("n", [0, 1])
def test_an_empty_reference_run_fails(n: int) -> None:
    (verdict,) = check_regressions([], [comparison([True])] * n, TOLERANCE)
    assert verdict == Verdict("reference run", True, ("it has no cell to compare with",))


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
def test_a_comparison_with_another_setting_is_missing(names: set[str], lost: bool) -> None:
    """Whether or not the other comparison passes, and whatever the changed one answers."""
    then = [comparison([True] * 8), comparison([True] * 8, seed=1)]
    changed = comparison([not lost] * 8, **{name: CHANGES[name] for name in names})
    verdicts = check_regressions(then, [changed, then[1]], TOLERANCE)
    missing = [verdict for verdict in verdicts if verdict.failed]
    assert [verdict.reasons[0] for verdict in missing] == ["in the reference run, but not measured now"]
    assert failed(check_regressions(then, [changed, then[1]], TOLERANCE, allow_missing=True)) == [False] * 3
    if not names & {"model", "task", "num_fewshot", "mixed", "seed"}:
        words = " ".join(missing[0].reasons[1:])
        assert all(f"{name} {getattr(then[0], name)} then, {CHANGES[name]} now" in words for name in names)


@settings(max_examples=30)
@given(st.integers(8, 20), st.integers(1, 7), st.booleans())
def test_documents_of_the_reference_run_that_are_not_measured_fail(n: int, left_out: int, more: bool) -> None:
    then, now = (
        comparison([True] * n),
        comparison([True] * (n - left_out), keys=tuple(f"key{i}" for i in range(n - left_out))),
    )
    (verdict,) = check_regressions([then], [now], TOLERANCE)
    assert verdict.failed
    assert f"{left_out} of the {n} documents of the reference run were not measured" in verdict.reasons
    assert failed(check_regressions([then], [now], TOLERANCE, allow_missing=True)) == [False]
    assert failed(check_regressions([now], [then], TOLERANCE, allow_missing=more)) == [
        False
    ]  # additional documents do no harm


def test_another_right_answer_is_another_document() -> None:
    then = comparison([True] * 12)
    now = replace(then, gold=tuple(1 - g for g in then.gold[:3]) + then.gold[3:])
    (verdict,) = check_regressions([then], [now], TOLERANCE)
    assert verdict.failed and "3 of the 12 documents of the reference run were not measured" in verdict.reasons


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
def test_a_document_that_lost_its_number_fails(arm: str, before: set[int], after: set[int]) -> None:
    then = broken(comparison([True] * 10), arm, tuple(sorted(before)))
    now = broken(comparison([True] * 10), arm, tuple(sorted(after)))
    (verdict,) = check_regressions([then], [now], TOLERANCE)
    lost = sorted(after - before)
    assert verdict.failed == bool(lost)
    note = f"{arm}: {len(lost)} of 10 documents without a number (NaN or infinite): {', '.join(map(str, lost))}"
    assert (note in verdict.reasons) == bool(lost)


def test_a_new_comparison_without_numbers_fails() -> None:
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
    assert verdict.failed and "other data: 30 documents in common of 60 then and 30 now" in verdict.reasons
    shuffled = comparison([i >= 30 for i in range(60)], keys=keys[30:] + keys[:30])
    assert failed(check_regressions([then], [shuffled], TOLERANCE)) == [True]


def test_two_comparisons_of_one_identity_are_judged_on_their_own_documents() -> None:
    """With a quick test and a full one, the one that became worse does not hide behind the other."""
    keys = tuple(f"key{i}" for i in range(100))
    full, quick, worse = (
        comparison([True] * 100, keys=keys),
        comparison([True] * 10, keys=keys[:10]),
        comparison([False] * 100, keys=keys),
    )
    for now in ([worse, quick], [quick, worse]):
        verdicts = check_regressions([full, quick], now, TOLERANCE)
        assert sorted(failed(verdicts)) == [False, True]
        assert not any(word.startswith("other data") for verdict in verdicts for word in verdict.reasons)
    assert failed(check_regressions([full], [full, quick], TOLERANCE)) == [False, False]


@given(st.integers(1, 12))
def test_too_few_documents_to_show_a_loss_are_named(n: int) -> None:
    (verdict,) = check_regressions([comparison([True] * n)], [comparison([False] * n)], TOLERANCE)
    assert verdict.failed != (f"{n} documents are too few to show a loss" in verdict.reasons)


def test_a_repeated_document_is_matched_in_order() -> None:
    once = comparison([True, False], keys=("same", "same"))
    assert failed(check_regressions([once], [once], 0.0)) == [False]


def test_another_limit_of_divergence_is_another_setting() -> None:
    then, now = comparison([True] * 20), comparison([True] * 20, max_kl=0.01, settings={"scale": 0.3})
    missing, new = sorted(check_regressions([then], [now], TOLERANCE), key=lambda verdict: not verdict.failed)
    assert missing.failed and "limit of KL not set then, 0.01 now" in missing.reasons
    assert "scale not set then, 0.3 now" in missing.reasons
    assert not new.failed
    assert failed(check_regressions([now], [now], TOLERANCE)) == [False]


@pytest.mark.parametrize(
    "change", [{"layers": (0,)}, {"settings": {"apply_chat_template": False}}, {"settings": {"scale": 0.5}}], ids=str
)
def test_another_edit_of_other_settings_is_another_comparison(change: dict[str, object]) -> None:
    then, now = comparison([True] * 20), comparison([True] * 20, **change)
    assert sorted(failed(check_regressions([then], [now], TOLERANCE))) == [False, True]
    assert failed(check_regressions([now], [now], TOLERANCE)) == [False]


def test_words_and_commands_are_no_part_of_the_identity() -> None:
    settings = {"bound": 0.5, "keep": (0.9,)}
    then = comparison([True] * 20, not_repeated="pruned more than once", command="tarot a", settings=settings)
    now = replace(then, not_repeated="pruned twice", command="tarot b", settings=dict(reversed(settings.items())))
    assert failed(check_regressions([then], [now], TOLERANCE)) == [False]


def test_an_arm_that_is_no_longer_measured_fails() -> None:
    now = comparison([True] * 20)
    then = replace(now, arms=(*now.arms, replace(now.arms[1], name="lora")))
    (verdict,) = check_regressions([then], [now], TOLERANCE)
    assert verdict.failed and "not measured, but in the reference run: lora" in verdict.reasons
    (allowed,) = check_regressions([then], [now], TOLERANCE, allow_missing=True)
    assert not allowed.failed and set(verdict.reasons) == set(allowed.reasons)
    assert failed(check_regressions([now], [then], TOLERANCE)) == [False]


def test_versions_and_times() -> None:
    then = comparison([True] * 20, reference_times=(0.05, 0.05))
    now = comparison([True] * 20, versions={"torch": "2.14", "botorch": "0.18"}, reference_times=(0.11, 0.1))
    (verdict,) = check_regressions([then], [now], TOLERANCE)
    assert verdict.reasons == (
        "weighted F1 of the greedy answer 1.000 then, 1.000 now",
        "other versions: botorch none then, 0.18 now; torch 2.13 then, 2.14 now",
        # The same seconds on a machine that is half as fast.
        "the edited arm takes 0.50 times as long as then, 0.45 to 0.50 by the reference workload",
    )
    assert not verdict.failed and verdict.command == now.command and verdict.lost == ()


@pytest.mark.parametrize(
    ("times", "reason"), [((), "was not recorded then"), ((0.05, 0.1), "was busy then .* a factor of 2.0")]
)
def test_times_of_a_busy_machine_are_not_compared(times: tuple[float, ...], reason: str) -> None:
    then, now = (comparison([True] * 20, reference_times=each) for each in (times, (0.05, 0.05)))
    (verdict,) = check_regressions([then], [now], TOLERANCE)
    assert re.search(f"^times are not compared: .*{reason}", verdict.reasons[-1])
    assert not any("times as long" in reason for reason in verdict.reasons)


def test_a_loss_names_scores_then_and_now_and_the_documents() -> None:
    texts = tuple(f"text {i}" for i in range(40))
    then = comparison([True] * 40, choices=((" no", " yes"),) * 40)
    now = comparison([i >= 10 for i in range(40)], choices=((" no", " yes"),) * 40, texts=texts)
    (verdict,) = check_regressions([then], [now], TOLERANCE)
    assert verdict.failed
    for change in verdict.scores:
        assert change.regressed and change.then == then.score(change.metric) == 1
        assert change.now == now.score(change.metric) < 1
        assert change.gain.low <= change.now - change.then <= change.gain.high < 0
    words = ("no", "yes")
    assert verdict.lost == tuple(
        LostDocument(f"text {i}", words[i % 2], words[i % 2], words[1 - i % 2]) for i in range(10)
    )


# The file


def test_a_reference_run_is_saved_atomically(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "baseline.json"
    comparisons = [comparison([True, False], seed=1), comparison([True, False])]
    save_comparisons(comparisons, path)
    assert load_comparisons(path) == comparisons[::-1]
    before = path.read_bytes()
    save_comparisons(comparisons[::-1], path)
    assert path.read_bytes() == before

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(TarotError, match="cannot be written: No space left on device"):
        save_comparisons(comparisons[:1], path)
    assert path.read_bytes() == before and {file.name for file in path.parent.iterdir()} == {path.name, "baseline.csv"}


def test_part_of_a_suite_updates_its_part_of_the_reference_run() -> None:
    then = [comparison([True] * 3), comparison([True] * 3, seed=1), comparison([True] * 3, search="random")]
    now = comparison([False] * 3)
    assert update_reference(then, [now]) == [now, *then[1:]]
    assert update_reference([], [now]) == [now]


CELLS = st.sets(st.tuples(*[st.integers(0, 2)] * 3), min_size=1)


@given(CELLS, CELLS)
def test_a_whole_suite_becomes_the_reference_run_whatever_settings_changed(
    then: set[tuple[int, int, int]], now: set[tuple[int, int, int]]
) -> None:
    """Only cells of a seed of which fewer are measured now than then stay."""
    old, new = (
        [comparison([True] * 8, seed=seed, budget=60 + budget, samples=20 + samples) for seed, budget, samples in cells]
        for cells in (then, now)
    )
    updated = update_reference(old, new)
    assert updated[: len(new)] == new
    fewer = Counter(each.seed for each in old) - Counter(each.seed for each in new)
    assert Counter(each.seed for each in updated[len(new) :]) == fewer
    assert fewer or not any(failed(check_regressions(updated, new, TOLERANCE)))


def test_the_cell_with_most_similar_settings_is_replaced() -> None:
    old = [comparison([True] * 3, budget=120, samples=40), comparison([True] * 3, budget=120)]
    assert update_reference(old, [new := comparison([True] * 3, budget=60)]) == [new, old[0]]
