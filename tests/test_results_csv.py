"""The CSV file beside results has a row for each comparison, document and arm."""

import csv
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from fabricated import EVIL, fabricated, reward_comparison
from hypothesis import given
from hypothesis import strategies as st

from tarot.edit.model_card import format_model_card
from tarot.evaluation.results.html_table import comparison_to_html
from tarot.report.results_csv import write_comparisons_csv, write_rewards_csv


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


@given(st.integers(1, 5), st.integers(0, 2))
def test_every_answer_has_a_row(n: int, draws: int) -> None:
    with TemporaryDirectory() as folder:
        comparisons = [fabricated(n=n, draws=draws), fabricated(n=n, seed=1)]
        read = rows_of(write_comparisons_csv(Path(folder) / "a.json", comparisons))
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
    assert file.name == "a.csv" and {row["text"] for row in rows_of(file)} == {EVIL}


@given(st.sets(st.integers(0, 4)))
def test_documents_without_a_number_are_marked_wherever_answers_or_scores_are(rows: set[int]) -> None:
    comparison = fabricated(n=5)
    first, *others = comparison.arms
    comparison = replace(comparison, arms=(replace(first, without_number=tuple(sorted(rows))), *others))
    with TemporaryDirectory() as folder:
        read = rows_of(write_comparisons_csv(Path(folder) / "a.json", [comparison]))
    marked = [(row["arm"], int(row["document"])) for row in read if row["without_number"] == "True"]
    assert marked == [(first.name, row) for row in sorted(rows)]
    note = f"{len(rows)} of 5 documents without a number (NaN or infinite): {', '.join(map(str, sorted(rows)))}"
    card = format_model_card(METADATA, "owner/name", [comparison.to_measurement()])
    for text in (comparison_to_html(comparison), card):
        assert (note in text) == bool(rows)


METADATA = {
    "edit": {"rotation": "rotary", "sites": "heads", "layers": [0]},
    "fingerprint": "fab1234567890abc",
    "provenance": {},
}


def test_every_text_has_a_row(tmp_path: Path) -> None:
    comparison = reward_comparison()
    read = rows_of(write_rewards_csv(tmp_path / "a.json", [comparison]))
    assert [row["text"] for row in read] == [*comparison.base.texts, *comparison.edited.texts]
    assert {row["reward_name"] for row in read} == {comparison.reward}
    assert [row["arm"] for row in read].count("base") == len(comparison.prompts)
