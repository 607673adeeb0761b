"""The names of the searches, for help and options. `tarot.search.algorithms`, which has the searches, imports torch."""

from enum import StrEnum


class SearchName(StrEnum):
    """Names of the searches, as `tarot.search.algorithms.registry.SEARCHES` has them."""

    ADAM = "adam"
    BO = "bo"
    BO_GRADIENT = "bo-gradient"
    PAPER = "paper"
    POLICY_GRADIENT = "policy-gradient"
    RANDOM = "random"


ANSWER_SEARCHES = tuple(name for name in SearchName if name is not SearchName.POLICY_GRADIENT)
"""Searches that tune on labelled answers; `policy-gradient` is for rewards of generated texts."""
