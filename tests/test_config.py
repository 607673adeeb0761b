"""TaRotConfig: values are validated when it is constructed, and it survives a round trip through JSON."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tarot.arguments import require_seed
from tarot.edit.rotation import ROTATIONS
from tarot.errors import InvalidValueError, TarotError, UnknownName
from tarot.objectives.answers import ANSWER_SCORES
from tarot.search.algorithms.registry import SEARCHES
from tarot.search.config import TaRotConfig
from tarot.search.space import SPACES

fractions = st.floats(0, 1, exclude_min=True) | st.floats(-1, 0, exclude_max=True)
configs = st.builds(
    TaRotConfig,
    task=st.text(min_size=1),
    num_fewshot=st.integers(0, 64) | st.just("mix"),
    num_samples=st.integers(1, 10**6),
    space=st.sampled_from(["", *SPACES]),
    search=st.sampled_from(["", *(search for search in SEARCHES if search != "policy-gradient")]),
    objective=st.sampled_from(sorted(ANSWER_SCORES)),
    sites=st.sampled_from(["heads", "mlp"]),
    layers=fractions | st.lists(st.integers(0, 200), min_size=1),
    bound=st.floats(0, 10, exclude_min=True) | st.integers(1, 3),
    rotation=st.sampled_from(sorted(ROTATIONS)),
    seed=st.integers(-(2**63) + 1, 2**63 - 1),
    apply_chat_template=st.booleans(),
)


@given(configs)
def test_a_round_trip_through_json_gives_an_equal_configuration(config: TaRotConfig) -> None:
    restored = TaRotConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert restored == config and hash(restored) == hash(config)
    assert restored.to_dict() == config.to_dict()


@given(configs)
def test_repr_is_the_call_that_makes_the_configuration(config: TaRotConfig) -> None:
    assert eval(repr(config), {"TaRotConfig": TaRotConfig}) == config


@given(configs)
def test_fields_have_their_declared_types(config: TaRotConfig) -> None:
    assert type(config.bound) is float
    assert type(config.layers) in (float, tuple)
    assert config.space and config.search


def test_repr_shows_only_what_differs_from_the_defaults() -> None:
    assert repr(TaRotConfig("a")) == "TaRotConfig(task='a')"
    assert repr(TaRotConfig("a", objective="fluency")) == "TaRotConfig(task='a', objective='fluency')"
    assert repr(TaRotConfig("a", search="bo")) == "TaRotConfig(task='a', search='bo')"
    assert repr(TaRotConfig("a", search="adam", layers=[0, 3])) == "TaRotConfig(task='a', layers=(0, 3))"


@pytest.mark.parametrize(
    ("given", "search", "space"),
    [
        ({}, "adam", "full"),
        ({"objective": "sentiment:positive"}, "policy-gradient", "full"),
        ({"objective": "model"}, "bo", "head"),
        ({"objective": "model:mine:f", "search": "random"}, "random", "full"),
        ({"search": "bo"}, "bo", "head"),
        ({"search": "bo-gradient"}, "bo-gradient", "full"),
        ({"search": "random"}, "random", "full"),
        ({"search": "bo", "space": "full"}, "bo", "full"),
    ],
)
def test_search_and_space_have_defaults(given: dict[str, Any], search: str, space: str) -> None:
    config = TaRotConfig("a", **given)
    assert (config.search, config.space) == (search, space)


@pytest.mark.parametrize(
    ("field", "value", "suggestion"),
    [
        ("search", "adm", "adam"),
        ("search", "publish", "known"),
        ("space", "heads", "head"),
        ("space", "random:3", "known"),
        ("space", "layer", "known"),
        ("space", "head-gradient", "head"),
        ("objective", "acuracy", "accuracy"),
        ("objective", "sentiment:postive", "sentiment:positive"),
        ("rotation", "rotari", "rotary"),
        ("sites", "head", "heads"),
    ],
)
def test_unknown_names_suggest_the_nearest(field: str, value: str, suggestion: str) -> None:
    with pytest.raises(UnknownName, match=suggestion):
        TaRotConfig("a", **{field: value})


# Values of the wrong type or out of range, by field.
WRONG = {
    "task": [None, 3, ["a"]],
    "num_fewshot": [-1, "six", "6", 1.5, True, None],
    "num_samples": [0, -3, "20", 20.0, True, None],
    "space": [None, 1, ["full"]],
    "search": [None, False, ["adam"]],
    "objective": [None, 1, "classifier:x", "sentiment:"],
    "sites": [None, ("heads",)],
    "layers": [
        "0.5",
        "4-11",
        1,
        0,
        True,
        0.0,
        1.5,
        -2.0,
        float("nan"),
        [],
        [0.5],
        [0, "3"],
        [-1],
        [True],
        None,
        {0: 1},
    ],
    "bound": [0, -1, "0.5", float("nan"), float("inf"), True, None],
    "rotation": [None, 2],
    "seed": [1.5, "0", 2**63, -(2**63), True, None],
    "apply_chat_template": [0, "yes", None],
    "trials_per_step": [0, 2, "1", 1.0],
    "fluency_floor": ["0.3", "10%", 0.3, "much"],
    "max_kl": [0, -0.1, "0.03", True, float("nan"), float("inf")],
    "retain": ["synth_color", [""], [3], None, 1],
    "cross_validate": [1, "yes", None],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in WRONG.items() for value in values])
def test_wrong_values_are_refused_at_construction(field: str, value: object) -> None:
    with pytest.raises(TarotError) as caught:
        TaRotConfig(**{"task": "a", field: value})
    assert isinstance(caught.value, ValueError) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in WRONG.items() for value in values])
def test_wrong_values_in_a_file_are_refused(field: str, value: object) -> None:
    with pytest.raises(TarotError):
        TaRotConfig.from_dict({"task": "a", field: value})


def test_every_field_has_wrong_values() -> None:
    assert set(WRONG) == set(TaRotConfig("a").to_dict())


@pytest.mark.parametrize(
    ("given", "keyword"),
    [
        ({"objective": "sentiment:positive", "search": "adam"}, "gradient"),
        ({"objective": "model", "search": "bo-gradient"}, "gradient"),
        ({"search": "adam", "trials_per_step": 4}, "bo, random"),
        ({"search": "paper", "trials_per_step": 2}, "bo, random"),
        ({"fluency_floor": "0.3"}, "reward"),
        ({"objective": "fluency", "fluency_floor": "much"}, "fluency"),
    ],
)
def test_values_that_exclude_each_other_are_refused(given: dict[str, Any], keyword: str) -> None:
    with pytest.raises(TarotError, match=keyword):
        TaRotConfig("a", **given)


def test_a_module_named_in_a_reward_is_not_imported(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "spoiled.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(tmp_path)
    assert TaRotConfig("a", objective="spoiled:reward").search == "policy-gradient"


def test_numbers_of_numpy_become_pythons() -> None:
    config = TaRotConfig("a", num_samples=np.int64(4), bound=np.float32(0.5), layers=np.arange(2), seed=np.int32(7))
    assert json.dumps(config.to_dict())
    assert config == TaRotConfig("a", num_samples=4, bound=0.5, layers=(0, 1), seed=7)


def test_replace_validates() -> None:
    with pytest.raises(InvalidValueError, match="bound"):
        replace(TaRotConfig("a"), bound=-1.0)


def test_a_provenance_without_a_task_has_no_configuration() -> None:
    with pytest.raises(InvalidValueError, match="task"):
        TaRotConfig.from_dict({"budget": 3})


def test_other_keys_of_a_provenance_are_ignored_and_missing_ones_are_defaults() -> None:
    assert TaRotConfig.from_dict({"task": "a", "budget": 3, "versions": {}}) == TaRotConfig("a")


@pytest.mark.parametrize("seed", [2**63, 1.0, "1", True])
def test_seeds_are_integers_that_torch_accepts(seed: object) -> None:
    with pytest.raises(InvalidValueError, match="seed"):
        require_seed(seed)


@pytest.mark.parametrize(
    ("settings", "limit"),
    [
        ({}, 0.02),
        ({"retain": ["b"]}, 0.02),
        ({"retain": ["b"], "max_kl": 0.1}, 0.1),
        ({"max_kl": None}, None),
        ({"search": "bo"}, None),
        ({"search": "random"}, None),
        ({"objective": "sentiment:positive"}, None),
        ({"objective": "model"}, None),
    ],
)
def test_searches_that_follow_labelled_answers_have_a_limit_by_default(
    settings: dict[str, Any], limit: float | None
) -> None:
    config = TaRotConfig("a", **settings)
    assert config.max_kl == limit
    assert TaRotConfig.from_dict(config.to_dict()) == config
    assert ("max_kl" in repr(config)) == ("max_kl" in settings)


def test_what_is_retained_needs_a_limit() -> None:
    with pytest.raises(InvalidValueError, match="limit"):
        TaRotConfig("a", retain=["b"], max_kl=None)


@pytest.mark.parametrize("search", ["random", "bo", "bo-gradient"])
def test_a_limit_needs_a_gradient(search: str) -> None:
    with pytest.raises(InvalidValueError, match="adam or policy-gradient"):
        TaRotConfig("a", search=search, max_kl=0.03)
