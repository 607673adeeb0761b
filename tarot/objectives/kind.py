"""Kinds of objectives, by their names."""

from enum import Enum, auto

from tarot.objectives.answers import ANSWER_SCORES
from tarot.objectives.black_box import BLACK_BOX, check_black_box_name, is_black_box, resolve_function
from tarot.objectives.rewards.registry import check_reward, check_reward_name, is_reward


class ObjectiveKind(Enum):
    """Kind of an objective, by what it scores.

    Example:
        >>> ObjectiveKind.of("margin"), ObjectiveKind.of("toxicity:low"), ObjectiveKind.of("model:mine:f")
        (<ObjectiveKind.ANSWERS: 1>, <ObjectiveKind.REWARD: 2>, <ObjectiveKind.FUNCTION: 3>)
    """

    ANSWERS = auto()
    """Labelled answers (`tarot.objectives.answers`)."""
    REWARD = auto()
    """Generated texts (`tarot.objectives.rewards.registry`)."""
    FUNCTION = auto()
    """The edited model itself, by the user's function (`tarot.objectives.black_box`)."""

    @classmethod
    def of(cls, name: str) -> "ObjectiveKind":
        """Return the kind of an objective of this name, whether it exists or not."""
        if is_black_box(name):
            return cls.FUNCTION
        return cls.REWARD if is_reward(name) else cls.ANSWERS


def check_objective_name(name: str) -> None:
    """Check the spelling of an objective's name, without importing or loading anything.

    Raises:
        UnknownName: there is no such objective.
        TarotError: a reward's name is malformed.
    """
    kind = ObjectiveKind.of(name)
    if kind is ObjectiveKind.FUNCTION:
        check_black_box_name(name)
    elif kind is ObjectiveKind.REWARD:
        check_reward_name(name)
    else:
        _ = ANSWER_SCORES[name]  # raises UnknownName


def check_objective(name: str) -> None:
    """Check that an objective can be made, without loading a model.

    The module of a `module:function` is imported: call this only for what the user requested.

    Raises:
        UnknownName: there is no such objective.
        TarotError: a reward's package is not installed, or a function cannot be imported.
    """
    kind = ObjectiveKind.of(name)
    if kind is ObjectiveKind.REWARD:
        check_reward(name)
    elif kind is ObjectiveKind.FUNCTION and name != BLACK_BOX:
        resolve_function(name, None)
