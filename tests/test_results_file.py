"""Results files: what is written can be read again, and damaged content raises an error that names the place."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_regression import comparison

from tarot.errors import TarotError
from tarot.evaluation.held_out import HeldOut
from tarot.evaluation.results.results_file import comparisons_to_json, load_comparisons


@given(
    curve=st.lists(st.floats(-100, 100) | st.just(math.nan), max_size=5),
    digest=st.text("0123456789abcdef"),
    right=st.lists(st.booleans(), min_size=1, max_size=5),
    held_out=st.none() | st.builds(HeldOut, st.integers(0, 9), *[st.floats(0, 9)] * 4),
    settings=st.dictionaries(
        st.sampled_from(["bound", "gate", "keep", "layers"]),
        st.none()
        | st.booleans()
        | st.integers(0, 9)
        | st.floats(-9, 9)
        | st.text()
        | st.just((0, 2))
        | st.just((0.5,)),
    ),
)
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory,
    curve: list[float],
    digest: str,
    right: list[bool],
    held_out: HeldOut | None,
    settings: dict[str, object],
) -> None:
    written = comparison(
        right, curves={"bo": tuple(curve)}, request_digest=digest, held_out=held_out, settings=settings
    )
    path = tmp_path_factory.mktemp("results") / "cells.json"
    path.write_text(comparisons_to_json([written]), encoding="utf-8")
    (read,) = load_comparisons(path)
    assert read == written and read.identity == written.identity


def test_the_file_keeps_its_names() -> None:
    (values,) = json.loads(comparisons_to_json([comparison([True], request_digest="0123")]))["cells"]
    assert values["request_digest"] == "0123"
    assert not {"identity", "id"} & values.keys()


def test_one_changed_answer_is_a_short_diff() -> None:
    """One value a line, comparisons in a fixed order: git shows what changed."""
    one, other = comparison([True, False, True]), comparison([True, True, True])
    before, after = (
        comparisons_to_json([one, comparison([True], seed=1)]),
        comparisons_to_json([comparison([True], seed=1), other]),
    )
    lines = [pair for pair in zip(before.splitlines(), after.splitlines(), strict=True) if pair[0] != pair[1]]
    assert [(then.strip(" ,"), now.strip(" ,")) for then, now in lines] == [("0", "1")] * 2  # likeliest and greedy


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
        (("choices",), [["a", "b"]], "3 documents and 1 in choices"),
        (("choices", 1), ["a"], "gold.1: 1, but the document has 1 choices"),
        (("choices", 0, 0), "a" * 301, "choices.0.0: .* at most 300"),
        (("arms", 1, "written"), ["a"], "3 documents and 1 in written of edited"),
        (("arms", 1, "written"), ["a", "b", 3], "arms.1.written.2: .* valid string"),
        (("held_out",), {"tokens": 9}, "held_out.kl: .*"),
        (("versions",), {"torch": 2}, "versions.torch: .* valid string"),
    ],
)
def test_damaged_values_are_named(tmp_path: Path, place: tuple[str | int, ...], value: object, message: str) -> None:
    path = tmp_path / "cells.json"
    intact = comparison(
        [True] * 3, layers=(0,), head_angles=((0.5,),), curves={"bo": (0.5,)}, choices=(("a", "b"),) * 3
    )
    path.write_text(comparisons_to_json([intact]), encoding="utf-8")
    content = json.loads(path.read_text())
    assert load_comparisons(path)
    within = content["cells"][0]
    for step in place[:-1]:
        within = within[step]
    within[place[-1]] = value
    path.write_text(json.dumps(content))
    with pytest.raises(TarotError, match=f"is not a file of tarot's results: .*{message}"):
        load_comparisons(path)


def test_a_file_without_the_later_fields_is_read(tmp_path: Path) -> None:
    content = json.loads(comparisons_to_json([comparison([True] * 3)]))
    for name in ("choices", "date", "machine", "reference_times", "n_angles", "held_out"):
        del content["cells"][0][name]
    for arm in content["cells"][0]["arms"]:
        del arm["written"]
    (tmp_path / "cells.json").write_text(json.dumps(content))
    assert load_comparisons(tmp_path / "cells.json") == [comparison([True] * 3)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not a file of tarot's results: it is not JSON \\(Expecting property name"),
        ('{"format": 2, "cells": []}', "expected results of format 1 at most, got 2 in .*; update tarot"),
        ('{"format": 1, "cells": [{}]}', "model: Field required"),
    ],
)
def test_unreadable_content(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "cells.json").write_text(content)
    with pytest.raises(TarotError, match=message):
        load_comparisons(tmp_path / "cells.json")
