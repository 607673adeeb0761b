"""The CSV file beside results has a row for each comparison, document and arm."""

import csv
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from fabricated import EVIL, fabricated, reward_comparison
from hypothesis import given
from hypothesis import strategies as st

from tarot.report.results_csv import write_comparisons_csv, write_rewards_csv


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


@given(st.integers(1, 5), st.integers(0, 2))
def test_every_answer_has_a_row(n: int, draws: int) -> None:
    with TemporaryDirectory() as folder:
        comparisons = [fabricated(n=n, draws=draws), fabricated(n=n, seed=1)]
        read = rows(write_comparisons_csv(Path(folder) / "a.json", comparisons))
    expected = [
        (str(each.seed), arm.name, str(document), str(arm.greedy[document]), str(each.gold[document]))
        for each in comparisons
        for arm in each.arms
        for document in range(n)
    ]
    assert [(row["seed"], row["arm"], row["document"], row["greedy"], row["gold"]) for row in read] == expected


def test_texts_are_kept_whatever_they_contain(tmp_path: Path) -> None:
    comparison = replace(fabricated(n=1), texts=(EVIL,), keys=("a",))
    file = write_comparisons_csv(tmp_path / "a.json", [comparison])
    assert file.name == "a.csv" and {row["text"] for row in rows(file)} == {EVIL}


def test_every_text_has_a_row(tmp_path: Path) -> None:
    comparison = reward_comparison()
    read = rows(write_rewards_csv(tmp_path / "a.json", [comparison]))
    assert [row["text"] for row in read] == [*comparison.base.texts, *comparison.edited.texts]
    assert {row["reward_name"] for row in read} == {comparison.reward}
    assert [row["arm"] for row in read].count("base") == len(comparison.prompts)
