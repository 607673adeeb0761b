"""Recipes: what is written is read back, what is wrong is named with its line, and nothing in a file is executed."""

from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import TypedDict

from tarot._files.recipe_file import LARGEST, read_recipe, write_recipe
from tarot._files.strict_json import Name, Number
from tarot.errors import MissingFileError, TarotError, UnknownName


class Settings(TypedDict, total=False):
    """Schema of the tests."""

    name: Name
    number: Number
    flag: bool
    either: int | Literal["mix"]
    many: list[Name]


texts = st.text(st.characters(codec="utf-8"), max_size=20)
settings = st.fixed_dictionaries(
    {},
    optional={
        "name": texts | st.sampled_from(["yes", "1:30", "~", "1e3", "- a", "a: b", "'", "#x", "=", "2020-01-01"]),
        "number": st.floats(-1e30, 1e30) | st.integers(-(2**53), 2**53),
        "flag": st.booleans(),
        "either": st.integers(-(2**60), 2**60) | st.just("mix"),
        "many": st.lists(texts, max_size=3),
    },
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recipes") / "recipe.yml"


@given(settings)
def test_settings_are_read_back(file: Path, settings: dict[str, Any]) -> None:
    write_recipe(file, {**settings, "none": None}, "A comment.")
    assert read_recipe(file, Settings) == settings
    assert file.read_text(encoding="utf-8").startswith("# A comment.\n")


@given(st.binary(max_size=60) | st.text("ab:-[]{}&*!|>'\"# \n\t", max_size=40).map(str.encode))
def test_any_bytes_are_read_or_refused_in_one_line(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    try:
        read_recipe(file, Settings)
    except TarotError as error:
        assert str(error) and "\n" not in str(error)


@pytest.mark.parametrize(
    ("text", "keywords"),
    [
        ("name: a\nnumbr: 1\n", ("line 2", "'numbr'", "'number'")),
        ("# one\n\nnumber: twenty\n", ("line 3", "number", "twenty")),
        ("number: true\n", ("line 1", "number", "True")),
        ("name: a\neither: '3'\n", ("line 2: either: ",)),
        ("many: [a, 1]\n", ("line 1", "many.1")),
        ("many:\n- a\n- {b: c}\n", ("line 3", "a list of them")),
        ("name: a\nname: b\n", ("line 2", "'name'", "twice")),
        ("3: a\n", ("line 1", "3")),
        ("name: 2020-01-01\n", ("line 1", "a string")),
        ("name: !!python/object/apply:os.system ['touch hacked']\n", ("line 1", "a string")),
        ("name: !!binary aGk=\n", ("line 1",)),
        ("name: &a b\nmany: [*a]\n", ("line 2", "written out")),
        ("name: [a\nflag: true\n", ("not YAML in line 2",)),
        ("- a\n", ("settings",)),
        ("", ("settings",)),
        ("[" * 5000, ("line 1", "written out")),
        ("number: 1e999\n", ("line 1", "number")),
        ("number: .nan\n", ("line 1", "number")),
    ],
)
def test_what_is_wrong_is_named(file: Path, text: str, keywords: tuple[str, ...]) -> None:
    file.write_text(text)
    with pytest.raises(TarotError) as caught:
        read_recipe(file, Settings)
    assert [keyword for keyword in (*keywords, "recipe.yml") if keyword not in str(caught.value)] == []


def test_unknown_keys_have_a_class_of_their_own(file: Path) -> None:
    file.write_text("nam: a\n")
    with pytest.raises(UnknownName):
        read_recipe(file, Settings)


def test_nothing_is_read_that_is_no_small_file(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="No such file"):
        read_recipe(tmp_path / "none.yaml", Settings)
    (tmp_path / "large.yaml").write_bytes(b"#" * (LARGEST + 1))
    with pytest.raises(MissingFileError, match="bytes"):
        read_recipe(tmp_path / "large.yaml", Settings)
