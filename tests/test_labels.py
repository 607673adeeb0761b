"""Labels of an arm: the distinct labelled documents of its samples and of all its prompts."""

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from checkpoint import write_tasks
from fabricated import fabricated
from hypothesis import given, settings
from hypothesis import strategies as st

from tarot.evaluation.labels import Labels, count_labels
from tarot.evaluation.results.notes import arm_notes
from tarot.objectives.tasks.samples import Sample, draw_samples, render_evaluation_documents
from tarot.objectives.tasks.task_loading import load_task
from tarot.search.config import TaRotConfig

N_TRAIN, N_TEST = 30, 12


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write the tasks with the sampler that shows the first documents, and with lm-eval's default."""
    first = write_tasks(tmp_path_factory.mktemp("first"), train=N_TRAIN, test=N_TEST)
    drawn = write_tasks(tmp_path_factory.mktemp("drawn"), train=N_TRAIN, test=N_TEST)
    for path in drawn.glob("*.yaml"):
        path.write_text(path.read_text().replace("sampler: first_n", "sampler: default"))
    return {"first_n": first, "default": drawn}


def labelled_in(samples: Iterable[Sample]) -> set[str]:
    """Return the documents of the training split in prompts, by their text."""
    items = {item for sample in samples for item in re.findall(r"item (\d+)", sample.pairs[0][0])}
    return {item for item in items if int(item) < N_TRAIN}


@settings(max_examples=12)
@given(
    sampler=st.sampled_from(["first_n", "default"]),
    shots=st.sampled_from([0, 1, 3, 6, "mix"]),
    n=st.integers(1, 10),
    seed=st.integers(0, 5),
    limit=st.sampled_from([None, 1, 0.5]),
)
def test_labels_are_the_documents_in_the_prompts(
    folders: dict[str, Path], sampler: str, shots: int | str, n: int, seed: int, limit: float | None
) -> None:
    folder = folders[sampler]
    counted = count_labels(TaRotConfig("own_choice", num_samples=n, num_fewshot=shots, seed=seed), folder, limit)
    tuning = labelled_in(draw_samples(load_task("own_choice", folder), n, num_fewshot=shots, seed=seed))
    n_evaluated = {None: N_TEST, 1: 1, 0.5: N_TEST // 2}[limit]
    evaluated = labelled_in(
        render_evaluation_documents(
            load_task("own_choice", folder), num_fewshot=0 if shots == "mix" else int(shots), limit=n_evaluated
        )
    )
    assert counted == Labels(len(evaluated), len(tuning | evaluated))
    if sampler == "first_n" and shots != "mix":
        assert counted == Labels(int(shots), n + int(shots))


def test_lm_evals_default_sampler_shows_more_labels_than_samples_and_shots(folders: dict[str, Path]) -> None:
    counted = count_labels(TaRotConfig("own_choice", num_samples=5, num_fewshot=6), folders["default"])
    assert counted.base > 6 and counted.edited > 5 + 6


def test_a_note_names_the_arms_with_more_labels_than_samples() -> None:
    comparison = fabricated()
    assert not any("labels" in note for note in arm_notes(comparison))
    base, few_shot, *others = comparison.arms
    *_, note = arm_notes(replace(comparison, arms=(base, replace(few_shot, labels=200), *others)))
    assert "the 20 samples: few-shot 200." in note
