"""Tuning split: no document that is evaluated, and none twice."""

import json
import re
from pathlib import Path

import pytest
from checkpoint import write_tasks

from tarot.errors import TarotError
from tarot.objectives.tasks.documents import normalize_text, question_part
from tarot.objectives.tasks.samples import MIXED_SHOTS, draw_samples
from tarot.objectives.tasks.task_loading import load_task
from tarot.objectives.tasks.tuning_split import check_disjoint, find_tuning_documents


def disguised(line: str) -> dict[str, object]:
    """Write the same document with reversed choices, in capitals, with no-break spaces."""
    row = json.loads(line)
    question = str(row["question"]).upper().replace(" ", "\u00a0") + " "
    return {"question": question, "choices": row["choices"][::-1], "gold": 2 - row["gold"]}


@pytest.mark.parametrize("sampler", ["first_n", "default"])
@pytest.mark.parametrize("shots", [0, 2, "mix"])
def test_evaluated_and_repeated_documents_are_left_out(
    tmp_path: Path, sampler: str, shots: int | str, caplog: pytest.LogCaptureFixture
) -> None:
    write_tasks(tmp_path)
    (file := tmp_path / "choice.yaml").write_text(file.read_text().replace("sampler: first_n", f"sampler: {sampler}"))
    lines = (tmp_path / "train.jsonl").read_text().splitlines()
    evaluated = [disguised(lines[row]) for row in (0, 4, 7)]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in evaluated))
    repeated = [disguised(lines[row]) for row in (1, 9)]
    (tmp_path / "train.jsonl").write_text("\n".join([*lines, *map(json.dumps, repeated)]) + "\n")
    task = load_task("own_choice", tmp_path)
    documents = find_tuning_documents(task)
    assert (documents.size, documents.evaluated, documents.repeated) == (32, 3, 2)
    most = max(MIXED_SHOTS) if shots == "mix" else shots
    for seed in range(4):
        samples = draw_samples(task, 27 - most, num_fewshot=shots, seed=seed)
        assert len({question_part(sample.key) for sample in samples}) == len(samples)
        for prompt in (normalize_text(sample.pairs[0][0]) for sample in samples):
            questions = re.findall(r"item \d+", prompt)
            assert not {"item 0", "item 4", "item 7"} & set(questions)
            assert questions.count(questions[-1]) == 1
    assert "left out of the samples of own_choice: 3 also evaluated, 2 repeated" in caplog.text
    with pytest.raises(TarotError, match=r"\(3 also evaluated, 2 repeated\)"):
        draw_samples(task, 28 - most, num_fewshot=shots)


def test_samples_are_recognized_with_their_choices_in_another_order(tmp_path: Path) -> None:
    write_tasks(tmp_path)
    tuned_on = [sample.key for sample in draw_samples(load_task("own_choice", tmp_path), 5)]
    lines = (tmp_path / "train.jsonl").read_text().splitlines()
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(disguised(line)) + "\n" for line in lines))
    task = load_task("own_choice", tmp_path)
    with pytest.raises(TarotError, match="evaluates 5 of the 5 documents"):
        check_disjoint(task, tuned_on)
    check_disjoint(task, [])


def test_a_validation_split_is_tuned_on_if_there_is_a_test_split(tmp_path: Path) -> None:
    write_tasks(tmp_path)
    file = tmp_path / "choice.yaml"
    file.write_text(file.read_text().replace("training_split: train", "validation_split: train"))
    assert all(sample.id.startswith("train/") for sample in draw_samples(load_task("own_choice", tmp_path), 5))
