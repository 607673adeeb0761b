"""Kinds of objectives: what a name is, and which names exist."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tarot.errors import TarotError, UnknownName
from tarot.objectives.answers import ANSWER_SCORES
from tarot.objectives.black_box import is_black_box
from tarot.objectives.kind import ObjectiveKind, check_objective, check_objective_name
from tarot.objectives.rewards.registry import is_reward

NAMES = {
    **dict.fromkeys(ANSWER_SCORES, ObjectiveKind.ANSWERS),
    **dict.fromkeys(("fluency", "toxicity:low", "mine:f", "fluency*0.5+length:short*0.5"), ObjectiveKind.REWARD),
    **dict.fromkeys(("model", "model:mine.module:f"), ObjectiveKind.FUNCTION),
}


@given(st.text(st.sampled_from("model:fluency*0.5+ x"), max_size=12) | st.sampled_from(sorted(NAMES)))
def test_every_name_has_one_kind(name: str) -> None:
    kind = ObjectiveKind.of(name)
    assert (kind is ObjectiveKind.FUNCTION) == is_black_box(name) and (kind is ObjectiveKind.REWARD) == is_reward(name)


@pytest.mark.parametrize("name", NAMES)
def test_known_names_are_accepted(name: str) -> None:
    check_objective_name(name)
    assert ObjectiveKind.of(name) is NAMES[name]


@pytest.mark.parametrize("name", ["log_probabilty", "", "toxicity:high", "model:mine", "model:a:b:c", "rm -rf:x"])
def test_unknown_names_are_errors(name: str) -> None:
    with pytest.raises(UnknownName):
        check_objective_name(name)


@pytest.mark.parametrize("name", ["no_such_module:f", "model:no_such_module:f"])
def test_only_the_full_check_imports(name: str) -> None:
    check_objective_name(name)
    with pytest.raises(TarotError, match="no_such_module"):
        check_objective(name)
