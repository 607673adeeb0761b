r"""Rewards that need no download: length, format, keywords and refusal, each from the text alone.

length:short         1 / (1 + words / 20), in (0, 1]
length:long          1 minus that
format:json          1 if the text is a JSON object or array, else 0
keywords:A,B         fraction of these words or phrases that occur, whatever their letter case
refusal:low          -1 if the text declines to answer, else 0
refusal:high         1 if it does, else 0
regex:PATTERN        1 if the regular expression (Python's) matches somewhere, else 0

A score depends on the continuation alone.
"""

import json
import math
import re
from collections.abc import Callable

from tarot.errors import InvalidValueError, UnknownName

HALVING_WORDS = 20  # words at which `length:short` is one half
# How instruction-tuned models begin or phrase a refusal, after the list of Zou et al., arXiv 2307.15043.
REFUSALS = (
    *("i'm sorry", "i am sorry", "i apologize", "my apologies", "as an ai", "as a language model"),
    *("i can't", "i cannot", "i'm not able to", "i am not able to", "i'm unable to", "i am unable to"),
    *("i won't", "i will not", "i must decline"),
)
DIRECTIONS = ("length:short", "length:long", "format:json", "refusal:low", "refusal:high")
NAMES = (*DIRECTIONS, "keywords:A,B", "regex:PATTERN")

TextReward = Callable[[str], float]
# Highest scores that a text can have, by the first part of the name. Any length can still be shorter or longer.
_HIGHEST = {"format": 1.0, "keywords": 1.0, "refusal:low": 0.0, "refusal:high": 1.0, "regex": 1.0}


def is_text_reward(name: str) -> bool:
    """Return whether a reward of this name belongs to this module.

    Example:
        >>> is_text_reward("length:short"), is_text_reward("length_of:words")
        (True, False)
    """
    return name.partition(":")[0] in {known.partition(":")[0] for known in NAMES} and ":" in name


def highest_text_reward(name: str) -> float:
    """Return the highest score that a text can have; infinity where none is the highest.

    Example:
        >>> highest_text_reward("keywords:plot,actors"), highest_text_reward("length:short")
        (1.0, inf)
    """
    return _HIGHEST.get(name, _HIGHEST.get(name.partition(":")[0], math.inf))


def make_text_reward(name: str) -> TextReward:
    """Return the function that scores one text.

    Raises:
        UnknownName: there is no such direction.
        InvalidValueError: there is no keyword, or the pattern is not a regular expression.

    Example:
        >>> make_text_reward("keywords:plot,actors")("The actors are good.")
        0.5
    """
    kind, _, rest = name.partition(":")
    if kind == "keywords":
        return _keywords(rest)
    if kind == "regex":
        return _regex(rest)
    if name not in DIRECTIONS:
        raise UnknownName("reward", name, NAMES)
    return {
        "length:short": _shortness,
        "length:long": lambda text: 1 - _shortness(text),
        "format:json": _is_json,
        "refusal:low": lambda text: -_refuses(text),
        "refusal:high": _refuses,
    }[name]


def _shortness(text: str) -> float:
    return 1 / (1 + len(text.split()) / HALVING_WORDS)


def _is_json(text: str) -> float:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return 0.0
    return float(isinstance(value, dict | list))


def _refuses(text: str) -> float:
    plain = text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    return float(any(refusal in plain for refusal in REFUSALS))


def _keywords(listed: str) -> TextReward:
    words = [word.strip() for word in listed.split(",") if word.strip()]
    if not words:
        raise InvalidValueError("words separated by commas, as keywords:plot,actors", repr(f"keywords:{listed}"))
    patterns = [re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.IGNORECASE) for word in words]
    return lambda text: sum(bool(pattern.search(text)) for pattern in patterns) / len(patterns)


def _regex(pattern: str) -> TextReward:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InvalidValueError(f"The pattern {pattern!r} is not a regular expression: {error}.") from error
    return lambda text: float(bool(compiled.search(text)))
