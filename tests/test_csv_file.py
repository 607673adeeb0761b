"""Tables as CSV files."""

import csv

import pytest
from fabricated import (
    EVIL,
)

from tarot.report.csv_file import write_csv


def test_numbers_have_six_digits_and_texts_are_kept(tmp_path):
    write_csv(tmp_path / "a.csv", ("a", "b"), [(1 / 3, EVIL), (0.0, "x\ny")])
    with (tmp_path / "a.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["a", "b"], ["0.333333", EVIL], ["0", "x\ny"]]


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+1",
        "-1+cmd|x",
        "@SUM(1)",
        "\t=1",
        "\r=1",
        "\n=1",
        " =1",
        "\ufeff=1",
        "\uff1d1",
        '=HYPERLINK("http://x","y")',
    ],
)
def test_text_is_never_a_formula(text, tmp_path):
    write_csv(tmp_path / "a.csv", ("a", "b", "c"), [(text, -0.5, -3), ("x=1", True, "'=1")])
    with (tmp_path / "a.csv").open(newline="") as file:
        shown = text.replace("\r", r"\r")
        assert list(csv.reader(file))[1:] == [[f"'{shown}", "-0.5", "-3"], ["x=1", "True", "'=1"]]
